# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images that differ in what there is to say of them: names, dates, marks, sizes, bitmaps, leaks.

Promises: `RECIPES` is name -> function(path) that makes an image there with QEMU's tools, its other
files beside it and named from the current folder, which must be the path's own. Fields that no tool
sets are poked. Images of `LEAKY` have counts that a repair puts right in one way only.

Left to others: kinds of images (pairwise.py, matrix.py), damage of all sorts (damage.py).
"""

import os
import struct
from functools import partial

from images.recipe import GIB, KIB, MIB, SECTOR, TIB, run_crash, run_io, tool

CLUSTER = 64 * KIB
INCOMPATIBLE_BYTE, AUTOCLEAR_BYTE = 79, 95  # the low ones of their fields
DIRTY, CORRUPT = 1, 2
COPIED_BYTE = 0x80  # the flag, in the first byte of an entry
# Where qemu-img puts the tables of a new image with clusters of CLUSTER bytes.
REFBLOCK_OFF, L1_OFF = 2 * CLUSTER, 3 * CLUSTER
ODD_NAMES = ("na\u00efve \u20ac \U0001f4be", 'quote " back \\ slash', "tab\there, bell\a",
             "del\x7f", os.fsdecode(b"bad \x80 \xff\xc0\x80 \xe2\x82"),
             os.fsdecode(b"half \xed\xa0\x80 none \xef\xbf\xbf"), "x" * 200, " ")


def create(path, size, *options, base=None, base_format="raw"):
    below = ["-u", "-b", base, "-F", base_format] if base else []
    chosen = ["-o", ",".join(options)] if options else []
    tool("qemu-img", "create", "-q", "-f", "qcow2", *chosen, *below, path, size)


def poke(path, host_off, data):
    with open(path, "r+b") as image:
        image.seek(host_off)
        image.write(data)


def peek(path, host_off, length):
    with open(path, "rb") as image:
        image.seek(host_off)
        return image.read(length)


def marked(bits, path):
    create(path, 8 * MIB, "lazy_refcounts=on")
    run_io(path, ["write -q 0 200k"], None)
    poke(path, INCOMPATIBLE_BYTE, bytes([bits]))


def of_size(size, path):
    create(path, size, "cluster_size=2M")


def part_of(allocated, total, path):
    """Exact halves of a hundredth, where rounding shows; every second cluster is a fragment."""
    create(path, total * 4 * KIB, "cluster_size=4k")
    run_io(path, [f"write -q {n * 8 * KIB} 4k" for n in range(allocated)], None)


def bitmaps(path, *options):
    create(path, 24 * MIB, *options)
    for name, flags in (("auto", ("--enable",)), ("off", ("--disable",)),
                        ("fine", ("-g", "512")), ("coarse", ("-g", "2G", "--disable"))):
        tool("qemu-img", "bitmap", "--add", *flags, path, name)
    run_io(path, ["write -q 1M 100k"], None)


def bitmaps_in_use(path):
    """As a crash leaves them: those that are kept up to date were not stored."""
    bitmaps(path)
    run_crash(path, ["write -q 2M 100k", "flush"], None)


def bitmaps_stale(path):
    """Another program wrote the image since."""
    bitmaps(path)
    poke(path, AUTOCLEAR_BYTE, b"\0")


def bitmaps_beside_data(path):
    bitmaps(path, "data_file=image.data")


def bitmaps_with_odd_names(path):
    create(path, MIB)
    for name in ODD_NAMES[:4]:
        tool("qemu-img", "bitmap", "--add", path, name)


def odd_snapshots(path):
    create(path, MIB)
    for name in ODD_NAMES:
        tool("qemu-img", "snapshot", "-c", name, path)


def moments(path):
    """Snapshots with VM state, a clock, an instruction count or none, and dates from 1970 on."""
    values = [(0, 0, 0, 0, 0), (951782400, 1, 999_999_999, 999, 2**63),
              (4107542400, 5, 10**9, 1000, 7),
              (4294967295, 999999999, 10**15 + 5 * 10**6, 1023 * KIB, 2**64 - 1),
              (1709251199, 7, 2**63 + 123456789, 1000 * MIB + 5 * KIB, 10**12)]
    create(path, MIB)
    for number, _ in enumerate(values):
        tool("qemu-img", "snapshot", "-c", f"m{number}", path)
    off = struct.unpack(">Q", peek(path, 64, 8))[0]
    for sec, nsec, clock, state, icount in values:
        poke(path, off + 16, struct.pack(">IIQ", sec, nsec, clock))
        poke(path, off + 40, struct.pack(">Q", state))
        poke(path, off + 56, struct.pack(">Q", icount))
        strings = struct.unpack(">HH", peek(path, off + 12, 4))
        extra = struct.unpack(">I", peek(path, off + 36, 4))[0]
        off += (40 + extra + sum(strings) + 7) & ~7


def raw_base(name, path):
    base = path.parent / name
    base.parent.mkdir(exist_ok=True)
    base.write_bytes(bytes(range(256)) * 4 * KIB)
    return base


def over_odd_name(path):
    create(path, 2 * MIB, base=raw_base("b\u00e4se \"1\".raw", path).name)


def over_folder(path):
    raw_base("below/base.raw", path)
    create(path, 2 * MIB, base="below/base.raw")
    run_io(path, ["write -q 512k 100k"], None)


def over_absolute(path):
    create(path, 2 * MIB, "compat=0.10", base=raw_base("base.raw", path).resolve())


def over_folders(path):
    """Each name is meant as seen from the file that has it."""
    raw_base("below/base.raw", path)
    create(path.parent / "below" / "middle.qcow2", 3 * MIB, base="base.raw")
    create(path, 2 * MIB, base="below/middle.qcow2", base_format="qcow2")


def at_the_start(options, path):
    """What a data file's first cluster says, whose offset is 0 as that of no cluster is."""
    create(path, 4 * CLUSTER, "data_file=image.data", *options)
    run_io(path, [f"write -q 0 {CLUSTER}", f"write -q -z 0 {CLUSTER // 2}",
                  f"write -q {CLUSTER} {CLUSTER}", f"write -q -z {CLUSTER} {CLUSTER}"], None)


