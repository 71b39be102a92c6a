# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The check beside `qemu-img check`, on thousands of damaged images, and what its repairs leave.

Agreement is exact: the same exit status and the same figures. After a repair of ours qemu-img finds
nothing, and every guest cluster that was right is as it was; the exceptions are named in
`unfixable`. What QEMU's own repair does is no yardstick: it leaves entries that lead nowhere, gives
up where two tables share a cluster, and on an image with a bitmap it forgets the snapshots
(measured on 7.2).
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from guest import right
from images import damage

IMAGES, IMAGES_LONG = 5000, 20000
REPAIRS, REPAIRS_LONG = 1000, 6000
BATCH = 100
TIMEOUT_S = 120
QEMU_IMG_MAX = 2  # at a time

FIGURES = ["corruptions", "leaks", "check-errors", "image-end-offset", "total-clusters",
           "allocated-clusters", "fragmented-clusters", "compressed-clusters"]


def run(*command, feed=None):
    return subprocess.run([str(part) for part in command], input=feed, capture_output=True,
                          text=True, timeout=TIMEOUT_S)


def qemu_check(path, *options):
    """qemu-img's figures, with its exit status and what it said."""
    done = run("qemu-img", "check", "-f", "qcow2", "--output=json", *options, path)
    figures = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return {**figures, "exit": done.returncode, "said": done.stderr}


def our_checks(build, paths, *options):
    done = run(build / "host" / "qc-check", *options, "-", feed="".join(f"{p}\n" for p in paths))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def our_check(build, path, *options):
    return our_checks(build, [path], *options)[0]


def differences(ours, theirs):
    if ours["exit"] == theirs["exit"] == 1:
        return []  # neither came to an end
    return [key for key in ["exit", *FIGURES] if ours.get(key, 0) != theirs.get(key, 0)]


def share(count, count_long, request):
    return count_long if request.config.getoption("--long") else count


@pytest.fixture(scope="module")
def bases(cache):
    """[(shape, content)]"""
    folder = cache / "damage"
    folder.mkdir(exist_ok=True)
    made = []
    for shape in damage.SHAPES:
        path = folder / shape.name
        if not path.exists():
            damage.make(shape, path.with_suffix(".new"))
            os.replace(path.with_suffix(".new"), path)
        made.append((shape, path.read_bytes()))
    return made


def batches(bases, folder, first, count):
    """Lists of (path, seed, what was done) of damaged images, which are there until the next."""
    for start in range(first, first + count, BATCH):
        batch = []
        for seed in range(start, min(start + BATCH, first + count)):
            shape, content = bases[seed % len(bases)]
            hurt, told = damage.damaged(content, seed)
            path = folder / f"{seed}.qcow2"
            path.write_bytes(hurt)
            batch.append((path, f"seed {seed}, {shape.name}: {told}"))
        yield batch
        for path, _ in batch:
            path.unlink()


def test_undamaged_images_are_clean(build, bases, tmp_path):
    for shape, content in bases:
        path = tmp_path / shape.name
        path.write_bytes(content)
        theirs = qemu_check(path)
        assert theirs["exit"] == 0
        assert differences(our_check(build, path), theirs) == [], shape.name


def test_agrees_with_qemu(build, bases, tmp_path, request):
    complaints, exits = [], set()
    with ThreadPoolExecutor(QEMU_IMG_MAX) as pool:
        for batch in batches(bases, tmp_path, 0, share(IMAGES, IMAGES_LONG, request)):
            paths = [path for path, _ in batch]
            for (_, told), ours, theirs in zip(batch, our_checks(build, paths),
                                               pool.map(qemu_check, paths)):
                exits.add(theirs["exit"])
                for key in differences(ours, theirs):
                    complaints.append(f"{told}: {key} {ours.get(key)}, QEMU {theirs.get(key)}")
    assert complaints == []
    assert exits == {0, 1, 2, 3}


def unfixable(found, after):
    """A count that cannot be as large as it must, or an image that QEMU does not open either."""
    return "overflow cluster" in after["said"] or (found["exit"] == after["exit"] == 1 and
                                                   "Could not open" in after["said"])


def changed(before, after):
    """Guest clusters that were right and are not as they were."""
    now = right(after)
    return [number for number, what in right(before).items() if now.get(number) != what]


def judge_repair(build, path, told):
    """Complaints about a repair of this image."""
    before, found = path.read_bytes(), qemu_check(path)
    ours = our_check(build, path, "-r", "all")
    after = qemu_check(path)
    if after["exit"] != 0 and not unfixable(found, after):
        yield f"{told}: afterwards {after['exit']}: {after['said'][:200]}"
    for key in differences(ours, after):
        yield f"{told}: told {key} {ours.get(key)}, QEMU finds {after.get(key)}"
    if ours["status"] == 0:
        lost = changed(before, path.read_bytes())
        if lost:
            yield f"{told}: guest clusters {lost[:4]} changed"


def test_repairs_leave_nothing_and_lose_nothing(build, bases, tmp_path, request):
    complaints = []
    with ThreadPoolExecutor(QEMU_IMG_MAX) as pool:
        for batch in batches(bases, tmp_path, 10**6, share(REPAIRS, REPAIRS_LONG, request)):
            for lines in pool.map(lambda one: list(judge_repair(build, *one)), batch):
                complaints += lines
    assert complaints == []


def test_repairs_need_no_growth(build, bases, tmp_path):
    """On a disk with room behind the image that does not grow."""
    complaints = []
    roomy = [(shape, content + bytes(8 * shape.cluster)) for shape, content in bases]
    for batch in batches(roomy, tmp_path, 2 * 10**6, len(roomy)):
        for path, told in batch:
            size = path.stat().st_size
            ours = our_check(build, path, "-r", "all", "-f")
            after = qemu_check(path)
            if ours["status"] == 0 and after["exit"] not in (0, 2):
                complaints.append(f"{told}: {after}")
            if path.stat().st_size != size:
                complaints.append(f"{told}: grew")
    assert complaints == []


def test_small_pool_tells_the_same(build, tmp_path):
    """More clusters than one window of the smallest pool counts."""
    path = tmp_path / "many.qcow2"
    damage.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "24M")
    damage.run("qemu-io", "-f", "qcow2", "-c", "write 0 20M", path)
    damage.run("qemu-img", "snapshot", "-c", "s", path)
    damage.run("qemu-io", "-f", "qcow2", "-c", "write 5M 2M", path)
    content = path.read_bytes()
    for seed in range(6):
        hurt, told = damage.damaged(content, seed)
        path.write_bytes(hurt)
        theirs = qemu_check(path)
        for pool_kib in (64, 96, 1280):
            assert differences(our_check(build, path, "-p", pool_kib), theirs) == [], told
        assert our_check(build, path, "-p", 64, "-r", "all")["exit"] == 0, told
        assert qemu_check(path)["exit"] == 0, told
