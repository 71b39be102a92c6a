# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The first inputs of each fuzzing target, made anew each time: {target: [bytes]}.

A recipe (recipe.h) needs few of them, because any bytes are one; the targets of raw bytes get a
header that opens, packed bytes that unpack and a file that says something.
"""

import struct
import zlib

KINDS = ("map poke count byte cut read write zero discard flush settle create apply delete check "
         "resize reopen list runs fault").split()


def item(kind, a=0, b=0, c=0):
    return struct.pack("<BBHI", KINDS.index(kind), a, b, c)


def mapped(*flavours):
    """The first digits, each of a flavour."""
    return [item("map", digit | flavour << 4, 0, 1 + digit)
            for digit, flavour in enumerate(flavours)]


def recipe(shape, *items):
    return bytes(shape) + b"".join(items)


# Cluster sizes, versions, widths of counts, and what an image may have; recipe.c has the bits.
SHAPES = [(size, order, features, windows, snapshots | 8 << 2, 0, 0, 2)
          for size, order, features, windows, snapshots in [
              (0, 0, 0, 0, 0), (0, 2, 0, 1, 2), (2, 1, 0, 2, 0), (3, 6, 8, 3, 1),
              (5, 0, 1, 1, 1), (6, 0, 9, 1, 0), (3, 0, 2, 1, 0), (5, 0, 19, 1, 0),
              (27, 0, 8, 1, 2), (24, 0, 0, 3, 3), (3, 0, 16, 0, 1), (2, 0, 32, 1, 0),
              (2, 0, 64, 1, 0), (3, 4, 96, 1, 0)]]

WORK = [
    [item("write", 0, 1, 6), item("flush"), item("read", 0, 0, 20), item("settle")],
    [item("create"), item("write", 1, 0, 30), item("apply", 0, 0), item("delete", 0, 1)],
    [item("zero", 0x10, 0, 1 << 31), item("discard", 1, 0, 1 << 31), item("check", 2)],
    [item("resize", 15), item("write", 12, 0, 9), item("reopen", 1), item("reopen")],
    [item("fault", 0, 0, 2), item("write", 2, 3, 1), item("flush"), item("flush"), item("create")],
]

DAMAGE = [
    [item("poke", 0x12, 0, 5)], [item("poke", 0x98, 1, 3)], [item("poke", 0x60, 0, 9)],
    [item("count", 0, 6, 1)], [item("poke", 0x74, 1, 8)], [item("cut", 0, 3)],
    [item("poke", 0x58, 2, 4660)], [item("count", 0, 30, 1), item("poke", 0x28, 0, 1)],
]


# The guest's data would land on a refcount block; more clusters than there are blocks for.
CASES = [
    recipe((0, 0, 0, 0, 8 << 2, 0, 0, 2), *mapped(0, 0), item("poke", 0xA8, 0, 2),
           item("write"), item("settle")),
    recipe((0, 2, 0, 3, 8 << 2, 0, 0, 2),
           *[item("write", digit, 0, 2 << 30) if digit < 16 else item("create")
             for _ in range(8) for digit in (0, 4, 8, 12, 16)], item("settle")),
]


def recipes(is_driven):
    found = list(CASES) if is_driven else []
    for i, shape in enumerate(SHAPES):
        start = mapped(*[(i + digit) % 8 for digit in range(6)])
        work = WORK[i % len(WORK)] if is_driven else [item("read", 0, 0, 190), item("runs")]
        found.append(recipe(shape, *start, *work))
        found.append(recipe(shape, *start, *DAMAGE[i % len(DAMAGE)], *work, item("check", 2),
                            item("list")))
    return found


def header(version=3, bits=9, extensions=b"", name=b"", incompatible=0):
    """An image of five clusters, with an empty L2 table and 16-bit counts."""
    size = 1 << bits
    length = 112 if version == 3 else 72
    name_off = length + len(extensions) + 8 if name else 0
    fixed = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, name_off, len(name), bits,
                        64 * size, 0, 4, 3 * size, size, 1, 0, 0)
    if version == 3:
        fixed += struct.pack(">QQQIIQ", incompatible, 0, 0, 4, 112, 0)
    first = (fixed + extensions + bytes(8) + name).ljust(size, b"\0")
    table = struct.pack(">Q", 2 * size).ljust(size, b"\0")
    counts = (b"\0\1" * 5).ljust(size, b"\0")
    l1_table = struct.pack(">Q", 4 * size | 1 << 63).ljust(size, b"\0")
    return first + table + counts + l1_table + bytes(size)


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")


def headers():
    names = extension(0x6803F857, b"\0\0dirty bit".ljust(48, b"\0"))
    images = [header(), header(2), header(bits=10, extensions=names),
              header(extensions=extension(0xE2792ACA, b"raw"), name=b"base"),
              header(extensions=extension(0xE2792ACA, b"qcow2"), name=b"base"),
              header(2, extensions=extension(0xE2792ACA, b"qcow2"), name=b"a/b"),
              header(extensions=extension(0x44415441, b"data"), incompatible=4),
              header(extensions=extension(0x23852875, bytes(24)), incompatible=1),
              header(extensions=names, incompatible=1 << 9)]
    return [bytes([i % 3, 1]) + image for i, image in enumerate(images)]


def packed():
    """Raw deflate of zlib's levels, and frames of raw, repeated and skipped blocks."""
    found = []
    for power, level in ((9, 9), (12, 1), (16, 6)):
        plain = bytes(i * i // 7 % 251 for i in range(1 << power))
        packer = zlib.compressobj(level, zlib.DEFLATED, -12)
        stream = packer.compress(plain) + packer.flush()
        found.append(bytes([(power - 9) * 2, 3]) + stream)
    frame = struct.pack("<IBH", 0xFD2FB528, 0x60, 4096 - 256)
    repeated = frame + struct.pack("<I", 4096 << 3 | 1 << 1 | 1)[:3] + b"x"
    raw = frame + struct.pack("<I", 4096 << 3 | 1)[:3] + bytes(range(256)) * 16
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    found += [bytes([7, 0]) + stream for stream in (repeated, raw, skipped + repeated)]
    return found


def texts():
    guid = "f548af4f-8d1c-4a1b-9d6a-112233445566"
    return [text.encode() for text in (
        f"timeout 3\ndefault debian\nimage debian # one\n  partition {guid}\n  readonly yes\n",
        f"image a\n base {guid} raw\n data {guid}\n snapshot before\n backing no\n temporary no\n",
        "image b\n file \\images\\a.qcow2\n headroom 2G\n loader \\EFI\\BOOT\\BOOTX64.EFI\r\n",
        "../a/b", "a\\..\\b", "json:{}")]


def seeds():
    return {"header": headers(), "tables": recipes(False), "driver": recipes(True),
            "decode": packed(), "config": texts()}
