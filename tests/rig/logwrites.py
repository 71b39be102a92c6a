# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reads the log that QEMU's blklogwrites keeps of a disk, and plays it back up to any power cut.

The format is that of Linux' dm-log-writes: a superblock, then entries of one log sector each, with
their data behind them, all little-endian.

Promises: entries come in the order in which the device answered them; a disk is rebuilt from its
state before the run, so nothing of the run is needed but the log. Which states are worth a look,
and what must hold in them, is the test's to say.
"""

import struct
from dataclasses import dataclass

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
SUPER_BYTES = struct.calcsize("<QQQI")
# The log must exist when QEMU opens it, and grows by itself.
LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    off: int      # bytes
    data: bytes   # of a discard: zeros, as the raw file below reads afterwards
    is_flush: bool


def create(path):
    """An empty log for machine.Disk(log=path)."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as log:
        log.truncate(LOG_BYTES)
    return path


def entries(path):
    """All entries of the log; one that both flushes and writes counts as the two, in this order."""
    log = path.read_bytes()
    magic, _version, count, sector_bytes = struct.unpack_from("<QQQI", log)
    if magic == 0 and count == 0:
        return []  # nothing was ever written or flushed
    if magic != MAGIC:
        raise ValueError(f"{path} is no log of writes")
    found, at = [], sector_bytes
    for _ in range(count):
        sector, sectors, flags, data_bytes = struct.unpack_from("<QQQQ", log, at)
        at += sector_bytes
        if flags & FLUSH:
            found.append(Entry(0, b"", True))
        if flags & DISCARD:
            found.append(Entry(sector * sector_bytes, bytes(sectors * sector_bytes), False))
        elif sectors or data_bytes:
            size = data_bytes or sectors * sector_bytes
            found.append(Entry(sector * sector_bytes, log[at:at + size], False))
            at += -(-size // sector_bytes) * sector_bytes
        if flags & FUA:
            found.append(Entry(0, b"", True))
    return found


def flushes(found):
    return sum(entry.is_flush for entry in found)


def segments(found):
    """The writes between flushes: as many lists as there are flushes, and one for the rest."""
    parts = [[]]
    for entry in found:
        if entry.is_flush:
            parts.append([])
        else:
            parts[-1].append(entry)
    return parts


def apply(disk, writes):
    """Plays writes onto a bytearray."""
    for entry in writes:
        disk[entry.off:entry.off + len(entry.data)] = entry.data
    return disk


def torn(writes, unit_bytes, dice):
    """What a power cut may leave of writes: any of their units, each whole or not at all."""
    kept = []
    for entry in writes:
        for off in range(0, len(entry.data), unit_bytes):
            if dice.getrandbits(1):
                kept.append(Entry(entry.off + off, entry.data[off:off + unit_bytes], False))
    return kept
