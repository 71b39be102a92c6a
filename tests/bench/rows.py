# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is measured, and what it is measured against.

Promises: a row's requests depend on the seed alone; a goal reads one figure out of a row's counts,
less is better, and it is the same figure for this engine and for QEMU. "must" is what a change may
not lose, "aim" what is near the least that any crash-safe implementation can do.
"""

import math
from collections import namedtuple

from prepare import GUEST, PACKED_BYTES, PACKED_CLUSTERS
from traces import GIB, KIB, MIB, flushed, in_order, scattered

FLUSH_EVERY = 16
SEEDS_FOR_A_MEAN = 10
NO_MUST = math.inf  # a figure that depends on how busy the machine is has only an aim

# image: a name of prepare.MAKERS; mode: w or r; trace: seed -> requests; runs: seeds averaged over.
Row = namedtuple("Row", "name what image mode trace runs", defaults=(1,))
# measure: a dictionary of counts -> a number; unit: "" or "B" for bytes.
Goal = namedtuple("Goal", "row what measure must aim unit", defaults=("",))


def allocate(seed):
    return flushed(scattered("W", seed, GUEST, 4 * KIB))


def allocate_and_flush(seed):
    return flushed(scattered("W", seed, GUEST, 4 * KIB, flush_every=FLUSH_EVERY))


def allocate_clusters(seed):
    return flushed(scattered("W", seed, GUEST, 64 * KIB))


def overwrite(seed):
    return flushed(scattered("W", seed, GIB, 4 * KIB))


def overwrite_and_flush(seed):
    return flushed(scattered("W", seed, GIB, 4 * KIB, flush_every=FLUSH_EVERY))


def read_scattered(span):
    return lambda seed: scattered("R", seed, span, 4 * KIB)


def read_in_order(total, size):
    return lambda seed: in_order("R", total, size)


def write_in_order(total, size):
    return lambda seed: flushed(in_order("W", total, size))


ROWS = (
    Row("open", "open and close", "mapped", "w", lambda seed: []),
    Row("W1", "256 MiB in order, 64 KiB each", "fresh", "w", write_in_order(256 * MIB, 64 * KIB)),
    Row("W2", "10,000 random 4 KiB into an empty 64 GiB", "fresh", "w", allocate),
    Row("W3", "W2, a flush every 16", "fresh", "w", allocate_and_flush),
    Row("W4", "10,000 random 64 KiB into an empty 64 GiB", "fresh", "w", allocate_clusters),
    Row("W5", "10,000 random 4 KiB in 1 GiB, after a snapshot", "snapshot", "w", overwrite),
    Row("W5-16", "W5, a flush every 16", "snapshot", "w", overwrite_and_flush),
    Row("W6", "64 MiB in order, 4 KiB each", "fresh", "w", write_in_order(64 * MIB, 4 * KIB)),
    Row("W7", "10,000 random 4 KiB in place, a flush every 16", "mapped", "w",
        overwrite_and_flush),
    Row("R1", "10,000 random 4 KiB reads of 1 GiB", "mapped", "r", read_scattered(GIB)),
    Row("R2", "10,000 random 4 KiB reads of 64 GiB, one run", "contiguous", "r",
        read_scattered(GUEST), SEEDS_FOR_A_MEAN),
    Row("R2-shuffled", "10,000 random 4 KiB reads of 64 GiB, shuffled", "shuffled", "r",
        read_scattered(GUEST), SEEDS_FOR_A_MEAN),
    Row("R3", "1 GiB in order, 1 MiB each", "mapped", "r", read_in_order(GIB, MIB)),
    Row("R4", "128 MiB compressed, in order, 64 KiB each", "packed", "r",
        read_in_order(PACKED_BYTES, 64 * KIB)),
    Row("R4-small", "128 MiB compressed, in order, 4 KiB each", "packed", "r",
        read_in_order(PACKED_BYTES, 4 * KIB)),
    Row("B", "chain of 3: 10,000 random 4 KiB reads of 1 GiB", "chain", "r", read_scattered(GIB)),
    Row("B-order", "chain of 3: 1 GiB in order, 1 MiB each", "chain", "r",
        read_in_order(GIB, MIB)),
    Row("B-write", "chain of 3: 10,000 random 4 KiB writes", "chain", "w", overwrite),
    Row("B-write-16", "chain of 3: the same, a flush every 16", "chain", "w",
        overwrite_and_flush),
)


def field(name):
    return lambda counts: counts[name]


def allocation_goals(row):
    return (Goal(row, "metadata writes", field("meta_writes"), 64, 12),
            Goal(row, "metadata bytes", field("meta_write_bytes"), 12 * MIB, 9 * MIB, "B"),
            Goal(row, "flushes", field("flushes"), 4, 2),
            Goal(row, "metadata reads", field("meta_reads"), 72, 8))


def sequence_goals(row):
    return (Goal(row, "metadata writes", field("meta_writes"), 5, 3),
            Goal(row, "metadata bytes", field("meta_write_bytes"), 128 * KIB, 75 * KIB, "B"),
            Goal(row, "flushes", field("flushes"), 3, 2))


def data_share(counts):
    return counts["data_write_bytes"] / counts["user_bytes"]


def unpacked_share(counts):
    return counts["unpacked"] / PACKED_CLUSTERS


GOALS = (
    Goal("open", "reads before the first request", field("meta_reads"), 8, 4),
    *sequence_goals("W1"),
    *allocation_goals("W2"),
    Goal("W3", "flushes", field("flushes"), 1260, 700),
    Goal("W3", "metadata bytes", field("meta_write_bytes"), 28 * MIB, 14 * MIB, "B"),
    Goal("W3", "metadata reads", field("meta_reads"), 4300, 2600),
    *allocation_goals("W4"),
    Goal("W5", "flushes", field("flushes"), 8, 3),
    Goal("W5", "metadata writes", field("meta_writes"), 32, 4),
    Goal("W5", "metadata bytes", field("meta_write_bytes"), MIB, 192 * KIB, "B"),
    Goal("W5-16", "flushes", field("flushes"), 1260, 1251),
    Goal("W5-16", "metadata bytes", field("meta_write_bytes"), 32 * MIB, 18 * MIB, "B"),
    Goal("W5-16", "metadata writes", field("meta_writes"), 8000, 7500),
    *sequence_goals("W6"),
    Goal("W6", "data bytes per byte of the user's", data_share, 1.10, 1.02),
    Goal("W7", "metadata writes", field("meta_writes"), 0, 0),
    Goal("W7", "flushes", field("flushes"), 626, 625),
    Goal("R2", "metadata reads", field("meta_reads"), 8700, 140),
    Goal("R2-shuffled", "metadata reads", field("meta_reads"), 8700, 7500),
    Goal("R3", "data operations", field("data_reads"), 1024, 1024),
    Goal("R4", "data operations", field("data_reads"), 160, 80),
    Goal("R4-small", "times a cluster is unpacked", unpacked_share, 1, 1),
)


def verdict(goal, value):
    if value <= goal.aim:
        return "aim met"
    if goal.must == NO_MUST:
        return "aim missed"
    return "must met" if value <= goal.must else "MISSED"
