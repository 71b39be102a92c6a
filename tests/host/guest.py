# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a guest sees of a damaged image, told from the image's bytes and by nobody's engine.

`right(content)` gives, for each cluster of the disk whose entry is right, what it says: zeros, the
bytes it names, or the packed bytes. Left out is what cannot be read, and what names a table: there
is no right content in these. Of an image with an external data file nothing is told.
"""

import struct

OFFSET_MASK = 0x00FFFFFFFFFFFE00
L1_RESERVED = 0x7F000000000001FF
COMPRESSED = 1 << 62
DATA_FILE, EXTENDED_L2 = 1 << 2, 1 << 4
SNAPSHOTS_MAX = 64
TABLE_BYTES_MAX = 1 << 20
SUBCLUSTERS = 0xFFFFFFFF


class Image:
    def __init__(self, content):
        self.content = content
        self.version, self.cluster_bits = self.be32(4), self.be32(20)
        self.cluster = 1 << self.cluster_bits
        self.is_extended = self.version == 3 and bool(self.be64(72) & EXTENDED_L2)
        self.entry_bytes = 16 if self.is_extended else 8
        self.trees = [(self.be64(40), self.be32(36)), *self.snapshots()]
        self.tables = self.find_tables()

    def be32(self, at):
        return struct.unpack_from(">I", self.content, at)[0]

    def be64(self, at):
        return struct.unpack_from(">Q", self.content, at)[0]

    def bytes_at(self, off, count):
        """The disk goes on with zeros behind the end of the file."""
        return self.content[off:off + count].ljust(count, b"\0")

    def entries(self, off, count, step=8):
        for at in range(off, min(off + count * step, len(self.content) - step + 1), step):
            yield at

    def snapshots(self):
        off = self.be64(64)
        for _ in range(min(self.be32(60), SNAPSHOTS_MAX)):
            if off + 40 > len(self.content):
                return
            yield self.be64(off), min(self.be32(off + 8), TABLE_BYTES_MAX // 8)
            strings = struct.unpack_from(">HH", self.content, off + 12)
            off += (40 + self.be32(off + 36) + sum(strings) + 7) & ~7

    def span(self, off, count):
        return range(off >> self.cluster_bits, (off + count - 1 >> self.cluster_bits) + 1)

    def find_tables(self):
        """Clusters of tables and of the header."""
        reftable, clusters = self.be64(48), self.be32(56)
        found = {0, *self.span(reftable, clusters * self.cluster)}
        if self.be32(60):
            found.update(self.span(self.be64(64), self.cluster))
        for at in self.entries(reftable, clusters * self.cluster // 8):
            found.add((self.be64(at) & OFFSET_MASK) >> self.cluster_bits)
        for off, count in self.trees:
            found.update(self.span(off, count * 8) if count else ())
            for at in self.entries(off, count):
                found.add((self.be64(at) & OFFSET_MASK) >> self.cluster_bits)
        return found

    def packed(self, entry):
        """(host offset, bytes) of a compressed entry, or None."""
        sectors_bits = self.cluster_bits - 8
        off_bits = 62 - sectors_bits
        off = entry & (1 << off_bits) - 1
        count = ((entry >> off_bits & (1 << sectors_bits) - 1) + 1) * 512 - (off & 511)
        if off >= len(self.content) or self.tables.intersection(self.span(off, count)):
            return None
        # The last sectors may be too many: what is behind the file's end is none of it.
        return "packed", off, self.bytes_at(off, count).rstrip(b"\0")

    def standard(self, entry, bitmap):
        off = entry & OFFSET_MASK
        if self.is_extended and (bitmap & bitmap >> 32 & SUBCLUSTERS or
                                 (off == 0 and bitmap & SUBCLUSTERS)):
            return None
        if not self.is_extended and entry & 1:
            return ("zeros",) if self.version == 3 else None
        if off == 0:
            return ("zeros", bitmap >> 32) if bitmap else None
        if off % self.cluster or off >= len(self.content):
            return None
        if off >> self.cluster_bits in self.tables:
            return None
        return "data", bitmap, self.bytes_at(off, self.cluster)

    def right(self):
        found = {}
        per_table = self.cluster // self.entry_bytes
        for index, at in enumerate(self.entries(*self.trees[0])):
            l2 = self.be64(at) & OFFSET_MASK
            if l2 == 0 or l2 % self.cluster or l2 >= len(self.content):
                continue
            for number, place in enumerate(self.entries(l2, per_table, self.entry_bytes)):
                entry = self.be64(place)
                bitmap = self.be64(place + 8) if self.is_extended else 0
                what = self.packed(entry) if entry & COMPRESSED else self.standard(entry, bitmap)
                if what:
                    found[index * per_table + number] = what
        return found


def right(content):
    image = Image(content)
    has_data_file = image.version == 3 and image.be64(72) & DATA_FILE
    return {} if has_data_file else image.right()
