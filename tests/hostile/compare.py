# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Puts QEMU beside the engine, for one image that the engine opened.

Promises: a sentence for each of these that does not hold. What takes writes here, QEMU opens for
writing, before and after. What is read here, QEMU reads, and the same bytes. After writes and a
flush here an image without errors reads as before but for what was written, and `qemu-img check`
finds no more corruptions, errors or leaks than before, or than after QEMU made the same writes.
The engine may refuse what QEMU takes. One thing it takes that QEMU refuses: an image whose bitmaps'
tables cannot be loaded, which the first write here makes void.

QEMU works on copies beside links to the image's neighbours, so that it finds a backing file where
the engine does. Its processes have a limit of processor time.
"""

import re
import shlex
import subprocess
from collections import namedtuple
from contextlib import contextmanager

import nbd

from files import copy_sparse

SECTOR = 512
DIRTY, CORRUPT = 1, 2  # of incompatible features
BITMAPS = 1  # of autoclear features
PIECE = 4 << 20
WHOLE_BYTES_MAX = 16 << 20  # hostile.c reads no more than samples of a larger disk
QEMU_S = 20
WALL_S = 120


COUNTED = {"errors": r"(\d+) errors? (?:was|were) found",
           "internal errors": r"(\d+) internal errors? ha(?:s|ve) occurred",
           "leaks": r"(\d+) leaked clusters? (?:was|were) found"}

Check = namedtuple("Check", "counts sentences")


class Unserved(Exception):
    """QEMU does not open the image."""


def limited(*command):
    """The command under a limit of processor time, in the process that the shell was."""
    return ["sh", "-c", f"ulimit -t {QEMU_S}; exec \"$@\"", "sh", *map(str, command)]


@contextmanager
def served(image, *options):
    """A connection to QEMU's server of the image; Unserved where it does not open it."""
    said = image.with_name("qemu-nbd.said")
    command = limited("qemu-nbd", "--cache=unsafe", "-f", "qcow2", *options, image)
    command[2] = command[2].replace("exec", f"exec 2>{shlex.quote(str(said))}; exec", 1)
    link = nbd.NBD()
    # With them a read asks what is allocated first, which looks at counts too.
    link.set_request_structured_replies(False)
    try:
        link.connect_systemd_socket_activation(command)
    except nbd.Error:
        lines = said.read_text(errors="replace").splitlines()
        raise Unserved(lines[-1] if lines else "qemu-nbd ended") from None
    yield link
    try:
        link.shutdown()
    except nbd.Error:
        pass  # it broke before, and that was said


def checked(image):
    """What qemu-img check finds: counts and the sentence about each error and leak; no counts
    where it ends without any."""
    done = subprocess.run(limited("qemu-img", "check", "-f", "qcow2", image), check=False,
                          capture_output=True, text=True, errors="replace", timeout=WALL_S)
    if "Image end offset:" not in done.stdout:
        return Check({}, set())
    counts = {}
    for what, pattern in COUNTED.items():
        match = re.search(pattern, done.stdout)
        counts[what] = int(match[1]) if match else 0
    return Check(counts, {line for line in (done.stdout + done.stderr).splitlines()
                          if line.startswith(("ERROR", "Leaked"))})


def ranges(lines, *kinds):
    return [tuple(map(int, line[1:])) for line in lines if line[0] in kinds]


