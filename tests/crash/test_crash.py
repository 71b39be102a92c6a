# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The crash suite: runs the crash program and holds its figures against the floors.

Each test is one run of build/host/crash/crash; a run that finds something broken ends with another
status than 0 and with the line that replays the violation alone. The floors are those of a run of
`make test`; longer runs are `make crash K=5` and the program's own options.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 300

BASES = ["empty", "half", "snapshot", "zeroalloc", "block", "reftable", "version2", "growing",
         "tight", "autoclear", "through", "packed", "packedsnap", "overlay", "overlay2",
         "overlaydeep", "extended", "extoverlay", "extsnap", "datafile", "dataraw", "short",
         "shortover", "snapshot2", "vmstate", "dirty"]
# A refcount table of 4 KiB clusters would count 1 GiB; the layer below would need 6 MiB.
ONLY_512 = {"reftable", "shortover"}
NO_BULK = ONLY_512 | {"datafile", "dataraw"}  # snapshots of a data file are refused
VERSION_2 = {"version2", "overlay2", "snapshot2"}  # nothing says that a change is under way

# Sequences so long are all run.
LENGTH = {"plain": 4, "faulty": 3, "bulk": 3}
LENGTH_LONG = {("snapshot", "plain"): 5, ("block", "plain"): 5, ("zeroalloc", "plain"): 5,
               ("extended", "plain"): 3, ("extoverlay", "plain"): 3, ("extsnap", "plain"): 3,
               ("snapshot", "bulk"): 4, ("snapshot2", "bulk"): 4, ("vmstate", "bulk"): 4,
               ("short", "bulk"): 4,
               ("half", "faulty"): 4, ("snapshot", "faulty"): 4, ("zeroalloc", "faulty"): 4}

# With --long every base and alphabet goes so far instead, and the random runs to their floors.
# Bases of compressed clusters and of layers have larger alphabets, and large clusters take longer
# to look at: these go one operation less far. FARTHER go one more.
LENGTH_ALL = {"plain": 5, "faulty": 4, "bulk": 5}
FARTHER = {"empty", "half", "snapshot", "zeroalloc", "block", "vmstate"}  # in blocks of 512
LARGER = {"packed", "packedsnap", "overlay", "overlay2", "overlaydeep",
          "extended", "extoverlay", "extsnap"}
# Two of the longer sequences leave more states than are all looked at.
SAMPLED = {("short", "bulk")}
RANDOM_ALL = 10_000_000, 100_000
TIMEOUT_ALL_S = 1800

AGREED_MIN = 5000
FAULTS_MIN = 100_000
RANDOM_OPS, RANDOM_CUTS = 200_000, 2000

# Bugs that no sequence on these bases can show, and where they are looked for.
NOT_HERE = {
    "stale_table": "a cluster is written whole before it is a table again; snapshots may tell",
    "sub_unfresh": "what it hurries is counted anew in these bases; tests/unit/test_subclusters",
    "no_guard": "only an image whose tables lie can show it; the host suite has those",
    "own_fault": "assertions are out here; tests/unit/test_sure and tests/firmware/test_sure.py",
    **{f"repair_{name}": "repairs are cut in tests/unit/test_repair_cuts"
       for name in ("no_mark", "early_switch", "early_lower", "early_clear")},
}

