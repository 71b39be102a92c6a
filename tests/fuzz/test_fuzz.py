# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fuzzing runs of fixed length, and that each oracle of theirs can fail.

Each target runs so many inputs from its seeds with a fixed random seed; most inputs of the two that
work by recipes open. Named bugs of core/seeded.h are found, each by the oracle that is there for
it, within as many. How many inputs were run is left in DIR/figures/fuzz.txt.
"""

import fcntl
import re

import fuzz
import pytest

RUNS = {"header": 30000, "tables": 2000, "driver": 2000, "decode": 30000, "config": 40000}
RUN_TIMEOUT_S = 300
OPEN_PERCENT = 80

# A bug, and what says that it is there.
BUGS = [
    ("no_guard", "the guest's data lands at"),
    ("first_cluster", "behind the header changes|field of the header changes"),
    ("no_cow", "guest [0-9a-f]+ reads as"),
    ("lose_epoch", "guest [0-9a-f]+ reads as"),
    ("block_uncounted", "clusters are leaked"),
    ("l2_uncounted", "a good image is said to be corrupt|reads as|lands at"),
]


def run_fixed(build, tmp_path, target, runs, bug=None):
    corpus = tmp_path / "corpus"
    return fuzz.run_target(build, target, [f"-runs={runs}", "-seed=1"], RUN_TIMEOUT_S,
                           corpus=corpus, bug=bug)


def note_executions(build, target, count):
    """The sum over all targets, as one line; two processes may be at it."""
    folder = build / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with open(build / "fuzz" / "executions", "a+") as counts:
        fcntl.flock(counts, fcntl.LOCK_EX)
        counts.seek(0)
        known = dict(line.split() for line in counts.read().splitlines())
        known[target] = str(count)
        counts.seek(0)
        counts.truncate()
        counts.write("".join(f"{name} {number}\n" for name, number in known.items()))
        total = sum(int(number) for number in known.values())
        (folder / "fuzz.txt").write_text(f"fuzz executions {total}\n")


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_fixed_run_finds_nothing(build, tmp_path, target):
    status, said = run_fixed(build, tmp_path, target, RUNS[target])
    assert status == 0, fuzz.broken(said) + "\n" + said[-2000:]
    numbers = fuzz.figures(said)
    assert numbers["executions"] >= RUNS[target] * 9 // 10
    if target in ("tables", "driver"):
        assert numbers["past_open"] >= OPEN_PERCENT
    note_executions(build, target, numbers["executions"])


@pytest.mark.parametrize("bug, line", BUGS)
def test_bug_is_found(build, tmp_path, bug, line):
    status, said = run_fixed(build, tmp_path, "driver", RUNS["driver"], bug)
    assert status != 0
    assert re.search(line, fuzz.broken(said)), fuzz.broken(said)
