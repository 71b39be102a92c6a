# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sound qcow2 images of random shape, put together field by field.

Promises: an Image's pieces are an image without errors and leaks, in which every field of every
structure has a name, a place and a size, so that generate.py can put other values there.
Versions 2 and 3, all cluster sizes and widths of counts, extended L2 entries, compressed clusters,
snapshots that share tables, a bitmap, header extensions, a backing file; structures lie in any
order, with holes between them.

The format is QEMU's docs/interop/qcow2.
"""

import struct
import zlib
from collections import Counter, namedtuple

COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
OFFSET = 0x00fffffffffffe00
DIRTY, CORRUPT, EXTENDED_L2 = 1 << 0, 1 << 1, 1 << 4
HEADER = [("version", 4, 4), ("backing_off", 8, 8), ("backing_bytes", 16, 4),
          ("cluster_bits", 20, 4), ("guest_bytes", 24, 8), ("crypt_method", 32, 4),
          ("l1_entries", 36, 4), ("l1_off", 40, 8), ("reftable_off", 48, 8),
          ("reftable_clusters", 56, 4), ("snapshots_count", 60, 4), ("snapshots_off", 64, 8)]
HEADER_V3 = [("incompatible", 72, 8), ("compatible", 80, 8), ("autoclear", 88, 8),
             ("refcount_order", 96, 4), ("header_bytes", 100, 4)]
SNAPSHOT = [("l1_off", 0, 8), ("l1_entries", 8, 4), ("id_bytes", 12, 2), ("name_bytes", 14, 2),
            ("state_bytes", 32, 4), ("extra_bytes", 36, 4), ("disk_bytes", 48, 8)]
BITMAP = [("table_off", 0, 8), ("table_entries", 8, 4), ("flags", 12, 4), ("type", 16, 1),
          ("granularity_bits", 17, 1), ("name_bytes", 18, 2), ("extra_bytes", 20, 4)]
EXT_BACKING_FORMAT, EXT_FEATURES, EXT_BITMAPS = 0xe2792aca, 0x6803f857, 0x23852875
CLUSTERS_MAX = 96  # of a guest disk
GUEST_BYTES_MAX = 8 << 20

# A place whose value may be changed; group is what generate.py chooses by.
Field = namedtuple("Field", "group name off size")


def be(value, size):
    return value.to_bytes(size, "big")


class Image:
    """One image. pieces are its bytes by host offset, fields the places of its values."""

    def __init__(self, random, backing=None):
        self.random = random
        self.version = random.choice([2, 3, 3, 3])
        self.bits = random.choice([9, 9, 10, 12, 12, 13, 14, 14, 16, 16, 16, 17, 18, 20, 21])
        self.is_extended = self.version == 3 and self.bits >= 14 and random.random() < 0.3
        self.order = 4 if self.version == 2 else random.choice([0, 1, 2, 3, 4, 4, 4, 5, 6])
        self.cluster = 1 << self.bits
        clusters = random.randint(1, max(2, min(CLUSTERS_MAX, GUEST_BYTES_MAX >> self.bits)))
        self.guest_bytes = clusters * self.cluster - random.choice([0, 0, 0, self.cluster // 2])
        self.clusters = clusters
        self.backing = backing
        self.fields, self.pieces, self.counts = [], [], Counter({0: 1})
        self.next_cluster = 1
        self.pack_off = self.pack_end = 0
        self.build()

    # ---- places ------------------------------------------------------------------------------

    def take(self, count=1):
        """Host offset of so many new clusters, counted once."""
        self.next_cluster += self.random.choice([0, 0, 0, 0, 1, 2])
        first = self.next_cluster
        self.next_cluster += count
        for cluster in range(first, first + count):
            self.counts[cluster] += 1
        return first << self.bits

    def take_bytes(self, length):
        return self.take(-(-length // self.cluster))

    def put(self, off, data):
        self.pieces.append((off, bytes(data)))

    def mark(self, group, name, off, size):
        self.fields.append(Field(group, name, off, size))

    # ---- guest data --------------------------------------------------------------------------

    def data(self):
        """A cluster's content: not zeros, told apart from others, quickly made."""
        word = self.random.randbytes(32)
        return (word * (self.cluster // 32))[:self.cluster]

    def packed_entry(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, -12)
        packed = packer.compress(self.data()) + packer.flush()
        if self.pack_off + len(packed) > self.pack_end or self.order < 4:  # narrow counts: alone
            count = -(-len(packed) // self.cluster)
            self.pack_off = self.take(count)
            self.pack_end = self.pack_off + count * self.cluster
            for cluster in range(self.pack_off >> self.bits, self.pack_end >> self.bits):
                self.counts[cluster] -= 1  # counted by what is in it
        off, self.pack_off = self.pack_off, self.pack_off + len(packed)
        self.put(off, packed)
        for at in (0, len(packed) // 2, len(packed) - 1):
            self.mark("packed", f"packed {off:#x}+{at}", off + at, 1)
        sectors = (off % 512 + len(packed) - 1) // 512
        return COMPRESSED | sectors << (62 - (self.bits - 8)) | off

    def host_clusters(self, entry):
        """Those that an L2 entry holds a reference of."""
        if entry & COMPRESSED:
            shift = 62 - (self.bits - 8)
            first = (entry & ((1 << shift) - 1)) >> 9
            sectors = (entry >> shift) & ((1 << (self.bits - 8)) - 1)
            return range(first << 9 >> self.bits, ((first + sectors) << 9 >> self.bits) + 1)
        return [(entry & OFFSET) >> self.bits] if entry & OFFSET else []

    def entry(self):
        """(L2 entry without the COPIED flag, its second word)"""
        kind = self.random.choices(["hole", "data", "packed", "zero", "kept"], [8, 8, 3, 2, 1])[0]
        if kind in ("zero", "kept") and (self.version == 2 or self.is_extended):
            kind = "data"
        if kind == "hole":
            zeros = self.random.getrandbits(32) if self.random.random() < 0.3 else 0
            return 0, zeros << 32 if self.is_extended else 0
        if kind == "packed":
            entry = self.packed_entry()
            for cluster in self.host_clusters(entry):
                self.counts[cluster] += 1
            return entry, 0
        if kind == "zero":
            return ZERO, 0
        off = self.take()
        self.put(off, self.data())
        there = self.random.choice([0xffffffff, self.random.getrandbits(32)])
        return off | (ZERO if kind == "kept" else 0), there | (~there & 0xff0f0ff0) << 32

    # ---- tables ------------------------------------------------------------------------------

    def build(self):
        words = 2 if self.is_extended else 1
        per_table = self.cluster // 8 // words
        self.l1_entries = -(-self.clusters // per_table) + self.random.choice([0, 0, 1, 5])
        self.l1 = [0] * self.l1_entries
        self.l2 = {}  # host offset of a table: [(entry, second word)]
        self.l1_off = self.take_bytes(self.l1_entries * 8)
        for first in range(0, self.clusters, per_table):
            if self.random.random() < 0.2:
                continue
            entries = [self.entry() for _ in range(min(per_table, self.clusters - first))]
            off = self.take()
            self.l1[first // per_table] = off
            self.l2[off] = entries
        self.snapshots_off = self.snapshots_count = 0
        if self.order >= 2 and self.random.random() < 0.35:
            self.build_snapshots(self.random.randint(1, 2))
        self.bitmaps = self.build_bitmap() if self.version == 3 and self.guest_bytes >= 512 and \
            self.random.random() < 0.3 else None
        for off, entries in self.l2.items():
            self.put_l2(off, entries, words)
        for index, off in enumerate(self.l1):
            copied = COPIED if off and self.counts[off >> self.bits] == 1 else 0
            self.put(self.l1_off + index * 8, be(off | copied, 8))
            self.mark("l1", f"l1[{index}]", self.l1_off + index * 8, 8)
        self.build_counts()
        self.build_header()

    def put_l2(self, off, entries, words):
        table = bytearray()
        for index, (entry, bits) in enumerate(entries):
            if entry & OFFSET and not entry & COMPRESSED and \
                    self.counts[(entry & OFFSET) >> self.bits] == 1:
                entry |= COPIED
            table += be(entry, 8) + (be(bits, 8) if words == 2 else b"")
            for word in range(words):
                at = off + (index * words + word) * 8
                self.mark("l2" if word == 0 else "bits", f"l2 {at:#x}", at, 8)
        self.put(off, table)

    def build_snapshots(self, count):
        """Each has some of the disk's L2 tables, and so a reference of all they name."""
        table = bytearray()
        where = []
        for number in range(count):
            l1 = [off if self.random.random() < 0.7 else 0 for off in self.l1]
            l1_off = self.take_bytes(len(l1) * 8)
            self.put(l1_off, b"".join(be(off, 8) for off in l1))
            for index, off in enumerate(l1):
                self.mark("snapshot", f"snapshot l1[{index}]", l1_off + index * 8, 8)
                if off:
                    self.counts[off >> self.bits] += 1
                for entry, _bits in self.l2.get(off, []):
                    for cluster in self.host_clusters(entry):
                        self.counts[cluster] += 1
            name = b"%d" % (number + 1)
            table += bytes(-len(table) % 8)
            where.append(len(table))
            table += struct.pack(">QIHHIIQIIQQ", l1_off, len(l1), len(name), len(name), 1, 2, 3,
                                 0, 16, 0, self.guest_bytes) + name + name
        self.snapshots_count, self.snapshots_off = count, self.take_bytes(len(table))
        self.put(self.snapshots_off, table)
        for at in where:
            for name, off, size in SNAPSHOT:
                self.mark("snapshot", f"snapshot {name}", self.snapshots_off + at + off, size)

    def build_bitmap(self):
        """The extension's data."""
        granularity_bits = self.random.choice([9, 12, 16])
        bits = ((self.guest_bytes - 1) >> granularity_bits) + 1
        entries = -(-((bits + 7) // 8) // self.cluster)
        table_off = self.take_bytes(entries * 8)
        for index in range(entries):
            value = self.random.choice([0, 1, None])
            if value is None:
                value = self.take()
                self.put(value, b"\x55" * 64)
            self.put(table_off + index * 8, be(value, 8))
            self.mark("bitmap", f"bitmap table[{index}]", table_off + index * 8, 8)
        directory = struct.pack(">QIIBBHI", table_off, entries, 2, 1, granularity_bits, 1, 0) + b"b"
        directory += bytes(-len(directory) % 8)
        off = self.take_bytes(len(directory))
        self.put(off, directory)
        for name, at, size in BITMAP:
            self.mark("bitmap", f"bitmap {name}", off + at, size)
        return struct.pack(">IIQQ", 1, 0, len(directory), off)

    def build_counts(self):
        """Blocks and a table for all clusters so far and themselves, behind them."""
        per_block_bits = self.bits + 3 - self.order
        blocks = table = 0
        while True:
            end = self.next_cluster + blocks + table
            wanted = ((end - 1) >> per_block_bits) + 1
            wanted_table = -(-wanted * 8 // self.cluster)
            if (wanted, wanted_table) == (blocks, table):
                break
            blocks, table = wanted, wanted_table
        first = self.next_cluster
        self.next_cluster += blocks + table
        for cluster in range(first, self.next_cluster):
            self.counts[cluster] += 1
        self.reftable_off, self.reftable_clusters = first << self.bits, table
        for index in range(blocks):
            off = (first + table + index) << self.bits
            self.put(self.reftable_off + index * 8, be(off, 8))
            self.mark("reftable", f"reftable[{index}]", self.reftable_off + index * 8, 8)
            self.put_block(off, index << per_block_bits, 1 << per_block_bits)
        self.host_bytes = self.next_cluster << self.bits

    def put_block(self, off, first, count):
        count = min(count, self.next_cluster - first)
        width = 1 << self.order
        if width >= 8:
            self.put(off, b"".join(be(self.counts[first + i], width // 8) for i in range(count)))
            for i in range(count):
                self.mark("refblock", f"count of {first + i}", off + i * width // 8, width // 8)
            return
        block = bytearray(-(-count * width // 8))
        for i in range(count):
            block[i * width // 8] |= self.counts[first + i] << i * width % 8
        self.put(off, block)
        for i in range(len(block)):
            self.mark("refblock", f"counts from {first + i * 8 // width}", off + i, 1)

    # ---- header ------------------------------------------------------------------------------

    def extensions(self):
        random, found = self.random, []
        if self.backing:
            found.append((EXT_BACKING_FORMAT, self.backing[1].encode()))
        if self.bitmaps:
            found.append((EXT_BITMAPS, self.bitmaps))
        if random.random() < 0.5:
            names = [struct.pack(">BB46s", kind, random.randrange(64), b"a feature")
                     for kind in range(random.randint(1, 3))]
            found.append((EXT_FEATURES, b"".join(names)))
        if random.random() < 0.3:
            found.append((random.getrandbits(32) | 1, random.randbytes(random.randrange(40))))
        random.shuffle(found)
        return found

    def build_header(self):
        random, is_v3 = self.random, self.version == 3
        length = random.choice([104, 112]) if is_v3 else 72
        incompatible = (EXTENDED_L2 if self.is_extended else 0) | \
            random.choices([0, DIRTY, CORRUPT], [18, 1, 1])[0]
        off, name = length, self.backing[0].encode() if self.backing else b""
        for kind, data in self.extensions():
            if off + 8 + len(data) + 16 + len(name) > self.cluster:
                break
            self.put(off, be(kind, 4) + be(len(data), 4) + data)
            self.mark("extension", f"extension at {off:#x}", off, 4)
            self.mark("extension", f"length of extension at {off:#x}", off + 4, 4)
            for at in range(0, len(data) // 8 * 8, 8):
                self.mark("extension", f"extension at {off:#x}+{at}", off + 8 + at, 8)
            off += 8 + -(-len(data) // 8) * 8
        name_off = random.choice([off + 8, self.cluster - len(name)]) if name else 0
        if name:
            self.put(name_off, name)
        self.put(0, b"QFI\xfb" + struct.pack(
            ">IQIIQIIQQIIQ", self.version, name_off, len(name), self.bits, self.guest_bytes, 0,
            self.l1_entries, self.l1_off, self.reftable_off, self.reftable_clusters,
            self.snapshots_count, self.snapshots_off))
        if is_v3:
            self.put(72, struct.pack(">QQQII", incompatible, random.choice([0, 0, 1]),
                                     1 if self.bitmaps else 0, self.order, length))
        for name, at, size in HEADER + (HEADER_V3 if is_v3 else []):
            self.mark("header", name, at, size)
