# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Each named bug of core/seeded.h that a unit test shows, built in, makes that test fail.

The same programs without a bug pass.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Bugs that no power cut is needed to show, and those of repairs, which a unit test cuts; the
# program that must find each. tests/crash has the others.
SEEDS = {"l2_lookup": "test_read", "merge_gap": "test_read", "zero_flag": "test_read",
         "no_guard": "test_write", "repair_no_mark": "test_repair_cuts",
         "repair_early_switch": "test_repair_cuts", "repair_early_lower": "test_repair_cuts",
         "repair_early_clear": "test_repair_cuts"}
BUILD_TIMEOUT_S = 300
RUN_TIMEOUT_S = 120


@pytest.fixture(scope="module", name="programs")
def programs_fixture(cache):
    """The folder of the unit tests, built once more so that the environment chooses the bug."""
    build = cache.parent / "seeded" / "unit"
    targets = [build / "host" / "unit" / program for program in sorted(set(SEEDS.values()))]
    plain = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    subprocess.run(["make", "-s", "-j2", "SEED=-DQC_SEEDS_AT_RUN_TIME",
                    f"BUILD={os.path.relpath(build, ROOT)}",
                    *(os.path.relpath(target, ROOT) for target in targets)],
                   cwd=ROOT, env=plain, check=True, timeout=BUILD_TIMEOUT_S)
    return build / "host" / "unit"


def run(program, seed):
    return subprocess.run([program], capture_output=True, text=True, errors="replace",
                          timeout=RUN_TIMEOUT_S, check=False,
                          env=dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", QC_UNIT_SEED=seed))


@pytest.mark.parametrize("program", sorted(set(SEEDS.values())))
def test_without_a_bug_is_good(program, programs):
    done = run(programs / program, "none")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("seed", sorted(SEEDS))
def test_seeded_bug_is_found(seed, programs):
    done = run(programs / SEEDS[seed], seed)
    assert done.returncode != 0
    assert "not ok" in done.stdout + done.stderr
