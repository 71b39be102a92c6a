# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Shapes in which QEMU's order of writes leaves a hole, on this engine and on QEMU itself.

Both serve the same image to the same client; what they ask of its files is recorded and replayed:
of each file everything up to its flush, of what came after it every subset (of many calls a
sample), as a power cut may leave it. A discarded block reads as anything. Every state must pass
qemu-img check with leaks at most, after the repair where the image is marked dirty, and every
sector must hold what it held at the last flush that was answered, or something written to that
very sector since.

Prints a table. Ends with 1 where this engine fails a state, or where what a clean end left is not
what was written; a hole that the installed QEMU does not show is said and is no failure.
"""

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbd

from serve import (DATA_FILE, FLUSH, GROW, READ, TRIM, WRITE, ZERO, client, export,
                   export_by_qemu, recorded)

SECTOR, KIB, MIB = 512, 1024, 1024 * 1024
GUEST_BYTES = 2 * MIB
CLUSTER = 64 * KIB
POISON, STALE = 0xee, 0x5a  # what discarded and what forgotten blocks hold
SUBSETS_MAX = 64  # of one epoch
TOOL_SECONDS_MAX = 60
SEED = 1


@dataclass(frozen=True)
class Shape:
    """What QEMU does wrong, how the image comes about, and what the client then asks for.

    A step is (what, guest_off, length, byte); its offset and length are whole clusters unless it is
    a write.
    """

    name: str
    what: str
    options: str
    setup: tuple  # of qemu-io, which closes the image afterwards
    steps: tuple


FLUSHED = ("flush", 0, 0, 0)

SHAPES = [
    Shape("H1", "reuse before the unmapping is durable", "",
          (f"write -P 17 0 {CLUSTER}", f"write -P 18 {CLUSTER} {CLUSTER}"),
          (("discard", 0, CLUSTER, 0), ("write", MIB, CLUSTER, 33), FLUSHED,
           ("zero", CLUSTER, CLUSTER, 0), ("write", MIB + CLUSTER, CLUSTER, 34), FLUSHED)),
    Shape("H1c", "reuse of a compressed cluster's space", "",
          (f"write -c -P 17 0 {CLUSTER}",),
          (("write", 0, 4 * KIB, 33), ("write", MIB, CLUSTER, 34), FLUSHED,
           ("write", 8 * KIB, 4 * KIB, 35), ("write", MIB + CLUSTER, CLUSTER, 36), FLUSHED)),
    Shape("H2", "host discard before the unmapping is durable", "",
          (f"write -P 17 0 {CLUSTER}", f"write -P 18 {CLUSTER} {CLUSTER}"),
          (("discard", 0, CLUSTER, 0), FLUSHED, ("discard", CLUSTER, CLUSTER, 0), FLUSHED)),
    Shape("H3", "an external data file's bytes", f",data_file={DATA_FILE}", (),
          (("write", 0, 4 * KIB, 49), FLUSHED, ("write", CLUSTER + 8 * KIB, 4 * KIB, 50),
           ("write", MIB, 4 * KIB, 51), FLUSHED)),
    Shape("H4", "part of a new cluster, lazy counts", ",lazy_refcounts=on",
          (f"write -P {STALE} 0 {8 * CLUSTER}", f"discard 0 {8 * CLUSTER}"),
          (("write", 0, 4 * KIB, 49), FLUSHED, ("write", CLUSTER + 8 * KIB, 4 * KIB, 50),
           ("write", MIB, 4 * KIB, 51), FLUSHED)),
]


# ---- one run, recorded -----------------------------------------------------------------------


@dataclass
class Run:
    base: list  # the image's files before
    calls: list  # what was asked of them, reads and growth left out
    marks: list  # for each step, how many calls there were when it was answered
    end: list  # the files after a clean end


def steps_of(calls):
    return [call for call in calls if call.kind not in (READ, GROW)]


def ask(link, step):
    what, guest_off, length, byte = step
    if what == "write":
        link.pwrite(bytes([byte]) * length, guest_off)
    elif what == "zero":
        link.zero(length, guest_off)
    elif what == "discard":
        link.trim(length, guest_off)
    else:
        link.flush()


def files_of(folder, name):
    paths = (folder / name, folder / DATA_FILE)
    return [path.read_bytes() for path in paths if path.exists()]


def put_files(folder, name, contents):
    for path, content in zip((folder / name, folder / DATA_FILE), contents):
        path.write_bytes(content)


def make(shape, image):
    client("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1" + shape.options, image,
           GUEST_BYTES)
    if DATA_FILE in shape.options:  # what nothing names there yet is somebody's old bytes
        (image.parent / DATA_FILE).write_bytes(bytes([STALE]) * GUEST_BYTES)
    if not shape.setup:
        return
    # Discards free clusters, and leave in the file what they held.
    client("qemu-io", *itertools.chain(*(("-c", command) for command in shape.setup)),
           "--image-opts", "driver=qcow2,discard=unmap,pass-discard-request=off,"
           f"file.driver=file,file.filename={image}")


def run_shape(shape, serve, folder):
    image, log, marks = folder / "image.qcow2", folder / "log", []
    with contextlib.chdir(folder):  # where QEMU looks a data file up
        make(shape, image)
        base = files_of(folder, image.name)
        with serve(image, log) as path:
            link = nbd.NBD()
            link.connect_uri(f"nbd+unix:///?socket={path}")
            for step in shape.steps:
                ask(link, step)
                marks.append(len(steps_of(recorded(log, content=True))))
            link.shutdown()
    return Run(base, steps_of(recorded(log, content=True)), marks, files_of(folder, image.name))


# ---- what a power cut may leave --------------------------------------------------------------


def subsets(count, dice):
    """Of count calls: every subset where they are few; else none, all, prefixes, single ones,
    all but one, and some more by chance."""
    if 1 << count <= SUBSETS_MAX:
        return {subset for size in range(count + 1)
                for subset in itertools.combinations(range(count), size)}
    every = tuple(range(count))
    found = {()} | {every[:n + 1] for n in every} | {(n,) for n in every}
    found |= {every[:n] + every[n + 1:] for n in every}
    while len(found) < SUBSETS_MAX:
        found.add(tuple(n for n in every if dice.random() < 0.5))
    return found


def apply(content, call):
    end = call.offset + call.length
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if call.kind == WRITE:
        content[call.offset:end] = call.content
    elif call.kind in (ZERO, TRIM):
        content[call.offset:end] = bytes([POISON if call.kind == TRIM else 0]) * call.length


def cuts(run):
    """(files, calls begun) for every state: a flush makes durable what its own file was asked."""
    dice, contents = random.Random(SEED), [bytearray(content) for content in run.base]
    pending, begun = [], 0
    for end in range(len(run.calls) + 1):
        call = run.calls[end] if end < len(run.calls) else None
        if call and call.kind != FLUSH:
            pending.append((end, call))
            continue
        for subset in sorted(subsets(len(pending), dice)):
            states = [bytearray(content) for content in contents]
            for number in subset:
                apply(states[pending[number][1].file], pending[number][1])
            yield states, max(begun, pending[subset[-1]][0] + 1 if subset else 0)
        for _, done in pending:
            if call and done.file == call.file:
                apply(contents[done.file], done)
        pending = [entry for entry in pending if call and entry[1].file != call.file]
        begun = end + 1


# ---- what it must hold -----------------------------------------------------------------------


def base_values(image, folder):
    """The byte of every sector of a guest disk whose sectors each repeat one byte."""
    raw = read_guest(image, folder)
    return [raw[at] for at in range(0, GUEST_BYTES, SECTOR)]


def allowed_values(shape, run, values, begun):
    """For every sector the bytes it may repeat, where so many calls were begun at the cut."""
    allowed = [{value} for value in values]
    current = list(values)
    for step, mark in zip(shape.steps, run.marks):
        what, guest_off, length, byte = step
        for sector in range(guest_off // SECTOR, (guest_off + length) // SECTOR):
            current[sector] = byte
            allowed[sector].add(byte)
        if mark > begun:
            break
        if what == "flush":
            allowed = [{value} for value in current]
    return allowed


def read_guest(image, folder):
    raw = folder / "guest.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True,
                   timeout=TOOL_SECONDS_MAX, capture_output=True)
    return raw.read_bytes()


def check_status(image, *options):
    return subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", *options, image], check=False,
                          timeout=TOOL_SECONDS_MAX, capture_output=True).returncode


def verdict(image, allowed, folder):
    """What is wrong with a state: "" for nothing."""
    is_dirty = image.read_bytes()[79] & 1
    if is_dirty:
        check_status(image, "-r", "all")
    if check_status(image) not in (0, 3):
        return "qemu-img check finds errors"
    try:
        content = read_guest(image, folder)
    except subprocess.CalledProcessError:
        return "it cannot be read"
    for number, values in enumerate(allowed):
        sector = content[number * SECTOR:(number + 1) * SECTOR]
        if not any(sector == bytes([value]) * SECTOR for value in values):
            return f"guest {number * SECTOR:#x} holds {sector[0]:#x}"
    return ""


def judge(shape, run, folder):
    """(states tried, {what is wrong: how often})"""
    image, tried, wrong = folder / "state.qcow2", 0, {}
    with contextlib.chdir(folder):
        put_files(folder, image.name, run.base)
        values = base_values(image, folder)
        for states, begun in cuts(run):
            put_files(folder, image.name, states)
            said = verdict(image, allowed_values(shape, run, values, begun), folder)
            tried += 1
            if said:
                wrong[said] = wrong.get(said, 0) + 1
        put_files(folder, image.name, run.end)
        end = verdict(image, allowed_values(shape, run, values, len(run.calls)), folder)
        if end or check_status(image) != 0:
            wrong["after a clean end: " + (end or "leaks")] = 1
    return tried, wrong


def both(build, shape):
    """The outcome on this engine, then on QEMU."""
    found = []
    for serve in (lambda image, log: export(build, image.parent, image, record=log, content=True),
                  lambda image, log: export_by_qemu(build, image.parent, image, log)):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            found.append(judge(shape, run_shape(shape, serve, folder), folder))
    return found


def row(shape, ours, qemus):
    cells = [f"{tried:5} {sum(wrong.values()):9}" for tried, wrong in (ours, qemus)]
    line = f"{shape.name:4}{shape.what:46} {cells[0]}   {cells[1]}"
    return line if qemus[1] else line + "  (this QEMU does not show it)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path("build"))
    build, failed = parser.parse_args().build.resolve(), False
    print(f"{'':50}  {'ours':>15}   {'QEMU':>15}")
    print(f"{'shape':50}  {'cuts':>5} {'exposures':>9}   {'cuts':>5} {'exposures':>9}")
    for shape in SHAPES:
        ours, qemus = both(build, shape)
        print(row(shape, ours, qemus), flush=True)
        for who, (_tried, wrong) in (("ours", ours), ("QEMU", qemus)):
            for said, count in sorted(wrong.items()):
                print(f"      {who}: {count} x {said}")
        failed |= bool(ours[1])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
