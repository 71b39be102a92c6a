# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Recipes of the images that readers are tested on: legal ones, of every shape that exists today.

Promises: qemu-img and qemu-io make them, nothing of this project does; every recipe is
deterministic, but for the date inside a snapshot; data is pseudo-random and never repeats, so a
cluster, a sector or a byte taken from the wrong place shows. `cells()` lists the recipes,
`Cell.make(folder)` returns the image, made once and kept under a name that holds a hash of its
recipe: another recipe is another file.

Left to others: images that a reader must refuse, and everything that is compared.
"""

import argparse
import hashlib
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
SECTOR = 512
CLUSTER_SIZES = tuple(1 << bits for bits in range(9, 22))
REFCOUNT_BITS = (1, 2, 4, 8, 16, 32, 64)
COMPAT = {2: "0.10", 3: "1.1"}
TOOL_SECONDS_MAX = 120
SOURCE = Path(__file__).read_bytes()  # what a step does is part of every recipe


@dataclass(frozen=True)
class Cell:
    """One image: how it is created, then the steps that fill it, in order.

    A step is a tuple: ("io", command, ...) one run of qemu-io; ("crash", command, ...) the same,
    cut off before it closes the image; ("fill", (guest_off, len), ...) pseudo-random bytes, written
    in that order; ("snapshot", name); ("bitmap", name); ("poke", host_off, bytes) of a field that
    no tool sets.
    """

    name: str
    kind: str
    version: int
    cluster_bytes: int
    guest_bytes: int
    steps: tuple = ()
    options: str = ""
    tables_exceed_cache: bool = False  # its tables do not fit into the smallest pool

    def make(self, folder):
        """The image's path; builds it if this recipe was not built before."""
        key = hashlib.sha256(SOURCE + repr(self).encode()).hexdigest()[:12]
        path = Path(folder) / f"{self.name}-{key}.qcow2"
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{self.name}-????????????.qcow2"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            part = Path(scratch, "image.qcow2").resolve()
            options = f"compat={COMPAT[self.version]},cluster_size={self.cluster_bytes}"
            tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options + self.options, part,
                 self.guest_bytes)
            for number, step in enumerate(self.steps):
                STEPS[step[0]](part, step[1:], f"{self.name} {number}")
            part.rename(path)
        return path


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


def run_fill(path, runs, seed):
    """Each run's bytes come from a file of its own: qemu-io takes them from nowhere else."""
    noise = random.Random(seed)
    commands = []
    for number, (guest_off, length) in enumerate(runs):
        Path(path.parent, str(number)).write_bytes(noise.randbytes(length))
        commands.append(f"write -q -s {number} {guest_off} {length}")
    run_io(path, commands, seed, folder=path.parent)


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
         "bitmap": run_bitmap, "poke": run_poke}


# ---- shapes ----------------------------------------------------------------------------------


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


def base(kind, version, cluster_bytes, guest_bytes, steps=(), tag="", **rest):
    name = f"{kind}-v{version}-{size_name(cluster_bytes)}{tag}"
    return Cell(name, kind, version, cluster_bytes, guest_bytes, tuple(steps), **rest)


def empty(version, cluster_bytes):
    return base("empty", version, cluster_bytes, cluster_count(cluster_bytes) * cluster_bytes)


