# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`make bench`: this engine beside the installed QEMU, on the same requests, and the driver in
firmware beside the disk it lies on, in one run.

    bench.py --build DIR [--seed N] [--only ROW, firmware, or growth] [--json]

Promises: what is printed are counts of operations, bytes, flushes and instructions, so that a busy
machine changes nothing; the one row of times (firmware.py) says shares alone. Each figure stands
beside its goals; a goal that is missed is said and fails nothing, while an image that QEMU finds
fault with, or a system that does not boot, does. The table and a picture of it stay in DIR/bench.
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path

import firmware
import growth
import instructions
import players
import report
from rows import GOALS, ROWS


HOST_GOALS = (*GOALS, instructions.GOAL)
ALL_GOALS = (*HOST_GOALS, *firmware.GOALS)


def peer_of(name):
    return "disk" if name in firmware.ROWS else "qemu"


def tables(results):
    """Those of which there is a line at least."""
    names = set(results)
    return "\n\n".join(
        ([report.goal_table(results, HOST_GOALS), report.count_table(results)]
         if names - set(firmware.ROWS) else [])
        + ([report.firmware_table(results, firmware.GOALS)]
           if names & set(firmware.ROWS) else [])) + "\n"


def is_wanted(name, only):
    return not only or name == only or name.startswith(only + "-")


def measure(options, work):
    """{row's name: (counts of this engine, counts of its peer)}, and each row as it is done."""
    results = {}

    def done(name, pair):
        results[name] = pair
        if options.json:
            print(report.json_line(name, options.seed, pair, ALL_GOALS, peer_of(name)), flush=True)
        else:
            print(f"{name} ", end="", file=sys.stderr, flush=True)

    for row in ROWS:
        if is_wanted(row.name, options.only):
            done(row.name, players.play_row(options.build, work, row, options.seed))
    if is_wanted(instructions.ROW.name, options.only):
        pair = instructions.measure(options.build, work)
        if pair is None:
            print("warm: not measured, valgrind is not installed", file=sys.stderr)
        else:
            done(instructions.ROW.name, pair)
    for name in firmware.ROWS:
        if is_wanted(name, options.only):
            done(name, firmware.measure(name, options.build, work))
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is temporary goes
    folder = (options.build / "bench").resolve()
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if options.only == "growth":
            return growth.run(options, folder)
        results = measure(options, work)
    except players.Failure as failure:
        print(f"\nbench: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not results:
        print(f"bench: no row {options.only}", file=sys.stderr)
        return 2
    table = tables(results)
    (folder / "table.txt").write_text(table)
    (folder / "goals.svg").write_text(report.goal_picture(results, HOST_GOALS))
    if not options.json:
        print(f"\n{table}\nseed {options.seed}; {folder}/table.txt, goals.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
