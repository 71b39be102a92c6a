# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What must hold of one image of images/pairwise.py, and the program that asks it of all of them.

Promises: reading through the plugin, and opening for writing without a write, leave every file as
it was, and give what QEMU reads; what is written in any order is what both read afterwards, with
nothing wrong, nothing leaked and nothing else changed: not the snapshots, not the layers below, not
a byte of the header that has no reason to. The seed is printed; QC_SEED=n chooses another one.

As a program: `cross.py [--build FOLDER] [--full]` goes through the cover of all pairs, or with
--full through every legal combination, on all processors, and closes with one line. Exit status 0
only where all of them hold.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from images.pairwise import cover, product
from mix import POOLS_KIB, SEED, Mix, Window, snapshots_of
from serve import client
from tools import check, connected, poke, state_of

STEPS = 24
REFTABLE_FIELDS = slice(48, 60)
AUTOCLEAR_BYTE = 95  # the low one of its field
BITMAPS_BIT, RAW_DATA_BIT = 1, 2  # of it
LEAKS_ONLY = 3  # exit status of qemu-img check
MEMORY = Path("/dev/shm")  # where QEMU's many flushes cost nothing, if there is one
SAY_EVERY = 250


def read_all_by_qemu(image, folder):
    raw = folder / "all.raw"
    client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    content = raw.read_bytes()
    raw.unlink()
    return content


def runs_by_qemu(image):
    """[(guest_off, end, is data)], neighbours joined."""
    entries = json.loads(client("qemu-img", "map", "-f", "qcow2", "--output=json", image))
    return joined((entry["start"], entry["length"], entry["data"]) for entry in entries)


def runs_of(link):
    entries, at = [], 0

    def take(_context, start, found, _error):
        nonlocal at
        for length, kind in zip(found[::2], found[1::2]):
            entries.append((start, length, kind == 0))
            start += length
        at = start

    while at < link.get_size():
        link.block_status(link.get_size() - at, at, take)
    return joined(entries)


def joined(entries):
    found = []
    for start, length, is_data in entries:
        if found and found[-1][2] == is_data:
            found[-1] = (found[-1][0], start + length, is_data)
        else:
            found.append((start, start + length, is_data))
    return found


def look(build, folder, image, content):
    """As whoever boots from it and never writes."""
    with connected(build, folder, image) as link:
        assert link.get_size() == len(content)
        assert link.pread(len(content), 0) == content
        runs = runs_of(link)
        link.flush()
    assert runs == runs_by_qemu(image)


def look_at_snapshots(build, folder, image, digests):
    for name, digest in digests.items():
        with connected(build, folder, image, f"snapshot={name}") as link:
            content = link.pread(link.get_size(), 0)
        assert hashlib.sha256(content).hexdigest() == digest, name


def change(build, folder, image, shape, content, dice):
    """The mix; what the guest disk then holds."""
    window = Window(0, bytearray(content))
    parameters = [f"pool_kib={dice.choice(POOLS_KIB)}",
                  f"write_through={dice.choice(('true', 'false', 'false', 'false'))}"]
    with connected(build, folder, image, *parameters) as link:
        mix = Mix(link, [window], MixCell(shape), dice)
        # Reading beside the tables shows zeros only that are written.
        mix.is_trim_ignored |= shape.data_file == "raw"
        for _ in range(STEPS):
            mix.step()
        mix.write(window, 0, 512)
    return bytes(window.content)


class MixCell:
    """What the mix asks of a recipe."""

    def __init__(self, shape):
        self.version, self.cluster_bytes = shape.version, shape.cluster_bytes
        self.below = shape.chain()[0] if shape.depth else None


def check_header(shape, before, after):
    """Of the first cluster only this differs: the refcount table's place, the bitmaps' bit."""
    wanted = bytearray(before)
    wanted[REFTABLE_FIELDS] = after[REFTABLE_FIELDS]
    if shape.version == 3:
        assert before[AUTOCLEAR_BYTE] == autoclear(shape, BITMAPS_BIT * shape.bitmaps)
        wanted[AUTOCLEAR_BYTE] = autoclear(shape, 0)
    assert after == wanted


