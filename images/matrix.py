# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Recipes of the images that readers are tested on: legal ones, of every shape that exists today.

`cells()` lists all of them, those of layers.py too; recipe.py says what a recipe promises.
`python3 -m images.matrix FOLDER` makes them all.

Left to others: images that a reader must refuse, and everything that is compared.
"""

import argparse
import random
from pathlib import Path

from images.layers import compressed_cells, layered_cells
from images.recipe import (CLUSTER_SIZES, COMPAT, GIB, KIB, MIB, REFCOUNT_BITS, SECTOR, TIB, Cell,
                           cluster_count, l2_reach, named, pieces, scattered, size_name)

__all__ = ["GIB", "KIB", "MIB", "SECTOR", "TIB", "Cell", "cells", "cluster_count", "scattered",
           "size_name"]

# ---- shapes ----------------------------------------------------------------------------------


def empty(version, cluster_bytes):
    return named("empty", version, cluster_bytes, cluster_count(cluster_bytes) * cluster_bytes)


def data(version, cluster_bytes):
    """Everything written once from start to end: one run on the host."""
    count = min(cluster_count(cluster_bytes), max(5, 4 * MIB // cluster_bytes))
    size = count * cluster_bytes
    return named("data", version, cluster_bytes, size, [("fill", (0, size))])


def fragmented(version, cluster_bytes, refcount_bits=16):
    """Short runs, shuffled on the host, with holes between."""
    count = cluster_count(cluster_bytes)
    kept = sorted(random.Random(cluster_bytes).sample(range(count), count * 3 // 4))
    tag = "" if refcount_bits == 16 else f"-r{refcount_bits}"
    options = "" if version == 2 else f",refcount_bits={refcount_bits}"
    return named("fragmented", version, cluster_bytes, count * cluster_bytes,
                 [scattered(cluster_bytes, kept, cluster_bytes)], tag, options=options)


def partial(version, cluster_bytes):
    """Single sectors and odd stretches: the rest of their clusters is zeros."""
    count = 40 if cluster_bytes <= 64 * KIB else 7
    size = count * cluster_bytes
    dice = random.Random(cluster_bytes)
    starts = dice.sample(range(size // SECTOR - 9), count * 2 // 3)
    runs = tuple((start * SECTOR, dice.randint(1, 9) * SECTOR) for start in starts)
    return named("partial", version, cluster_bytes, size, [("fill", *runs)])


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
    return named("zero", version, cluster_bytes, count * cluster_bytes, [step, ("io", *commands)])


def odd(version, cluster_bytes, size, tag):
    """The guest disk ends inside a cluster; its last sectors are written."""
    start = max(0, size - 3 * SECTOR) // SECTOR * SECTOR
    return named("odd", version, cluster_bytes, size, [("fill", (start, size - start))], tag)


def unaligned(version, cluster_bytes, size):
    """The size field is no multiple of a sector, which no tool makes: whole sectors count."""
    rounded = (size + SECTOR - 1) // SECTOR * SECTOR
    steps = [("fill", (0, rounded)), ("poke", 24, size.to_bytes(8, "big"))]
    return named("unaligned", version, cluster_bytes, rounded, steps)


def boundaries(version, cluster_bytes):
    """Clusters on both sides of where a slice of a table, or a table, ends."""
    reach = l2_reach(cluster_bytes)
    last = (3 * reach + 5 * cluster_bytes) // cluster_bytes
    edges = [512, 1024, reach // cluster_bytes, 2 * reach // cluster_bytes, last]
    steps = (-2, -1, 0, 1) if cluster_bytes <= 64 * KIB else (-1, 0)
    near = {0} | {edge + step for edge in edges for step in steps}
    clusters = sorted(cluster for cluster in near if cluster < last)
    return named("boundaries", version, cluster_bytes, last * cluster_bytes,
                 [scattered(cluster_bytes, clusters, cluster_bytes + 2)])


def huge(version, cluster_bytes):
    """64 TiB, a few clusters far apart: beyond 32 bits everywhere, and a large L1."""
    size = 64 * TIB
    clusters = [offset // cluster_bytes for offset in
                (0, 4 * GIB - cluster_bytes, 4 * GIB, TIB, 33 * TIB + GIB, size - cluster_bytes)]
    return named("huge", version, cluster_bytes, size,
                 [scattered(cluster_bytes, clusters, cluster_bytes + 3)], tables_exceed_cache=True)


def tables(cluster_bytes, size):
    """Every cluster mapped, few of them written: many more tables than a small pool holds."""
    dice = random.Random(cluster_bytes)
    starts = sorted(dice.sample(range(size // cluster_bytes), 40))
    steps = [("fill", *(pieces(cluster_bytes, start)[0] for start in starts))]
    return named("tables", 3, cluster_bytes, size, steps, options=",preallocation=metadata",
                 tables_exceed_cache=True)


def snapshot(version, cluster_bytes):
    """An internal snapshot shares clusters with the active state, parts of which changed since."""
    count = 48 if cluster_bytes <= 64 * KIB else 12
    clusters = list(range(0, count, 2))
    before = scattered(cluster_bytes, clusters, cluster_bytes + 4)
    after = tuple((piece[0], min(piece[1], 4 * KIB)) for cluster in range(0, count, 3)
                  for piece in pieces(cluster_bytes, cluster))
    steps = [before, ("snapshot", "before"), ("fill", *after)]
    return named("snapshot", version, cluster_bytes, count * cluster_bytes, steps)


def bitmap(cluster_bytes):
    """A persistent dirty bitmap: a header extension, an autoclear bit, clusters of its own."""
    steps = [("bitmap", "changes"), ("fill", (3 * cluster_bytes, 5 * cluster_bytes))]
    return named("bitmap", 3, cluster_bytes, 40 * cluster_bytes, steps)


def dirty(cluster_bytes):
    """Counts left lazy by a crash: only the dirty bit says so, the mapping is whole."""
    commands = [f"write -q -P {n + 1} {n * 3 * cluster_bytes} {cluster_bytes}" for n in range(9)]
    return named("dirty", 3, cluster_bytes, 32 * cluster_bytes, [("crash", *commands, "flush")],
                 options=",lazy_refcounts=on")


def far(cluster_bytes):
    """Clusters more than 4 GiB into the file, the ones before them given back."""
    size, step = 5 * GIB, GIB
    kept = size - 64 * MIB
    commands = [f"discard -q {start} {min(step, kept - start)}" for start in range(0, kept, step)]
    steps = [("io", *commands), ("fill", (size - 3 * MIB, MIB), (size - 100 * KIB, 100 * KIB))]
    return named("far", 3, cluster_bytes, size, steps, options=",preallocation=metadata")


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
    return found + compressed_cells() + layered_cells()


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
