# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the tests, on two processors, and closes with one line: N passed, N failed, N skipped.

`--only NAME` takes every test whose suite (folder or file) or own name contains NAME, with - and _
alike. A name that matches nothing is an error, not a success. Exit status 0 only when something ran
and nothing failed; errors in set-up and collection count as failures.

What tests counted (refusal cases, executions of the fuzzers) they leave in build/figures, a file
for each with lines like `refusal cases 12`; what is alike is added up and printed before that line.

Each of two processes takes the next test of the list when it has ended one, so they start in the
list's order. What is made once for several tests and kept in build/cache is made under a lock
(images/lock.py); tests of a file that share anything else run one after another in one process.
"""

import argparse
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Cheap and telling first.
SUITES = ["structure", "unit", "fuzz", "hostile", "proof", "crash", "host", "firmware"]
TOGETHER = ("test_demo.py",)  # its tests share a folder that is not theirs alone
PROCESSES = "2"


@functools.cache
def is_whole(file):
    """Whether a file makes something once for all of its tests, so that one process has them."""
    return (file.endswith(".c") or Path(file).name in TOGETHER
            or 'scope="module"' in (ROOT / file).read_text())


def scope(nodeid):
    """Tests of one scope run one after another."""
    file = nodeid.split("::")[0]
    return file if is_whole(file) else nodeid


class Tally:
    """Counts how the tests ended."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def pytest_xdist_make_scheduler(self, config, log):
        from xdist.scheduler import LoadScopeScheduling  # here, where pytest knows it as a plugin
        scheduler = LoadScopeScheduling(config, log)
        scheduler._split_scope = scope
        return scheduler

    def pytest_collectreport(self, report):
        self.failed += report.failed

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed += 1
        if report.skipped:
            self.skipped += 1
        if report.failed:
            self.failed += 1


def clear_figures(folder):
    for file in folder.glob("*.txt"):
        file.unlink()


def figures(folder):
    """What was counted, a line for each kind."""
    sums = {}
    for file in sorted(folder.glob("*.txt")):
        for line in file.read_text().splitlines():
            what, _, count = line.rpartition(" ")
            sums[what] = sums.get(what, 0) + int(count)
    return [f"{what}: {count:,}" for what, count in sums.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only")
    parser.add_argument("--long", action="store_true", help="longer runs where a suite has them")
    args = parser.parse_args()

    tally = Tally()
    counted = Path(args.build) / "figures"
    clear_figures(counted)
    folders = [str(ROOT / "tests" / suite) for suite in SUITES]
    options = [f"--rootdir={ROOT}", f"--build={args.build}", "-p", "no:cacheprovider",
               "-n", PROCESSES, "-q", "--tb=short", "--durations=5"]
    if args.long:
        options.append("--long")
    if args.only:
        options.append(f"--only={args.only}")
    code = pytest.main(options + folders, plugins=[tally])
    nothing_ran = tally.passed + tally.failed + tally.skipped == 0
    if nothing_ran:
        print(f"no test has '{args.only}' in its name" if args.only else "no test was found")
        tally.failed = 1
    elif tally.failed == 0 and code != 0:
        tally.failed = 1  # pytest itself broke: never a green line
    for line in figures(counted):
        print(line)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