# Traces that broke the protocol's model when a rule was missing: (rule, base, operations, bug).
# The letters are those of world.h; a failing stage is a write in it that fails though it lands,
# because a flush of the disk that fails makes the image read-only.
TRACES = [
    ("R1", "half", "D0,H0,F", "no_fill"),
    ("R1", "overlay", "D1,H1,F", "no_fill"),
    ("R1", "overlaydeep", "H0,F", "no_copy_below"),
    ("R2", "empty", "H4,f21a,W5,F", "rewrite_new"),
    ("R3", "snapshot", "W1,A0,C", "bulk_unsettled"),
    ("R4", "snapshot", "D4,c21a,D0,K0", "drop_issued"),
    ("R4", "empty", "W0,f21a,D0,F", "cancel_equal"),
    ("R4", "half", "D0,c21a,W0,F", "drop_issued"),
    ("R5", "half", "W0,R,F", "open_clean"),
    ("R6", "snapshot", "H1,F", "early_drop"),
    ("R6", "empty", "W0,f21a,D0,F", "net_count"),
    ("R6", "packedsnap", "W0,F", "early_drop"),
    ("R7", "tight", "H2,f21a,D2,W3,W5,W6", "no_quarantine"),
    ("R7", "half", "D0,f11a,H2,F", "lose_quarantine"),
    ("R7", "packed", "D2,f11a,W3,F", "lose_quarantine"),
    ("R8", "snapshot", "H1", "mid_commit"),
    ("R9", "zeroalloc", "W2,F", "skip_empty"),
    ("R10", "block", "H6,F", "block_uncounted"),
    ("R11", "zeroalloc", "w2,H2,F", "undo_kept"),
    ("R12", "packed", "D0,D1,W3,F", "no_quarantine"),
    ("R13", "half", "H2,F,H3,F", "stale_cache"),
]

# What the model also broke, of operations that the engine does not have.
TRACES_ABSENT = {"R2-reftable": "two growths of the refcount table in a sequence this short",
                 "R6-packed": "writing compressed clusters",
                 "R12-packed": "writing compressed clusters"}


@pytest.fixture(scope="session", name="is_long")
def is_long_fixture(request):
    return request.config.getoption("--long")


def seeds():
    names = re.findall(r'SEED\((\w+), "', (ROOT / "core" / "seeded.h").read_text())
    return names[names.index("no_flush1"):]


