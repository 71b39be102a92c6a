# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a recipe of an image is, and how one is followed.

Promises: qemu-img and qemu-io make the images, nothing of this project does; every recipe is
deterministic, but for the date inside a snapshot; data is pseudo-random and never repeats, so a
cluster, a sector or a byte taken from the wrong place shows. `Cell.make(folder)` returns the image,
made once and kept under a name that holds a hash of its recipe: another recipe is another file.

Left to others: which recipes there are (matrix.py, layers.py).
"""

import hashlib
import json
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from images.lock import alone

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
SECTOR = 512
CLUSTER_SIZES = tuple(1 << bits for bits in range(9, 22))
REFCOUNT_BITS = (1, 2, 4, 8, 16, 32, 64)
COMPAT = {2: "0.10", 3: "1.1"}
TOOL_SECONDS_MAX = 120
HALF = bytes(ord("a") + value % 16 for value in range(256))
SOURCE = Path(__file__).read_bytes()  # what a step does is part of every recipe


@dataclass(frozen=True)
class Cell:
    """One image: how it is created, then the steps that fill it, in order.

    A step is a tuple: ("io", command, ...) one run of qemu-io; ("crash", command, ...) the same,
    cut off before it closes the image; ("fill", (guest_off, len), ...) pseudo-random bytes, written
    in that order; ("pack", (guest_off, len), ...) the same of whole clusters, half as random, and
    compressed; ("convert", cluster_bytes) the whole guest disk converted, compressed where that
    shrinks a cluster; ("noise",) all of a raw image; ("snapshot", name); ("bitmap", name);
    ("poke", host_off, bytes) of a field that no tool sets.
    """

    name: str
    kind: str
    version: int
    cluster_bytes: int
    guest_bytes: int
    steps: tuple = ()
    options: str = ""
    tables_exceed_cache: bool = False  # its tables do not fit into the smallest pool
    below: "Cell" = None  # the layer that it names as its backing file
    format: str = "qcow2"  # or "raw", which has no version and no clusters

    def chain(self):
        """The cell and those below it."""
        found = [self]
        while found[-1].below:
            found.append(found[-1].below)
        return found

    def path(self, folder):
        key = hashlib.sha256(SOURCE + repr(self).encode()).hexdigest()[:12]
        return Path(folder).resolve() / f"{self.name}-{key}.{self.format}"

    def make(self, folder):
        """The image's path; builds what was not built before of it and the layers below."""
        for cell in reversed(self.chain()):
            cell.make_layer(folder)
        return self.path(folder)

    def make_layer(self, folder):
        path = self.path(folder)
        if path.exists():
            return
        with alone(path.parent / self.name):
            if not path.exists():
                self.make_alone(folder, path)

    def make_alone(self, folder, path):
        for old in path.parent.glob(f"{self.name}-????????????.{self.format}"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            part = Path(scratch, "image").resolve()
            for below in self.chain()[1:]:
                Path(scratch, below.path(folder).name).symlink_to(below.path(folder))
            self.create(part)
            for number, step in enumerate(self.steps):
                STEPS[step[0]](part, step[1:], f"{self.name} {number}")
            part.rename(path)

    def create(self, part):
        options = []
        if self.format == "qcow2":
            options = ["-o", f"compat={COMPAT[self.version]},cluster_size={self.cluster_bytes}"
                       + self.options]
        if self.below:
            # Unsafe only says that the size is given here and need not be looked up below.
            options += ["-u", "-b", self.below.path("").name, "-F", self.below.format]
        tool("qemu-img", "create", "-q", "-f", self.format, *options, part, self.guest_bytes)


def tool(*args, status=0, folder=None):
    """Runs a program that must end with this status."""
    done = subprocess.run([str(arg) for arg in args], timeout=TOOL_SECONDS_MAX, cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != status:
        raise RuntimeError(f"{args[0]} ended with {done.returncode}: {done.stdout}")
    return done.stdout


def run_io(path, commands, _seed, **options):
    arguments = [part for command in commands for part in ("-c", command)]
    tool("qemu-io", "-f", "qcow2", *arguments, path, **options)


def run_crash(path, commands, seed):
    # qemu-io's abort ends it by SIGABRT (6), with nothing closed.
    run_io(path, (*commands, "abort"), seed, status=-6)


def random_bytes(dice, length):
    return dice.randbytes(length)


def half_random(dice, length):
    """What a compressor makes about half as long."""
    return dice.randbytes(length).translate(HALF)


def run_fill(path, runs, seed, content=random_bytes, flags="-q"):
    """Each run's bytes come from a file of its own: qemu-io takes them from nowhere else."""
    noise = random.Random(seed)
    commands = []
    for number, (guest_off, length) in enumerate(runs):
        Path(path.parent, str(number)).write_bytes(content(noise, length))
        commands.append(f"write {flags} -s {number} {guest_off} {length}")
    run_io(path, commands, seed, folder=path.parent)


def run_pack(path, runs, seed):
    run_fill(path, runs, seed, half_random, "-q -c")


def run_noise(path, _nothing, seed):
    path.write_bytes(random.Random(seed).randbytes(path.stat().st_size))


def run_convert(path, sizes, seed):
    """Of ten clusters six shrink by half, one to nearly nothing; one cannot; two are zeros."""
    raw, dice, length = path.with_name("source"), random.Random(seed), sizes[0]
    makers = [half_random] * 6 + [random_bytes, lambda *_: bytes(length), lambda *_: bytes(length),
                                  lambda dice, length: half_random(dice, 64) * (length // 64)]
    size = json.loads(tool("qemu-img", "info", "--output=json", path))["virtual-size"]
    with open(raw, "wb") as source:
        for guest_off in range(0, size, length):
            source.write(dice.choice(makers)(dice, length)[:size - guest_off])
    # Into the image that is there: its version, cluster size and compression are the recipe's.
    tool("qemu-img", "convert", "-n", "-c", "-f", "raw", "-O", "qcow2", raw, path)


def run_snapshot(path, names, _seed):
    tool("qemu-img", "snapshot", "-c", names[0], path)


def run_bitmap(path, names, _seed):
    tool("qemu-img", "bitmap", "--add", path, names[0])


def run_poke(path, place, _seed):
    host_off, data = place
    with open(path, "r+b") as image:
        image.seek(host_off)
        image.write(data)


STEPS = {"io": run_io, "crash": run_crash, "fill": run_fill, "snapshot": run_snapshot,
         "bitmap": run_bitmap, "poke": run_poke, "pack": run_pack, "noise": run_noise,
         "convert": run_convert}


# ---- places ----------------------------------------------------------------------------------


def size_name(size):
    for unit, letter in ((TIB, "t"), (GIB, "g"), (MIB, "m"), (KIB, "k")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def l2_reach(cluster_bytes):
    """Guest bytes that one L2 table maps."""
    return cluster_bytes // 8 * cluster_bytes


def cluster_count(cluster_bytes):
    """Clusters of a small image: some tables' worth of tiny ones, few of large ones."""
    if cluster_bytes == 512:
        return 300
    return 96 if cluster_bytes <= 64 * KIB else 12


def pieces(cluster_bytes, cluster):
    """The bytes written in one cluster: all, or both ends and a middle part of a large one."""
    start = cluster * cluster_bytes
    if cluster_bytes <= 64 * KIB:
        return [(start, cluster_bytes)]
    middle = start + cluster_bytes // 2
    return [(start, 8 * KIB), (middle + 512, 4 * KIB), (start + cluster_bytes - 4 * KIB, 4 * KIB)]


def scattered(cluster_bytes, clusters, seed):
    """A step that fills clusters in runs of 1 to 4, the runs in random order."""
    dice = random.Random(seed)
    runs, at = [], 0
    while at < len(clusters):
        length = dice.randint(1, 4)
        runs.append(clusters[at:at + length])
        at += length
    dice.shuffle(runs)
    order = [cluster for run in runs for cluster in run]
    return ("fill", *(piece for cluster in order for piece in pieces(cluster_bytes, cluster)))


def named(kind, version, cluster_bytes, guest_bytes, steps=(), tag="", **rest):
    name = f"{kind}-v{version}-{size_name(cluster_bytes)}{tag}"
    return Cell(name, kind, version, cluster_bytes, guest_bytes, tuple(steps), **rest)
