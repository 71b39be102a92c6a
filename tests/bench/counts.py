# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What tests/bench/tracer.c wrote down, told apart into metadata and data of a qcow2 image.

Promises: what is metadata is read from the image as it is after the run: header, L1 tables, L2
tables, refcount table, refcount blocks, snapshot table; all other clusters are data. An operation
belongs where its first byte lies; its bytes are told apart exactly.
"""

import struct
from array import array

READ, WRITE, FLUSH = range(3)
HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
OFFSET_MASK = 0x00FFFFFFFFFFFE00
FIELDS = ("meta_reads", "meta_read_bytes", "meta_writes", "meta_write_bytes", "flushes",
          "data_reads", "data_read_bytes", "data_writes", "data_write_bytes")


def read_words(file, offset, count):
    """Big-endian 64-bit words; those behind the end of the file are 0."""
    file.seek(offset)
    words = array("Q", file.read(count * 8).ljust(count * 8, b"\0"))
    words.byteswap()
    return words


def clusters_of(offset, length, cluster_size):
    return range(offset // cluster_size, (offset + length - 1) // cluster_size + 1)


def snapshots(file, offset, count):
    """Yields (offset, bytes) of each entry of the table and (offset, entries) of its L1 table."""
    for _ in range(count):
        file.seek(offset)
        entry = file.read(40)
        l1_offset, l1_entries, id_size, name_size = struct.unpack_from(">QIHH", entry)
        extra_size, = struct.unpack_from(">I", entry, 36)
        size = 40 + extra_size + id_size + name_size
        yield (offset, size), (l1_offset, l1_entries)
        offset += (size + 7) & ~7


def metadata_clusters(path):
    """(cluster size, the numbers of all host clusters that hold metadata)"""
    with open(path, "rb") as file:
        (magic, _, _, _, cluster_bits, _, _, l1_entries, l1_offset, table_offset, table_clusters,
         snapshot_count, snapshots_offset) = HEADER.unpack(file.read(HEADER.size))
        assert magic == b"QFI\xfb"
        size = 1 << cluster_bits
        found = {0}
        found.update(clusters_of(table_offset, table_clusters * size, size))
        for entry in read_words(file, table_offset, table_clusters * size // 8):
            if entry & OFFSET_MASK:
                found.add((entry & OFFSET_MASK) // size)
        trees = [(l1_offset, l1_entries)]
        for place, tree in snapshots(file, snapshots_offset, snapshot_count):
            found.update(clusters_of(*place, size))
            trees.append(tree)
        for offset, entries in trees:
            if entries:
                found.update(clusters_of(offset, entries * 8, size))
            found.update((entry & OFFSET_MASK) // size
                         for entry in read_words(file, offset, entries) if entry & OFFSET_MASK)
    return size, found


def count(log_path, image_paths):
    """One dictionary of FIELDS for all images of a run together."""
    places = [metadata_clusters(path) for path in image_paths]
    total = dict.fromkeys(FIELDS, 0)
    with open(log_path, "rb") as file:
        log = file.read()
    for kind, offset, length in struct.iter_unpack("<QQQ", log):
        cluster_size, metadata = places[kind // 256]
        kind %= 256
        if kind == FLUSH:
            total["flushes"] += 1
            continue
        verb = "read" if kind == READ else "write"
        where = "meta" if offset // cluster_size in metadata else "data"
        total[f"{where}_{verb}s"] += 1
        end = offset + length
        while offset < end:
            part = min(end, (offset // cluster_size + 1) * cluster_size) - offset
            where = "meta" if offset // cluster_size in metadata else "data"
            total[f"{where}_{verb}_bytes"] += part
            offset += part
    return total
