# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The workloads, as lists of requests: ("W" or "R", guest offset, bytes) or ("F",) for a flush.

Promises: one seed gives one list, on every machine. The i-th random offset is
splitmix64((seed << 32) + i), taken modulo the units that fit into the span.
"""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MASK = (1 << 64) - 1
REQUESTS = 10_000


def splitmix64(state):
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK
    return state ^ state >> 31


def scattered(kind, seed, span, size, count=REQUESTS, flush_every=0):
    """Requests of one size at random multiples of it; a flush after every so many of them."""
    trace = []
    for i in range(count):
        trace.append((kind, splitmix64((seed << 32) + i) % (span // size) * size, size))
        if flush_every and (i + 1) % flush_every == 0:
            trace.append(("F",))
    return trace


def in_order(kind, total, size):
    return [(kind, offset, size) for offset in range(0, total, size)]


def flushed(trace):
    return trace + [("F",)]


def lines(trace):
    """As tests/bench/player.c reads them."""
    return "".join(" ".join(map(str, request)) + "\n" for request in trace)


def qemu_io(trace):
    """The same as commands of qemu-io, with the same bytes written."""
    commands = []
    for number, request in enumerate(trace):
        if request[0] == "W":
            commands.append(f"write -q -P {1 + number % 254} {request[1]} {request[2]}\n")
        elif request[0] == "R":
            commands.append(f"read -q {request[1]} {request[2]}\n")
        else:
            commands.append("flush\n")
    return "".join(commands)


def user_bytes(trace):
    return sum(request[2] for request in trace if request[0] == "W")