def autoclear(shape, more_bits):
    return more_bits + RAW_DATA_BIT * (shape.data_file == "raw")


def check_counts(image, leaks):
    """A bitmap whose bit is cleared is nobody's: QEMU counts its clusters as leaked."""
    if leaks == 0:
        check(image)
        return
    found = json.loads(client("qemu-img", "check", "-f", "qcow2", "--output=json", image,
                              status=LEAKS_ONLY))
    assert found.get("corruptions", 0) == 0 and found["check-errors"] == 0
    assert found["leaks"] == leaks


def clusters_of_bitmaps(shape, image):
    """As many as QEMU calls leaked where only the bit is cleared."""
    if not shape.bitmaps:
        return 0
    copy = image.with_name("image.copy")
    shutil.copy(image, copy)
    poke(copy, AUTOCLEAR_BYTE, bytes([autoclear(shape, 0)]))
    found = json.loads(client("qemu-img", "check", "-f", "qcow2", "--output=json", copy,
                              status=LEAKS_ONLY))
    copy.unlink()
    return found["leaks"]


@contextlib.contextmanager
def scratch():
    """A folder of its own, the current one, because QEMU looks for data files there."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, \
            contextlib.chdir(folder):
        yield Path(folder)


def exercise(build, cache, folder, shape):
    """All of it."""
    print(f"seed {SEED}, {shape.name}")
    dice = random.Random(f"{SEED} {shape.name}")
    image = shape.make(folder, cache)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    below = [path for path in files if not path.name.startswith("image.")]
    content, snapshots = read_all_by_qemu(image, folder), snapshots_of(image, folder)
    check(image)
    before, leaks = state_of(files), clusters_of_bitmaps(shape, image)
    look(build, folder, image, content)
    look_at_snapshots(build, folder, image, snapshots)
    assert state_of(files) == before
    header, state = image.read_bytes()[:shape.cluster_bytes], state_of(below)
    content = change(build, folder, image, shape, content, dice)
    check_header(shape, header, image.read_bytes()[:shape.cluster_bytes])
    check_counts(image, leaks)
    assert read_all_by_qemu(image, folder) == content
    look(build, folder, image, content)
    assert snapshots_of(image, folder) == snapshots and len(snapshots) == shape.snapshots
    look_at_snapshots(build, folder, image, snapshots)
    assert state_of(below) == state
    if shape.data_file == "raw":
        assert (folder / "image.data").read_bytes()[:len(content)] == content


# ---- all of them -----------------------------------------------------------------------------


def failure_of(build, cache, shape):
    """What went wrong, or None."""
    try:
        with contextlib.redirect_stdout(None), scratch() as folder:
            exercise(build, cache, folder, shape)
    except Exception:  # whatever it is, the other cells go on
        return f"{shape.name} (seed {SEED}):\n{traceback.format_exc()}"
    return None


def be_quiet():
    """QEMU warns of what these images are about; make test shows what a failing cell says."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--full", action="store_true", help="every legal combination")
    args = parser.parse_args()

    shapes, start, failed = product() if args.full else cover(), time.monotonic(), 0
    cache = ROOT / "build" / "cache" / "pairwise"
    for shape in shapes:  # here, because two processes must not make the same one
        for cell in shape.chain()[:1]:
            cell.make(cache)
    with ProcessPoolExecutor(initializer=be_quiet) as pool:
        run = partial(failure_of, args.build.resolve(), cache)
        for count, failure in enumerate(pool.map(run, shapes, chunksize=4), 1):
            if failure:
                failed += 1
                print(failure, flush=True)
            if count % SAY_EVERY == 0:
                print(f"{count} of {len(shapes)} cells, {failed} failed", flush=True)
    print(f"{len(shapes)} cells, {failed} failed, {time.monotonic() - start:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
