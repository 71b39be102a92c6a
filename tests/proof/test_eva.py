# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Abstract interpretation (Frama-C's EVA): what holds for every input, not for some tried.

Each eva_NAME.c drives a part of the core on values that may be anything. No alarm may be left, of
memory, of shifts, of overflow, unsigned as well, and every assertion must be proved. What is wider
than the analyzer can relate stays with the fuzzers: the walk over extensions, everything that goes
through the cache.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 900
PROOFS = sorted(path.name for path in (ROOT / "tests" / "proof").glob("eva_*.c"))
pytestmark = pytest.mark.skipif(shutil.which("frama-c") is None,
                                reason="Debian's frama-c-base, of 900 MB, is not installed")
OPTIONS = ["-machdep", "gcc_x86_64", "-cpp-extra-args=-I. -std=c11", "-eva", "-eva-precision", "3",
           "-eva-auto-loop-unroll", "128", "-eva-split-return", "auto", "-warn-unsigned-overflow",
           "-eva-domains", "cvalue,equality,gauges,symbolic-locations,octagon"]


def analysed(source):
    """(the analyzer's own summary, all it said)"""
    run = subprocess.run(["nice", "-n", "15", "frama-c", *OPTIONS, source], cwd=ROOT, check=False,
                         capture_output=True, text=True, timeout=SECONDS_MAX)
    said = run.stdout + run.stderr
    return said.partition("ANALYSIS SUMMARY")[2], said


def is_proved(summary):
    """Whether it came to its end, without an alarm, and whatever was asserted was reached."""
    asserted = re.search(r"Assertions +(\d+) valid +0 unknown +0 invalid", summary)
    return " 0 alarms generated" in summary and asserted is not None and int(asserted[1]) > 0


@pytest.mark.parametrize("proof", PROOFS)
def test_proof(proof):
    summary, said = analysed(f"tests/proof/{proof}")
    assert is_proved(summary), said


# ---- the analyzer can fail -------------------------------------------------------------------

BODY = """
#include "tests/proof/eva.h"
int main(void)
{
    uint8_t bytes[16] = {0};
    uint64_t n = eva_between(0, LAST);

    if (n SAME 16)
        n = 15;
    bytes[n]++;
    n = UINT64_C(1) << (n FAR);
    n TIMES= 2;
    /*@ assert n > 1; */
    return 0;
}
"""
SOUND = {"LAST": "16", "SAME": "==", "FAR": "+ 1", "TIMES": "+"}


@pytest.mark.parametrize("change, is_sound", [
    ({}, True), ({"LAST": "17"}, False), ({"SAME": "!="}, False), ({"FAR": "+ 60"}, False),
    ({"TIMES": "-", "FAR": ""}, False),
], ids=["sound", "index", "condition", "shift", "overflow"])
def test_bad_source_is_reported(change, is_sound, tmp_path):
    text = BODY
    for word, with_what in {**SOUND, **change}.items():
        text = text.replace(word, with_what)
    (tmp_path / "sample.c").write_text(text)
    summary, said = analysed(str(tmp_path / "sample.c"))
    assert summary and is_proved(summary) is is_sound, said
