# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Damaged images: small ones of many shapes, made by QEMU, and seeded damage to their metadata.

`SHAPES` lists the shapes, `make` makes one, `damaged(content, seed)` is its content with some bytes
of tables, counts or the header made wrong. The same seed gives the same damage.

Promises: damage keeps the image one that can be opened: what a header must not say is a matter of
refusals, not of checks. It is told as a line of text.
"""

import random
import struct
import subprocess
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
TIMEOUT_S = 60

OFFSET_MASK = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
EXTENDED_L2 = 1 << 4

SHARED, KEPT = "snapshot", "bitmap"


@dataclass(frozen=True)
class Shape:
    name: str
    cluster: int
    size: int = 0  # of the guest disk; 0: a few L2 tables
    options: str = ""
    commands: tuple = ()  # for qemu-io, or SHARED and KEPT

    def create_options(self, path):
        options = f"cluster_size={self.cluster}" + (f",{self.options}" if self.options else "")
        return options.replace(DATA_FILE, f"data_file={path.resolve()}.data")

    def guest(self):
        return self.size or min(24 * MIB, 3 * self.cluster * self.cluster // 8)


def writes(cluster, *clusters, more=""):
    return tuple(f"write {more} {at * cluster} {cluster}" for at in clusters)


def shape(name, cluster, options="", packed=False, snapshots=0, bitmap=False, size=0):
    """Data in three L2 tables where the disk reaches that far, zeros, and what is asked for."""
    far = cluster // 8
    count = 3 * far if cluster < 8 * KIB else 384
    places = [0, 1, 2, 5, 6, 9, far % count, (far + 1) % count, (2 * far + 3) % count]
    commands = list(writes(cluster, *dict.fromkeys(places)))
    commands.append(f"write -z {10 * cluster} {2 * cluster}")
    commands.append(f"write -z -u {5 * cluster} {cluster}")
    if packed:
        commands += writes(cluster, 12, 13, 14, 15, 16, 17, more="-c")
    for number in range(snapshots):
        commands += [SHARED, *writes(cluster, 1 + number, 13 + number)]
    if bitmap:
        commands += [KEPT, *writes(cluster, 3)]
    return Shape(name, cluster, size or count * cluster, options, tuple(commands))


V2 = "compat=0.10"
DATA_FILE = "data_file"  # beside the image
SHAPES = [
    shape("plain", 64 * KIB),
    shape("v2", 64 * KIB, V2, snapshots=1, packed=True),
    shape("packed", 64 * KIB, packed=True),
    shape("zstd", 64 * KIB, "compression_type=zstd", packed=True, snapshots=1),
    shape("small", 512, packed=True, snapshots=2),
    shape("small-v2", 512, V2, packed=True, snapshots=1),
    shape("page", 4 * KIB, packed=True, snapshots=1),
    shape("middle", 16 * KIB, snapshots=3),
    shape("bitmap", 64 * KIB, bitmap=True),
    shape("bitmap-small", 4 * KIB, bitmap=True, snapshots=1),
    shape("extended", 16 * KIB, "extended_l2=on", packed=True),
    shape("extended-shared", 64 * KIB, "extended_l2=on", snapshots=1),
    *[shape(f"counts-{bits}", 4 * KIB, f"refcount_bits={bits}", packed=bits > 4,
            snapshots=0 if bits == 1 else 1) for bits in (1, 2, 4, 8, 32, 64)],
    shape("counts-1-small", 512, "refcount_bits=1"),
    shape("counts-64-small", 512, "refcount_bits=64", packed=True, snapshots=1),
    shape("data-file", 64 * KIB, DATA_FILE),
    shape("data-file-small", 4 * KIB, DATA_FILE),
    shape("lazy", 64 * KIB, "lazy_refcounts=on", snapshots=1),
]


def run(*command):
    subprocess.run([str(part) for part in command], check=True, timeout=TIMEOUT_S,
                   capture_output=True)


def make(chosen, path):
    """The shape's image, as QEMU leaves it."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", chosen.create_options(path), path,
        chosen.guest())
    snapshots = 0
    for command in chosen.commands:
        if command == SHARED:
            snapshots += 1
            run("qemu-img", "snapshot", "-c", f"s{snapshots}", path)
        elif command == KEPT:
            run("qemu-img", "bitmap", "--add", "--enable", path, "kept")
        else:
            run("qemu-io", "-f", "qcow2", "-c", command, path)
    return path


