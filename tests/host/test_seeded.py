# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Each named bug of core/seeded.h, built in, that needs no power cut makes the unit tests fail.

The same programs without a bug pass in the unit suite of the same run.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Bugs that no power cut is needed to show, and the program that must find each; tests/crash has
# the others.
SEEDS = {"l2_lookup": "test_read", "merge_gap": "test_read", "zero_flag": "test_read",
         "no_guard": "test_write"}
BUILD_TIMEOUT_S = 120


@pytest.mark.parametrize("seed", sorted(SEEDS))
def test_seeded_bug_is_found(seed, cache):
    build = cache.parent / "seeded" / seed
    program = build / "host" / "unit" / SEEDS[seed]
    plain = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    subprocess.run(["make", "-s", f"SEEDED={seed}", f"BUILD={build.relative_to(ROOT)}",
                    str(program.relative_to(ROOT))],
                   cwd=ROOT, env=plain, check=True, timeout=BUILD_TIMEOUT_S)
    run = subprocess.run([program], capture_output=True, text=True, errors="replace",
                         timeout=BUILD_TIMEOUT_S, check=False,
                         env=dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP"))
    assert run.returncode != 0
    assert "not ok" in run.stdout + run.stderr
