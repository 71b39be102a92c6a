# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the tests and closes with one line: N passed, N failed, N skipped.

`--only NAME` takes every test whose suite (folder or file) or own name contains NAME, with - and _
alike. A name that matches nothing is an error, not a success. Exit status 0 only when something ran
and nothing failed; errors in set-up and collection count as failures.
"""

import argparse
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = ["structure", "unit", "crash", "host", "firmware"]  # cheap and telling first


class Tally:
    """Chooses the tests and counts how they ended."""

    def __init__(self, only):
        self.only = only
        self.passed = self.failed = self.skipped = 0

    def pytest_collection_modifyitems(self, config, items):
        if not self.only:
            return
        wanted = self.only.replace("-", "_")
        keep, drop = [], []
        for item in items:
            name = item.nodeid.replace("-", "_")
            (keep if wanted in name else drop).append(item)
        config.hook.pytest_deselected(items=drop)
        items[:] = keep

    def pytest_collectreport(self, report):
        self.failed += report.failed

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed += 1
        if report.skipped:
            self.skipped += 1
        if report.failed:
            self.failed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only")
    parser.add_argument("--long", action="store_true", help="longer runs where a suite has them")
    args = parser.parse_args()

    tally = Tally(args.only)
    folders = [str(ROOT / "tests" / suite) for suite in SUITES]
    options = [f"--rootdir={ROOT}", f"--build={args.build}", "-p", "no:cacheprovider",
               "-q", "--tb=short", "--durations=5"]
    if args.long:
        options.append("--long")
    code = pytest.main(options + folders, plugins=[tally])
    nothing_ran = tally.passed + tally.failed + tally.skipped == 0
    if nothing_ran:
        print(f"no test has '{args.only}' in its name" if args.only else "no test was found")
        tally.failed = 1
    elif tally.failed == 0 and code != 0:
        tally.failed = 1  # pytest itself broke: never a green line
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
