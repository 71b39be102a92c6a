# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Recipes of compressed images, and of images that lie over others.

Compressed ones have every cluster size, both compressions and versions, and are as `qemu-img
convert -c` leaves them, or changed since. Chains are two to four layers deep, with every kind of
layer below: other cluster sizes, raw, compressed, shorter, longer, ending inside a cluster.

Left to others: how a recipe is followed (recipe.py).
"""

import random

from images.recipe import (CLUSTER_SIZES, KIB, MIB, SECTOR, Cell, cluster_count, named, scattered,
                           size_name)

# ---- compressed ------------------------------------------------------------------------------


def packed_count(cluster_bytes):
    return min(cluster_count(cluster_bytes), max(7, 2 * MIB // cluster_bytes))


def compression_option(compression):
    return "" if compression == "zlib" else f",compression_type={compression}"


def packed(version, cluster_bytes, compression):
    """As converted; the guest disk ends inside a cluster."""
    size = packed_count(cluster_bytes) * cluster_bytes
    size -= cluster_bytes // 2 // SECTOR * SECTOR
    return named("packed", version, cluster_bytes, size, [("convert", cluster_bytes)],
                 f"-{compression}", options=compression_option(compression))


def repacked(version, cluster_bytes, compression):
    """
    Converted, and changed since: parts and wholes of clusters written, given back, compressed
    anew; a snapshot shares compressed clusters, some of which changed after it.
    """
    count = packed_count(cluster_bytes)
    dice = random.Random(cluster_bytes)
    changed = dice.sample(range(count), count // 2)
    wholes, parts, gone, anew = (sorted(changed[n::4]) for n in range(4))
    length = min(cluster_bytes, 4 * KIB)
    steps = [("convert", cluster_bytes),
             ("io", *(f"discard -q {n * cluster_bytes} {cluster_bytes}" for n in gone + anew)),
             ("pack", *((n * cluster_bytes, cluster_bytes) for n in anew)),
             ("snapshot", "between"),
             ("fill", *((n * cluster_bytes + cluster_bytes // 2, length // 2) for n in parts)),
             scattered(cluster_bytes, wholes, cluster_bytes)]
    return named("repacked", version, cluster_bytes, count * cluster_bytes, steps,
                 f"-{compression}", options=compression_option(compression))


def compressed_cells():
    found = []
    for cluster_bytes in CLUSTER_SIZES:
        found += [packed(2, cluster_bytes, "zlib"), packed(3, cluster_bytes, "zlib"),
                  packed(3, cluster_bytes, "zstd")]
    for cluster_bytes in (512, 4 * KIB, 64 * KIB, 2 * MIB):
        found += [repacked(3, cluster_bytes, "zlib"), repacked(3, cluster_bytes, "zstd")]
    return found + [repacked(2, 64 * KIB, "zlib")]


# ---- chains ----------------------------------------------------------------------------------

KINDS = ("qcow2", "raw", "zlib", "zstd")
# Clusters of the layer above and of the one below, and how long that is.
RELATIONS = ((512, 64 * KIB, "shorter"), (4 * KIB, 512, "longer"), (64 * KIB, 2 * MIB, "same"),
             (64 * KIB, 4 * KIB, "shorter"), (2 * MIB, 64 * KIB, "longer"))
LENGTHS = {"same": lambda size: size, "shorter": lambda size: size * 5 // 8 // SECTOR * SECTOR,
           "longer": lambda size: size * 5 // 4 // SECTOR * SECTOR + 5 * SECTOR}


def chain_bytes(*cluster_sizes):
    """No multiple of any cluster but the smallest."""
    return (5 if 2 * MIB in cluster_sizes else 1) * MIB + 3 * SECTOR


def spots(size, cluster_bytes, seed):
    """Sectors here and there, which leave clusters alone: (guest_off, len)."""
    dice = random.Random(seed)
    starts = dice.sample(range(size // SECTOR), min(24, max(3, size // cluster_bytes // 2)))
    return [(start * SECTOR, min(dice.randint(1, 64), size // SECTOR - start) * SECTOR)
            for start in sorted(starts)]


def bottom(kind, cluster_bytes, size):
    """A layer with nothing below."""
    name = f"{kind}-{size}" if kind == "raw" else f"bottom-{size_name(cluster_bytes)}-{kind}-{size}"
    if kind == "raw":
        return Cell(name, "bottom", 0, 0, size, (("noise",),), format="raw")
    if kind == "qcow2":
        runs = spots(size, cluster_bytes, cluster_bytes)
        zeros = [f"write -q -z {start} {length}" for start, length in runs[::3]]
        steps = (("fill", *runs), ("io", *zeros))
        return Cell(name, "bottom", 3, cluster_bytes, size, steps)
    return Cell(name, "bottom", 3, cluster_bytes, size, (("convert", cluster_bytes),),
                compression_option(kind))


def over(below, version, cluster_bytes, size, tag):
    """A layer that hides some of what is below: data, in version 3 also zeros."""
    runs = spots(size, cluster_bytes, f"{below.name} {version} {cluster_bytes}")
    steps = [("fill", *runs[0::3])]
    if version == 3:
        steps.append(("io", *(f"write -q -z {start} {length}" for start, length in runs[1::3]),
                      *(f"discard -q {start} {length}" for start, length in runs[2::6])))
    return named("chain", version, cluster_bytes, size, steps, tag, below=below)


def packed_over(below, version, cluster_bytes, size):
    """A layer of everything: compressed clusters, which a snapshot shares, and parts over them."""
    dice = random.Random(f"packed {version} {cluster_bytes}")
    places = sorted(dice.sample(range(size // cluster_bytes), 8))
    length = cluster_bytes // 4
    steps = [("pack", *((place * cluster_bytes, cluster_bytes) for place in places)),
             ("snapshot", "between"),
             ("fill", *((place * cluster_bytes + length, length) for place in places[::2]))]
    return named("chain", version, cluster_bytes, size, steps, "-packed", below=below)


def pair(version, kind, relation):
    above_bytes, below_bytes, length = relation
    size = chain_bytes(above_bytes, below_bytes if kind != "raw" else 0)
    below = bottom(kind, below_bytes, LENGTHS[length](size))
    on = kind if kind == "raw" else f"{kind}-{size_name(below_bytes)}"
    return over(below, version, above_bytes, size, f"-on-{on}-{length}")


def pairs():
    """Each relation with each kind below; version 2 above with each kind and each relation."""
    found = [pair(3, kind, relation) for kind in KINDS for relation in RELATIONS]
    return found + [pair(2, KINDS[n % len(KINDS)], relation)
                    for n, relation in enumerate(RELATIONS)]


def deeper():
    """Three and four layers; where one in the middle is short, what is below it stays hidden."""
    size = chain_bytes()
    raw, zstd = bottom("raw", 0, size + 64 * KIB), bottom("zstd", 64 * KIB, size)
    short = over(raw, 3, 4 * KIB, size // 2 // SECTOR * SECTOR, "-on-raw-short")
    long = over(zstd, 2, 512, size + 128 * KIB, "-on-zstd-long")
    middle = over(bottom("zlib", 4 * KIB, size), 3, 64 * KIB, size, "-on-zlib-middle")
    found = [over(short, 3, 64 * KIB, size, "-three-short"),
             over(long, 3, 64 * KIB, size, "-three-long"),
             over(over(middle, 2, 4 * KIB, size - 7 * SECTOR, "-middle"), 3, 512, size,
                  "-four"),
             packed_over(raw, 2, 64 * KIB, size), packed_over(zstd, 3, 16 * KIB, size),
             over(over(long, 3, 16 * KIB, size, "-middle"), 2, 64 * KIB, size - SECTOR, "-four")]
    odd = Cell("raw-odd", "bottom", 0, 0, size - 2 * SECTOR + 212, (("noise",),), format="raw")
    return found + [over(odd, 3, 4 * KIB, size, "-on-raw-odd")]


def layered_cells():
    return pairs() + deeper()