def run(build, *arguments, timeout=TIMEOUT_S):
    """(exit status, what the program printed)"""
    done = subprocess.run([build / "host" / "crash" / "crash", *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout, check=False)
    print(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


def figure(output, name):
    return int(re.search(rf"\b{name}=(\d+)", output)[1])


def bases_and_units():
    return [(base, unit) for base in BASES for unit in (512, 4096)
            if unit == 512 or base not in ONLY_512]


def length_of(base, unit, alphabet, is_long):
    """How many operations the sequences have that are all run."""
    if is_long:
        farther = base in FARTHER and unit == 512 and alphabet != "faulty"
        less_far = base in LARGER or (base, alphabet) in SAMPLED
        return LENGTH_ALL[alphabet] - less_far + farther
    return LENGTH_LONG.get((base, alphabet) if unit == 512 else None, LENGTH[alphabet])


@pytest.mark.parametrize("alphabet", ["plain", "faulty", "bulk"])
@pytest.mark.parametrize("base,unit", bases_and_units())
def test_every_state(build, is_long, record_property, base, unit, alphabet):
    """All sequences up to a length: after every cut, invariants 1 to 6 hold."""
    if alphabet == "bulk" and base in NO_BULK:
        pytest.skip("no changes of snapshots on this base")
    length = length_of(base, unit, alphabet, is_long)
    status, said = run(build, "all", "--base", base, "--unit", unit, "--alphabet", alphabet,
                       "--length", length, timeout=TIMEOUT_ALL_S if is_long else TIMEOUT_S)
    assert status == 0
    assert figure(said, "violations") == 0
    assert figure(said, "not_exhaustive") == 0
    record_property("crash states", figure(said, "states"))
    assert figure(said, "states") >= 500 and figure(said, "reopened") > 0
    if alphabet == "bulk" and base not in VERSION_2:
        assert figure(said, "repaired") >= 100


def test_long_runs_go_as_far():
    for base, unit in bases_and_units():
        for alphabet in LENGTH:
            kind = base, unit, alphabet
            assert length_of(*kind, is_long=True) >= length_of(*kind, is_long=False), kind


def test_pruning_loses_nothing(build):
    """Where every combination of units shows a violation, so do the states that are visited."""
    status, said = run(build, "prune")
    assert status == 0
    assert figure(said, "cuts") >= 10_000 and figure(said, "broken") >= 100
    assert figure(said, "disagreed") == 0


def test_bases_are_known(build):
    """A name that is not one runs nothing, which must not look like success."""
    status, _said = run(build, "all", "--base", "nothing")
    assert status != 0


def test_process_dies(build):
    """On a disk whose flush does nothing, the death of the process alone loses nothing."""
    status, said = run(build, "process", "--length", 3)
    assert status == 0
    assert figure(said, "states") > 0


@pytest.mark.parametrize("seed", seeds())
def test_seed_is_found(build, seed):
    """A named bug is found within 4 operations, and its sequence is good without it."""
    if seed in NOT_HERE:
        pytest.skip(NOT_HERE[seed])
    status, said = run(build, "seeds", "--seed", seed)
    assert status == 0, said
    assert re.search(rf"seed {seed}: found .*sequence \S+;", said)


@pytest.mark.parametrize("rule,base,ops,seed", TRACES,
                         ids=[f"{rule}_{ops.replace(',', '_')}" for rule, _b, ops, _s in TRACES])
def test_trace(build, rule, base, ops, seed):
    """The trace that asks for a rule is good with it and bad without."""
    units = [512] if base in ONLY_512 else [512, 4096]
    for unit in units:
        status, _said = run(build, "one", "--base", base, "--ops", ops, "--unit", unit,
                            "--share", 1)
        assert status == 0, rule
    status, said = run(build, "one", "--base", base, "--ops", ops, "--share", 1, "--seed", seed)
    assert status == 1 and "broken:" in said


@pytest.mark.parametrize("rule", sorted(TRACES_ABSENT))
def test_trace_of_what_is_absent(rule):
    pytest.skip(f"{rule} needs {TRACES_ABSENT[rule]}")


@pytest.mark.parametrize("unit", [512, 4096])
def test_faults(build, unit):
    """Each lower-level call fails in each way: nothing acknowledged is lost, nothing leaks.

    What a layer below cannot give fails the write that needs it, and never a flush.
    """
    status, said = run(build, "faults", "--unit", unit)
    assert status == 0
    assert figure(said, "runs") >= FAULTS_MIN * (1 if unit == 512 else 0.8)
    assert figure(said, "violations") == 0
    assert figure(said, "lower_reads") >= 1000


def test_long_random_runs(build, is_long):
    ops, cuts = RANDOM_ALL if is_long else (RANDOM_OPS, RANDOM_CUTS)
    status, said = run(build, "random", "--count", ops, "--cuts", cuts,
                       timeout=TIMEOUT_ALL_S if is_long else TIMEOUT_S)
    assert status == 0
    assert figure(said, "ops") >= ops and figure(said, "cuts") >= cuts


def test_flush_costs(build):
    status, said = run(build, "costs")
    assert status == 0
    assert said.count(" good") >= 19 and " broken" not in said


def test_checker_agrees_with_qemu_img(build, tmp_path):
    """5,000 states, corrupt and leaking ones among them, have the verdict of qemu-img check.

    So have compressed clusters, subclusters and entries of a data file with each bit of theirs, and
    of their counts, turned.
    """
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    halves = [subprocess.Popen([build / "host" / "crash" / "crash", "agree", "--number", str(half),
                                "--count", str(AGREED_MIN // 2),
                                "--file", folder / f"{tmp_path.name}-{half}.qcow2"],
                               stdout=subprocess.PIPE, text=True)
              for half in (0, 1)]
    said = [half.communicate(timeout=TIMEOUT_S)[0] for half in halves]
    print(*said)
    assert [half.returncode for half in halves] == [0, 0]
    assert sum(figure(text, "compared") for text in said) >= AGREED_MIN
    for verdict in ("clean", "leaks", "corrupt"):
        assert sum(figure(text, verdict) for text in said) >= 100
