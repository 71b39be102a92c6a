# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Hostile images end in an answer, never in a crash, a hang or damage, with QEMU as the judge.

Promises: the images are the same in every run; what the runner takes for a fault, and what the
comparison takes for a finding, is shown by programs that behave so.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import generate
import hostile
from files import digest, images_below

IMAGES = 80  # of each seed; a tenth of a second of processor time each
SEEDS = (11, 12)


@pytest.fixture(name="program")
def program_fixture(build):
    return build / "host" / "hostile" / "hostile"


def judged(program, folder, work, with_qemu=False):
    """{name: the rest of its line}, and the counts."""
    lines = []
    counts = hostile.judge_all(program, folder, work, with_qemu, lines.append)
    return dict(line.split(": ", 1) for line in lines), counts


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def qemu_img(*command):
    subprocess.run(["qemu-img", *command], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_images(program, build, folder, tmp_path, seed):
    made = generate.generate(folder, IMAGES, seed)
    before = {path: digest(path) for path in images_below(folder)}
    lines, counts = judged(program, folder, tmp_path, with_qemu=True)
    assert [f"{name}: {line}" for name, line in lines.items() if hostile.has_fault(line)] == []
    assert counts[0] == IMAGES + len(generate.BASES)
    assert counts[1] > counts[0] // 2  # hostile, but not so plainly that nothing is left to read
    assert before == {path: digest(path) for path in images_below(folder)}
    for path in (path for path, said in made.items() if not said):
        qemu_img("check", "-f", "qcow2", path)
        assert lines[path.name].startswith("opened")
    figures = build / "figures"
    figures.mkdir(exist_ok=True)
    (figures / f"hostile{seed}.txt").write_text(f"hostile images {counts[0]}\n")


# Images that showed a fault once: what is changed in them, and what is to be said.
KNOWN = {
    # The L1 table of a snapshot is free by its count, and must not be handed out.
    "1-130": ("count of 3: 0x1 -> 0x0",
              "write failed DEVICE_ERROR: free cluster 0x600000 is metadata"),
    # QEMU looks at the place of the snapshot table where there are no snapshots, too.
    "1-177": ("snapshots_off: 0x0 -> 0x7272a6388d318e58",
              "refused VOLUME_CORRUPTED: snapshot table offset 0x7272a6388d318e58 invalid"),
}


@pytest.mark.parametrize("seed", KNOWN)
def test_known_image(program, folder, tmp_path, seed):
    change, verdict = KNOWN[seed]
    assert change in generate.make(folder / "image", seed)
    lines, counts = judged(program, folder, tmp_path, with_qemu=True)
    assert lines["image"].endswith(verdict) and counts[2] == 0


def test_verdicts(program, folder, tmp_path):
    image = folder / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, "1M")
    for name, host_off, data in [("damaged", 40, b"\0" * 8), ("marked", 79, b"\2"),
                                 ("version", 7, b"\4"), ("crypt", 35, b"\1")]:
        shutil.copy(image, folder / name)
        with (folder / name).open("r+b") as file:
            file.seek(host_off)
            file.write(data)
    (folder / "text").write_text("no image\n")
    (folder / "empty").touch()
    (folder / "link").symlink_to("a.qcow2")
    below = folder / "below"
    below.mkdir()
    for name, base in (("out", "/a.qcow2"), ("on", "out")):
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", below / name, "1M")
    lines, counts = judged(program, folder, tmp_path)
    assert lines == {
        "a.qcow2": "opened, read 1048576 bytes, written and flushed",
        "below/on": "refused ACCESS_DENIED: layer 1: backing name refused: absolute: /a.qcow2",
        "below/out": "refused ACCESS_DENIED: backing name refused: absolute: /a.qcow2",
        "crypt": "refused UNSUPPORTED: encryption method 1 not supported",
        "damaged": "refused VOLUME_CORRUPTED: L1 table offset 0x0 invalid",
        "empty": "not qcow2",
        "marked": "opened read-only (image is marked corrupt: read-only), read 1048576 bytes",
        "text": "not qcow2",
        "version": "refused UNSUPPORTED: version 4 not supported",
    }
    assert list(lines) == sorted(lines)
    assert counts == [9, 2, 0]