# ---- where things lie ------------------------------------------------------------------------


class Layout:
    """Host offsets of every entry, read from an image that is still right."""

    def __init__(self, content):
        self.content = content
        self.cluster_bits = self.be32(20)
        self.cluster = 1 << self.cluster_bits
        self.version = self.be32(4)
        self.l1_off, self.l1_entries = self.be64(40), self.be32(36)
        self.reftable_off, self.reftable_clusters = self.be64(48), self.be32(56)
        self.snapshots_count, self.snapshots_off = self.be32(60), self.be64(64)
        self.order = self.be32(96) if self.version == 3 else 4
        self.incompatible = self.be64(72) if self.version == 3 else 0
        self.entry_bytes = 16 if self.incompatible & EXTENDED_L2 else 8
        self.roots = self.table(self.reftable_off, self.reftable_clusters * self.cluster // 8)
        self.blocks = [self.be64(at) & OFFSET_MASK for at in self.roots if self.be64(at)]
        self.l1 = self.table(self.l1_off, self.l1_entries)
        self.snapshot_entries, self.inactive_l1 = self.snapshots()
        self.l2 = self.below(self.l1)
        self.inactive_l2 = self.below(self.inactive_l1)

    def be32(self, at):
        return struct.unpack_from(">I", self.content, at)[0]

    def be64(self, at):
        return struct.unpack_from(">Q", self.content, at)[0]

    def table(self, off, entries, step=8):
        return [off + i * step for i in range(entries) if off + i * step + 8 <= len(self.content)]

    def snapshots(self):
        entries, l1, off = [], [], self.snapshots_off
        for _ in range(self.snapshots_count):
            entries.append(off)
            l1 += self.table(self.be64(off), self.be32(off + 8))
            strings = struct.unpack_from(">HH", self.content, off + 12)
            off += (40 + self.be32(off + 36) + sum(strings) + 7) & ~7
        return entries, l1

    def below(self, l1):
        """Entries of the L2 tables, those in use first."""
        used, free = [], []
        for at in l1:
            off = self.be64(at) & OFFSET_MASK
            if off:
                for entry in self.table(off, self.cluster // self.entry_bytes, self.entry_bytes):
                    (used if self.be64(entry) else free).append(entry)
        return used + free[:8]

    def clusters(self):
        return (len(self.content) + self.cluster - 1) >> self.cluster_bits


# ---- damage ----------------------------------------------------------------------------------


def put64(content, at, value):
    struct.pack_into(">Q", content, at, value & (1 << 64) - 1)


def get64(content, at):
    return struct.unpack_from(">Q", content, at)[0]


def get_count(content, layout, cluster):
    """The stored count's place: (bit offset in the file) or None."""
    per_block = layout.cluster * 8 >> layout.order
    index, inner = divmod(cluster, per_block)
    if index >= len(layout.blocks):
        return None
    return layout.blocks[index], inner


def set_count(content, layout, cluster, value):
    place = get_count(content, layout, cluster)
    if place is None:
        return
    block, inner = place
    bits = 1 << layout.order
    value &= (1 << bits) - 1
    if bits < 8:
        at, shift = block + (inner * bits >> 3), inner * bits & 7
        content[at] = content[at] & ~(((1 << bits) - 1) << shift) | value << shift
    else:
        at = block + inner * bits // 8
        content[at:at + bits // 8] = value.to_bytes(bits // 8, "big")


def wrong_entry(dice, layout, value):
    """A table entry made wrong, and how."""
    cluster = layout.cluster
    ways = {
        "unaligned": lambda: value ^ (512 if cluster > 512 else 0),
        "behind the end": lambda: value & ~OFFSET_MASK | (layout.clusters() + dice.randint(0, 9))
        << layout.cluster_bits,
        "far away": lambda: value & ~OFFSET_MASK | dice.getrandbits(47) // cluster * cluster,
        "other cluster": lambda: value & ~OFFSET_MASK | dice.randrange(layout.clusters())
        << layout.cluster_bits,
        "copied flag": lambda: value ^ COPIED,
        "reserved bit": lambda: value ^ 1 << dice.choice([1, 3, 8, 56, 59, 61]),
        "bit 0": lambda: value ^ 1,
        "compressed bit": lambda: value ^ COMPRESSED,
        "any bit": lambda: value ^ 1 << dice.randrange(64),
        "zero": lambda: 0,
        "noise": lambda: dice.getrandbits(64),
    }
    way = dice.choice(sorted(ways))
    return ways[way](), way


def hurt_entries(content, layout, dice, name, places):
    places = [at for at in places[:64] if at + 8 <= len(content)]
    if not places:
        return f"no {name}"
    at = dice.choice(places)
    value, way = wrong_entry(dice, layout, get64(content, at))
    put64(content, at, value)
    return f"{name} at {at:#x}: {way}"


def hurt_bitmap_word(content, layout, dice):
    places = [at + 8 for at in layout.l2[:32] if at + 16 <= len(content)]
    if layout.entry_bytes == 8 or not places:
        return "no subclusters"
    at = dice.choice(places)
    put64(content, at, get64(content, at) ^ 1 << dice.randrange(64))
    return f"subclusters at {at:#x}"


def hurt_count(content, layout, dice):
    cluster = dice.randrange(layout.clusters() + 2)
    value = dice.choice([0, 0, 1, 1, 2, 3, dice.getrandbits(64)])
    set_count(content, layout, cluster, value)
    return f"count of cluster {cluster}: {value}"


def hurt_counts(content, layout, dice):
    block = dice.choice(layout.blocks)
    off = block + dice.randrange(0, min(256, layout.cluster) // 8) * 8
    put64(content, off, dice.choice([0, dice.getrandbits(64)]))
    return f"counts at {off:#x}"


def hurt_root(content, layout, dice):
    used = [at for at in layout.roots if get64(content, at)]
    return hurt_entries(content, layout, dice, "root", used + layout.roots[len(used):len(used) + 2])


def hurt_snapshot(content, layout, dice):
    if not layout.snapshot_entries:
        return "no snapshots"
    at = dice.choice(layout.snapshot_entries)
    field, width = dice.choice([(0, 8), (8, 4), (36, 4), (40, 8), (48, 8)])
    value = dice.choice([0, 8, 15, 1024, 1025, dice.getrandbits(8 * width), 512,
                         layout.cluster * dice.randrange(layout.clusters())])
    value &= (1 << 8 * width) - 1
    content[at + field:at + field + width] = value.to_bytes(width, "big")
    return f"snapshot at {at:#x}, field {field}: {value:#x}"


def hurt_length(content, layout, dice):
    """Cut, not in front of what the header names, or with something behind."""
    if dice.random() < 0.5:
        content += bytes(dice.randrange(1, 3 * layout.cluster))
        return f"longer: {len(content)}"
    least = max(layout.l1_off + 8 * layout.l1_entries, layout.snapshots_off + layout.cluster,
                layout.reftable_off + layout.reftable_clusters * layout.cluster)
    if least < len(content):
        del content[dice.randrange(least, len(content)):]
    return f"cut: {len(content)}"


def hurt_marks(content, layout, dice):
    if layout.version == 2:
        return "no marks"
    content[79] ^= dice.choice([1, 2])
    return "marks"


def hurt_noise(content, layout, dice):
    places = layout.l1 + layout.l2[:64] + layout.inactive_l2[:64] + layout.roots[:8]
    places += [at + dice.randrange(layout.cluster & ~7) for at in layout.blocks]
    at = dice.choice(places) + dice.randrange(8)
    if at < len(content):
        content[at] = dice.getrandbits(8)
    return f"byte at {at:#x}"


KINDS = [
    (6, lambda c, l, d: hurt_entries(c, l, d, "L2", l.l2)),
    (2, lambda c, l, d: hurt_entries(c, l, d, "snapshot's L2", l.inactive_l2)),
    (3, lambda c, l, d: hurt_entries(c, l, d, "L1", l.l1)),
    (1, lambda c, l, d: hurt_entries(c, l, d, "snapshot's L1", l.inactive_l1)),
    (5, hurt_count), (2, hurt_counts), (2, hurt_root), (2, hurt_snapshot), (1, hurt_length),
    (1, hurt_marks), (2, hurt_noise), (2, hurt_bitmap_word),
]


def damaged(content, seed):
    """(damaged bytes, what was done); content itself stays as it is."""
    dice = random.Random(seed)
    layout, hurt = Layout(content), bytearray(content)
    kinds = [kind for weight, kind in KINDS for _ in range(weight)]
    told = [dice.choice(kinds)(hurt, layout, dice) for _ in range(dice.choice([1, 1, 2, 3]))]
    return bytes(hurt), "; ".join(told)
