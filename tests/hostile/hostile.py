#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Gives every image of a folder to the engine and says, a line each and by name, how it went.

    hostile.py [--build BUILD] [--compare] FOLDER

Promises: the files are only read; a copy of each is opened, read and written, in a process of its
own, once after looking at all of it and once at places that nobody looked at. A process that ends
by a signal, or by what a sanitizer found, is a CRASH; more than a second of processor time in
opening, reading or writing is a HANG; a copy that is not byte for byte the image where it was
refused, or opened without taking writes, is WROTE WHEN REFUSED. Any of these makes the exit status
1.
Backing files are looked for below the image's own folder, by the engine's rule for names; a data
file is only read, so that an image that has one takes no writes.

--compare puts QEMU beside it (compare.py); what it finds is a FINDING, and counts as much.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import namedtuple
from pathlib import Path

import compare
from files import copy_sparse, digest, images_below

ROOT = Path(__file__).resolve().parent.parent.parent
WALL_S = 60  # for a machine that is busy; what counts is processor time
SANITIZERS = {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0",
              "UBSAN_OPTIONS": "abort_on_error=1:halt_on_error=1"}

# What one process said: the verdict, the lines before it, and the fault or "".
Run = namedtuple("Run", "verdict lines fault")


def fault_of(done):
    """Why a process did not end as it should, or ""."""
    if done.returncode == -signal.SIGPROF:
        return "HANG: more than a second of processor time"
    if done.returncode < 0:
        said = [line for line in done.stderr.splitlines() if "rror: " in line or "ERROR" in line]
        return f"CRASH {signal.Signals(-done.returncode).name}: {''.join(said[:1])}"
    if done.returncode != 0:
        return f"NOT TRIED: {done.stderr.strip()[-200:]}"
    return ""


def run(program, image, folder, *options):
    command = [program, "-f", folder, *options, image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              timeout=WALL_S, check=False, env=dict(os.environ, **SANITIZERS))
    except subprocess.TimeoutExpired:
        return Run("", [], f"HANG: no end within {WALL_S} s")
    lines = done.stdout.splitlines()
    said = [line[8:] for line in lines if line.startswith("verdict ")]
    fault = fault_of(done)
    if not fault and len(said) != 1:
        fault = "NOT TRIED: no verdict"
    return Run("".join(said), [line.split() for line in lines[:-1]], fault)


def may_write(verdict):
    """Whether an image that was answered so may have been changed: it was taken for writing, or
    its repair was tried."""
    return verdict.startswith("opened") and not (
        verdict.startswith("opened read-only") and "repair failed" not in verdict)


def seed_of(path):
    """Of the places that are written blindly: the same for a name in every run."""
    return str(zlib.crc32(path.name.encode()))


def judge(program, path, work, with_qemu):
    """(verdict, faults) of one image; work is an empty folder."""
    folder = path.parent.resolve()
    seen, blind = copy_sparse(path, work / "seen"), copy_sparse(path, work / "blind")
    dumps = ["-d", work / "seen.dump"], ["-d", work / "blind.dump"]
    runs = [run(program, seen, folder, *(dumps[0] if with_qemu else [])),
            run(program, blind, folder, "-s", seed_of(path), *(dumps[1] if with_qemu else []))]
    faults = list(dict.fromkeys(each.fault for each in runs if each.fault))
    untouched = [copy for each, copy in zip(runs, (seen, blind)) if not may_write(each.verdict)]
    if not faults and untouched:
        given = digest(path)
        if any(digest(copy) != given for copy in untouched):
            faults.append("WROTE WHEN REFUSED")
    if not faults and with_qemu and runs[0].verdict.startswith("opened"):
        faults = [f"FINDING: {found}" for found in
                  compare.findings(path, work, runs[0].lines, runs[1].lines,
                                   lambda copy, dump: run(program, copy, folder, "-r", "-d", dump))]
    return runs[0].verdict, faults


def has_fault(line):
    """Whether a line that judge_all said tells of a fault."""
    return any(fault in line for fault in ("CRASH ", "HANG: ", "NOT TRIED: ", "WROTE WHEN REFUSED",
                                           "FINDING: "))


def judge_all(program, folder, build, with_qemu, say):
    """Says a line for each image; (images, those that opened, those with faults)."""
    folder, counts = Path(folder), [0, 0, 0]
    for path in images_below(folder):
        with tempfile.TemporaryDirectory(prefix="hostile-", dir=build) as work:
            verdict, faults = judge(program, path, Path(work), with_qemu)
        say(f"{path.relative_to(folder)}: " + "; ".join([verdict] * bool(verdict) + faults))
        counts[0] += 1
        counts[1] += verdict.startswith("opened")
        counts[2] += bool(faults)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("folder")
    args = parser.parse_args()

    build = (ROOT / args.build).resolve()
    if not Path(args.folder).is_dir():
        sys.exit(f"hostile: {args.folder} is no folder")
    images, opened, wrong = judge_all(build / "host" / "hostile" / "hostile", args.folder, build,
                                      args.compare, lambda line: print(line, flush=True))
    print(f"{images} images, {opened} opened, {images - opened} not opened, "
          f"{wrong} with a crash, a hang or a wrong answer")
    sys.exit(1 if wrong or not images else 0)


if __name__ == "__main__":
    main()