def sectors(lines, dump):
    """{number: bytes} of every sector that was read into a dump."""
    found, content, done = {}, dump.read_bytes(), 0
    for off, length in ranges(lines, "read"):
        for at in range(0, length, SECTOR):
            found[(off + at) // SECTOR] = content[done + at:done + at + SECTOR]
        done += length
    return found


def written_over(before, lines):
    """What the sectors read before must read as now; those of a write that failed are not known."""
    expected = dict(before)
    for off, length, byte in ranges(lines, "written"):
        for number in range(off // SECTOR, (off + length) // SECTOR):
            expected[number] = bytes([byte]) * SECTOR
    for off, length, _byte in ranges(lines, "unwritten"):
        for number in range(off // SECTOR, (off + length) // SECTOR):
            expected.pop(number, None)
    return expected


def differences(expected, found, is_sampled):
    """The first of the sectors that are not as expected, and how many there are. Of a disk that is
    only sampled others may have been read."""
    wrong = [number for number in expected if found.get(number) != expected[number]
             and not (is_sampled and number not in found)]
    if wrong:
        how = "not read" if wrong[0] not in found else "read otherwise"
        yield f"{len(wrong)} sectors, the first at {wrong[0] * SECTOR:#x}, are {how}"


def unlike(link, lines, dump):
    """The first of the ranges read here that QEMU does not read, or reads otherwise."""
    with dump.open("rb") as content:
        for off, length in ranges(lines, "read"):
            for at in range(off, off + length, PIECE):
                ours = content.read(min(PIECE, off + length - at))
                try:
                    theirs = link.pread(len(ours), at)
                except nbd.Error as error:
                    return [f"{len(ours)} bytes at {at:#x} are not read: {error.string}"]
                if theirs != ours:
                    first = next(i for i, byte in enumerate(ours) if byte != theirs[i])
                    return [f"reads otherwise at {at + first:#x}"]
    return []


def as_qemu_reads(image, kind, lines, dump):
    """What QEMU answers otherwise than a process did that left these lines and this dump."""
    size = lines[0][1]
    try:
        with served(image, *([] if kind == "writable" else ["-r"])) as link:
            if link.get_size() != int(size):
                return [f"the disk has {link.get_size()} bytes, here {size}"]
            return unlike(link, lines, dump)
    except Unserved as error:
        is_known = kind == "readable" or "itmap" in str(error)
        return [] if is_known else [f"does not open it for writing: {error}"]


def harm_by_qemu(path, copy, lines, before):
    """What QEMU does by the same writes on a copy: the new sentences of its check."""
    copy_sparse(path, copy)
    writes = [part for off, length, byte in ranges(lines, "written", "unwritten")
              for part in ("-c", f"write -P {byte} {off} {length}")]
    subprocess.run(limited("qemu-io", "-t", "unsafe", "-f", "qcow2", *writes, copy), check=False,
                   capture_output=True, timeout=WALL_S)
    after = checked(copy)
    return after.sentences - before.sentences if after.counts else {"ERROR: no check"}


def worse(path, copy, before, lines):
    """
    The counts that have grown. In an image whose counts are wrong already, or that counts clusters
    behind the end of its file, a write may do harm that no writer could know of; what QEMU does too
    is none of ours.
    """
    after = checked(copy)
    if not before.counts and has_bitmaps(path):
        return []
    if not before.counts or not after.counts:
        return ["it cannot be checked " + ("any more" if before.counts else "at all")]
    grown = [what for what in COUNTED if after.counts[what] > before.counts[what]
             and not (what == "leaks" and has_bitmaps(path))]
    theirs = harm_by_qemu(path, copy.with_suffix(".qemu"), lines, before) if grown else set()
    if is_damaged(before) and any(line.startswith("ERROR") for line in theirs):
        return []
    if any(line.startswith("Leaked") for line in theirs):
        grown = [what for what in grown if what != "leaks"]
    return [f"{what}: {before.counts[what]} before, {after.counts[what]} after" for what in grown]


def has_bitmaps(path):
    """Whether its bitmaps count as up to date. The first write ends that, by a bit in the header;
    from then on they are leaks, until a program that knows them drops or revives them."""
    head = head_of(path)
    return head[7] == 3 and head[95] & BITMAPS


def head_of(path):
    with path.open("rb") as image:
        return image.read(104).ljust(104, b"\0")


def is_damaged(check):
    return not check.counts or check.counts["errors"] + check.counts["internal errors"] > 0


def after_writes(path, copy, lines, before, check_before, again):
    """What is wrong with a copy that was written as lines say."""
    if not ranges(lines, "written", "unwritten"):
        return
    dump = copy.with_suffix(".after")
    yield from worse(path, copy, check_before, lines)
    then = again(copy, dump)
    if then.fault or not then.verdict.startswith("opened"):
        yield f"after the writes: {then.fault or then.verdict}"
        return
    is_flushed = ["flushed"] in lines
    if is_flushed and not is_damaged(check_before):
        yield from differences(written_over(before, lines), sectors(then.lines, dump),
                               int(lines[0][1]) > WHOLE_BYTES_MAX)
    kind = "readable" if head_of(copy)[79] & CORRUPT else "writable"
    yield from (f"QEMU afterwards: {found}"
                for found in as_qemu_reads(copy, kind, then.lines, dump))


def link_neighbours(path, work):
    """Other files of the image's folder, for the case that it names one."""
    for other in path.parent.resolve().iterdir():
        if other.name != path.name and not (work / other.name).exists():
            (work / other.name).symlink_to(other)


def findings(path, work, seen_lines, blind_lines, again):
    """
    The sentences. work has the copies seen and blind as two processes left them, and their dumps;
    the lines are what these said; again opens a copy once more and reads it into a dump.
    """
    head, given, kind = head_of(path), copy_sparse(path, work / "given"), seen_lines[0][0]
    if head[8:16] != bytes(8):
        link_neighbours(path, work)
    before = sectors(seen_lines, work / "seen.dump")
    check_before = checked(given) if kind == "writable" else None
    if head[7] == 3 and head[79] & DIRTY:
        # Each repairs in its own way: it is read as it was, and what QEMU says afterwards counts.
        dump, kind = work / "given.dump", "readable"
        lines = again(given, dump).lines
    else:
        lines, dump = seen_lines, work / "seen.dump"
    found = [f"QEMU: {what}" for what in as_qemu_reads(given, kind, lines, dump)]
    if found:
        return found  # what comes of it says nothing more
    for name, lines in (("seen", seen_lines), ("blind", blind_lines)):
        found += [f"{name}: {what}" for what in
                  after_writes(path, work / name, lines, before, check_before, again)]
    return found