def data(version, cluster_bytes):
    """Everything written once from start to end: one run on the host."""
    count = min(cluster_count(cluster_bytes), max(5, 4 * MIB // cluster_bytes))
    size = count * cluster_bytes
    return base("data", version, cluster_bytes, size, [("fill", (0, size))])


def fragmented(version, cluster_bytes, refcount_bits=16):
    """Short runs, shuffled on the host, with holes between."""
    count = cluster_count(cluster_bytes)
    kept = sorted(random.Random(cluster_bytes).sample(range(count), count * 3 // 4))
    tag = "" if refcount_bits == 16 else f"-r{refcount_bits}"
    options = "" if version == 2 else f",refcount_bits={refcount_bits}"
    return base("fragmented", version, cluster_bytes, count * cluster_bytes,
                [scattered(cluster_bytes, kept, cluster_bytes)], tag, options=options)


def partial(version, cluster_bytes):
    """Single sectors and odd stretches: the rest of their clusters is zeros."""
    count = 40 if cluster_bytes <= 64 * KIB else 7
    size = count * cluster_bytes
    dice = random.Random(cluster_bytes)
    starts = dice.sample(range(size // SECTOR - 9), count * 2 // 3)
    runs = tuple((start * SECTOR, dice.randint(1, 9) * SECTOR) for start in starts)
    return base("partial", version, cluster_bytes, size, [("fill", *runs)])


def zero(version, cluster_bytes):
    """Zero clusters of both kinds: over data (kept, and unmapped), over holes, in part."""
    count = 64 if cluster_bytes <= 64 * KIB else 12
    step = scattered(cluster_bytes, list(range(count // 2)), cluster_bytes + 1)
    commands = []
    for start in range(0, count, 4):
        flags = "-z -u" if start % 8 else "-z"
        length = cluster_bytes * (2 if start % 12 == 0 else 1)
        commands.append(f"write -q {flags} {start * cluster_bytes} {length}")
    commands.append(f"write -q -z {2 * cluster_bytes + cluster_bytes // 2} {cluster_bytes // 2}")
    commands.append(f"discard -q {6 * cluster_bytes} {cluster_bytes}")
    commands.append(f"write -q -P 7 {8 * cluster_bytes} {min(cluster_bytes, 4 * KIB)}")
    return base("zero", version, cluster_bytes, count * cluster_bytes, [step, ("io", *commands)])


def odd(version, cluster_bytes, size, tag):
    """The guest disk ends inside a cluster; its last sectors are written."""
    start = max(0, size - 3 * SECTOR) // SECTOR * SECTOR
    return base("odd", version, cluster_bytes, size, [("fill", (start, size - start))], tag)


def unaligned(version, cluster_bytes, size):
    """The size field is no multiple of a sector, which no tool makes: whole sectors count."""
    rounded = (size + SECTOR - 1) // SECTOR * SECTOR
    steps = [("fill", (0, rounded)), ("poke", 24, size.to_bytes(8, "big"))]
    return base("unaligned", version, cluster_bytes, rounded, steps)


def boundaries(version, cluster_bytes):
    """Clusters on both sides of where a slice of a table, or a table, ends."""
    reach = l2_reach(cluster_bytes)
    last = (3 * reach + 5 * cluster_bytes) // cluster_bytes
    edges = [512, 1024, reach // cluster_bytes, 2 * reach // cluster_bytes, last]
    steps = (-2, -1, 0, 1) if cluster_bytes <= 64 * KIB else (-1, 0)
    near = {0} | {edge + step for edge in edges for step in steps}
    clusters = sorted(cluster for cluster in near if cluster < last)
    return base("boundaries", version, cluster_bytes, last * cluster_bytes,
                [scattered(cluster_bytes, clusters, cluster_bytes + 2)])


def huge(version, cluster_bytes):
    """64 TiB, a few clusters far apart: beyond 32 bits everywhere, and a large L1."""
    size = 64 * TIB
    clusters = [offset // cluster_bytes for offset in
                (0, 4 * GIB - cluster_bytes, 4 * GIB, TIB, 33 * TIB + GIB, size - cluster_bytes)]
    return base("huge", version, cluster_bytes, size,
                [scattered(cluster_bytes, clusters, cluster_bytes + 3)], tables_exceed_cache=True)


def tables(cluster_bytes, size):
    """Every cluster mapped, few of them written: many more tables than a small pool holds."""
    dice = random.Random(cluster_bytes)
    starts = sorted(dice.sample(range(size // cluster_bytes), 40))
    steps = [("fill", *(pieces(cluster_bytes, start)[0] for start in starts))]
    return base("tables", 3, cluster_bytes, size, steps, options=",preallocation=metadata",
                tables_exceed_cache=True)


def snapshot(version, cluster_bytes):
    """An internal snapshot shares clusters with the active state, parts of which changed since."""
    count = 48 if cluster_bytes <= 64 * KIB else 12
    clusters = list(range(0, count, 2))
    before = scattered(cluster_bytes, clusters, cluster_bytes + 4)
    after = tuple((piece[0], min(piece[1], 4 * KIB)) for cluster in range(0, count, 3)
                  for piece in pieces(cluster_bytes, cluster))
    steps = [before, ("snapshot", "before"), ("fill", *after)]
    return base("snapshot", version, cluster_bytes, count * cluster_bytes, steps)


def bitmap(cluster_bytes):
    """A persistent dirty bitmap: a header extension, an autoclear bit, clusters of its own."""
    steps = [("bitmap", "changes"), ("fill", (3 * cluster_bytes, 5 * cluster_bytes))]
    return base("bitmap", 3, cluster_bytes, 40 * cluster_bytes, steps)


def dirty(cluster_bytes):
    """Counts left lazy by a crash: only the dirty bit says so, the mapping is whole."""
    commands = [f"write -q -P {n + 1} {n * 3 * cluster_bytes} {cluster_bytes}" for n in range(9)]
    return base("dirty", 3, cluster_bytes, 32 * cluster_bytes, [("crash", *commands, "flush")],
                options=",lazy_refcounts=on")


def far(cluster_bytes):
    """Clusters more than 4 GiB into the file, the ones before them given back."""
    size, step = 5 * GIB, GIB
    kept = size - 64 * MIB
    commands = [f"discard -q {start} {min(step, kept - start)}" for start in range(0, kept, step)]
    steps = [("io", *commands), ("fill", (size - 3 * MIB, MIB), (size - 100 * KIB, 100 * KIB))]
    return base("far", 3, cluster_bytes, size, steps, options=",preallocation=metadata")


# ---- the matrix ------------------------------------------------------------------------------


def cells():
    """Every recipe. Not the full product: each axis whole, on its own, against a few others."""
    found = []
    for cluster_bytes in CLUSTER_SIZES:
        for version in COMPAT:
            found += [data(version, cluster_bytes), fragmented(version, cluster_bytes)]
        found += [zero(3, cluster_bytes), boundaries(3, cluster_bytes)]
    for cluster_bytes in (512, 64 * KIB):
        found += [fragmented(3, cluster_bytes, bits) for bits in REFCOUNT_BITS if bits != 16]
    for cluster_bytes in (512, 64 * KIB, 2 * MIB):
        found += [empty(2, cluster_bytes), empty(3, cluster_bytes)]
        found += [snapshot(2, cluster_bytes), snapshot(3, cluster_bytes)]
        found += [unaligned(3, cluster_bytes, 3 * cluster_bytes + 700)]
    for cluster_bytes in (KIB, 64 * KIB, 2 * MIB):
        found += [partial(2, cluster_bytes), partial(3, cluster_bytes)]
        found += [odd(3, cluster_bytes, SECTOR, "-sector"),
                  odd(2, cluster_bytes, cluster_bytes + SECTOR, "-above"),
                  odd(3, cluster_bytes, 7 * cluster_bytes - SECTOR, "-below")]
    found += [zero(2, 64 * KIB), unaligned(2, 64 * KIB, 1000)]
    found += [huge(3, 16 * KIB), huge(2, 64 * KIB), huge(3, 64 * KIB), huge(3, 2 * MIB)]
    found += [tables(512, 8 * MIB), tables(4 * KIB, 64 * MIB), tables(64 * KIB, GIB)]
    found += [bitmap(64 * KIB), dirty(64 * KIB), far(64 * KIB)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    kinds = {}
    for cell in cells():
        cell.make(folder)
        kinds[cell.kind] = kinds.get(cell.kind, 0) + 1
    print(", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    print(f"{sum(kinds.values())} cells")


if __name__ == "__main__":
    main()