def kept(options, path):
    """Clusters that are zeros, or nothing, and stay where they are."""
    create(path, 64 * CLUSTER, *options)
    run_io(path, [f"write -q 0 {16 * CLUSTER}", f"write -q -z {3 * CLUSTER} {5 * CLUSTER}",
                  f"write -q -z -u {10 * CLUSTER} {2 * CLUSTER}",
                  f"write -q {20 * CLUSTER + CLUSTER // 2} 4k",
                  f"write -q -z {22 * CLUSTER} {2 * CLUSTER + CLUSTER // 2}"], None)


def kept_far(options, path):
    """Zeros over more entries than are read at a time, some of them kept far behind the first."""
    create(path, 96 * MIB, *options)
    run_io(path, [f"write -q {at} {CLUSTER}" for at in (20 * MIB, 21 * MIB, 40 * MIB, 70 * MIB)]
           + ["write -q -z 0 80M"], None)


def leaks(path):
    """Counts of clusters that nothing names, right behind the others."""
    create(path, 8 * MIB)
    run_io(path, [f"write -q {n * 3 * CLUSTER} {CLUSTER}" for n in range(5)], None)
    tool("truncate", "-s", 24 * CLUSTER, path)
    for cluster in (18, 19, 23):
        poke(path, REFBLOCK_OFF + 2 * cluster, b"\0\1")


def flags(path):
    """A table and a cluster that are said to be shared, and are not."""
    create(path, 8 * MIB)
    run_io(path, [f"write -q 0 {3 * CLUSTER}"], None)
    l2_off = struct.unpack(">Q", peek(path, L1_OFF, 8))[0] & ~(COPIED_BYTE << 56)
    for off in (L1_OFF, l2_off + 8):
        assert peek(path, off, 1)[0] == COPIED_BYTE
        poke(path, off, b"\0")


def leaks_and_flags(path):
    flags(path)
    tool("truncate", "-s", 24 * CLUSTER, path)
    poke(path, REFBLOCK_OFF + 2 * 20, b"\0\1")


SIZES = (SECTOR, 3 * SECTOR, 999 * KIB, 1000 * KIB, 1001 * KIB, 1023 * KIB, 10 * MIB - SECTOR,
         999 * MIB + 512 * KIB, 999 * MIB + 511 * KIB, 1023 * GIB, 1536 * GIB + 7 * MIB, 999 * TIB)
PARTS = ((1, 800), (3, 1600), (1, 4000), (3, 4000), (7, 4000), (9, 4000), (1, 3), (2, 3), (8, 16))
LEAKY = {"leaks": leaks, "flags": flags, "leaks-flags": leaks_and_flags}
RECIPES = {
    **{f"marked-{bits}": partial(marked, bits) for bits in (0, DIRTY, CORRUPT, DIRTY | CORRUPT)},
    **{f"size-{size}": partial(of_size, size) for size in SIZES},
    **{f"part-{part}-{total}": partial(part_of, part, total) for part, total in PARTS},
    "bitmaps": bitmaps, "bitmaps-in-use": bitmaps_in_use, "bitmaps-stale": bitmaps_stale,
    "bitmaps-data-file": bitmaps_beside_data, "bitmaps-odd": bitmaps_with_odd_names,
    "snapshots-odd": odd_snapshots, "moments": moments,
    "over-odd": over_odd_name, "over-folder": over_folder, "over-absolute": over_absolute,
    "over-folders": over_folders,
    "start": partial(at_the_start, ()), "start-sub": partial(at_the_start, ("extended_l2=on",)),
    "kept": partial(kept, ()), "kept-sub": partial(kept, ("extended_l2=on",)),
    "kept-small": partial(kept, ("cluster_size=512",)),
    "kept-far": partial(kept_far, ()), "kept-far-sub": partial(kept_far, ("extended_l2=on",)),
    **LEAKY,
}