def test_command(program, folder, tmp_path):
    """The exit status and the last line, as `make hostile` shows them."""
    script = Path(hostile.__file__)
    build = program.parent.parent.parent
    command = [sys.executable, "-B", script, "--build", build, folder]
    empty = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (empty.returncode, empty.stdout.splitlines()[-1][:9]) == (1, "0 images,")
    (folder / "text").write_text("no image\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout == ("text: not qcow2\n1 images, 0 opened, 1 not opened, "
                           "0 with a crash, a hang or a wrong answer\n")
    missing = subprocess.run([*command[:-1], tmp_path / "none"], capture_output=True, timeout=60,
                             check=False)
    assert missing.returncode == 1


# ---- what is wrong is seen -------------------------------------------------------------------

LAST = "for last; do :; done\n"  # the copy
DUMP = 'while [ "$1" != -d ]; do shift; done; printf %512s >"$2"\n'
READ = f"{DUMP}echo writable 1048576; echo read 0 512\n"
FAULTS = {
    "kill -SEGV $$": "CRASH SIGSEGV: ",
    "echo 'x.c:1: runtime error: no' >&2; kill -ABRT $$": "CRASH SIGABRT: x.c:1: runtime error: no",
    "kill -PROF $$": "HANG: more than a second of processor time",
    "echo no room >&2; exit 2": "NOT TRIED: no room",
    "true": "NOT TRIED: no verdict",
    f"{LAST}printf x >>$last; echo verdict refused UNSUPPORTED: no":
        "refused UNSUPPORTED: no; WROTE WHEN REFUSED",
    f"{LAST}printf x >>$last; echo 'verdict opened read-only (no), read 0 bytes'":
        "opened read-only (no), read 0 bytes; WROTE WHEN REFUSED",
    f"{LAST}printf x >>$last; echo 'verdict not qcow2'": "not qcow2; WROTE WHEN REFUSED",
}
DIFFERENCES = {
    f"{READ}echo verdict opened": "FINDING: QEMU: reads otherwise at 0x0",
    f"{DUMP}echo writable 512; echo verdict opened":
        "FINDING: QEMU: the disk has 1048576 bytes, here 512",
}


def fake(tmp_path, text):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return program


@pytest.mark.parametrize("text, line", FAULTS.items())
def test_fault_is_seen(folder, tmp_path, text, line):
    (folder / "image").write_bytes(bytes(4096))
    lines, counts = judged(fake(tmp_path, text), folder, tmp_path)
    assert lines == {"image": line}
    assert counts[2] == 1 and hostile.has_fault(line)


@pytest.mark.parametrize("text, finding", DIFFERENCES.items())
def test_difference_is_seen(folder, tmp_path, text, finding):
    qemu_img("create", "-q", "-f", "qcow2", folder / "image", "1M")
    lines, counts = judged(fake(tmp_path, text), folder, tmp_path, with_qemu=True)
    assert finding in lines["image"] and counts[2] == 1


HARM = {
    # An L2 table behind the end; a write that is lost; a count too many; no L1 entry at all.
    "printf '\\200\\0\\0\\0\\0\\5\\0\\0' | dd of=$last bs=1 seek=196608 conv=notrunc status=none":
        "errors: 0 before",
    "true": "1 sectors, the first at 0x0, are read otherwise",
    "printf '\\1' | dd of=$last bs=1 seek=$((131072 + 2)) conv=notrunc status=none":
        "leaks: 0 before, 1 after",
    "printf '\\377' | dd of=$last bs=1 seek=196608 conv=notrunc status=none":
        "errors: 0 before, ",
}


@pytest.mark.parametrize("harm, finding", HARM.items())
def test_harm_is_seen(program, folder, tmp_path, harm, finding):
    """A program that says it wrote a sector, and did something else to the image."""
    qemu_img("create", "-q", "-f", "qcow2", folder / "image", "1M")
    text = (f"{LAST}case \"$*\" in *' -r '*) exec {program} \"$@\";; esac\n{harm}\n"
            f"while [ \"$1\" != -d ]; do shift; done; head -c 512 /dev/zero >\"$2\"\n"
            "echo writable 1048576; echo read 0 512; echo written 0 512 160; echo flushed\n"
            "echo verdict opened, read 512 bytes, written and flushed")
    lines, counts = judged(fake(tmp_path, text), folder, tmp_path, with_qemu=True)
    assert finding in lines["image"] and counts[2] == 1
