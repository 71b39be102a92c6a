# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Coverage of core/ against its floors: all lines and branches, and MC/DC of the parser, the cache,
the epoch and the commit, but for what uncovered.txt excepts with a reason.

The measurement is `make cov`, which is run here with the long tests only; what it counts and what
it leaves out is shown on made-up sources by the others.
"""

import subprocess

import cover
import pytest

ROOT = cover.ROOT
TIMEOUT_S = 1200


def test_floors(request, build):
    if not request.config.getoption("--long"):
        pytest.skip("make test-all measures the coverage")
    done = subprocess.run(["make", f"BUILD={build}", "cov"], cwd=ROOT, capture_output=True,
                          text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    print(done.stdout[-20000:] + done.stderr[-2000:])
    assert done.returncode == 0
    assert "uncovered=0 failed=0 wrong_exceptions=0" in done.stdout


# ---- what counts -----------------------------------------------------------------------------

SOURCE = """\
int f(int a)
{
    if (a && QC_SEED(early)) {
        g();
    }
    if (QC_SEED(late))
        g();
    status = qc_sure(image, a, "no");
    if (status != QC_OK)
        return status;
    return a && b;
}
""".splitlines()


def source_of(lines, branches, mcdc):
    source = object.__new__(cover.Source)
    source.path = cover.Path("core/commit.c")
    source.text = SOURCE
    source.seeded = cover.seeded_lines(SOURCE)
    source.sure = cover.sure_lines(SOURCE)
    source.lines, source.branches, source.mcdc = lines, branches, mcdc
    return source


def test_what_named_bugs_and_assertions_reach_is_left_out():
    assert cover.seeded_lines(SOURCE) == {4, 5, 7}
    assert cover.sure_lines(SOURCE) == {9, 10}
    assert source_of(dict.fromkeys((4, 5, 7, 9, 10), 0), {}, {}).missing() == []


def test_what_is_not_covered_is_named():
    source = source_of({1: 5, 11: 0}, {(11, 12, 11, 13): [3, 0]}, {(11, 12, 11, 18): [True, False]})
    assert source.missing() == [(11, "branch", "a: never false"), (11, "line", ""),
                                (11, "mcdc", "b")]
    below, wrong = cover.judge([source], {})
    assert len(below) == 3 and wrong == []


def test_exceptions_are_few_true_and_allowed():
    source = source_of({11: 0}, {}, {})
    key = ("commit.c", "return a && b;")
    below, wrong = cover.judge([source], {key: "because"})
    assert below == [] and wrong == ["never to be excepted: commit.c: return a && b;"]
    source.path = cover.Path("core/decode.c")
    key = ("decode.c", "return a && b;")
    assert cover.judge([source], {key: "because"}) == ([], [])
    assert cover.judge([source], {key: ""})[1] != []
    assert cover.judge([source], {key: "because", ("decode.c", "gone"): "because"})[1] != []
    many = {("decode.c", str(i)): "because" for i in range(cover.EXCEPTIONS_MAX + 1)}
    assert any("at most" in line for line in cover.judge([source], many)[1])


def test_exceptions_are_read():
    text = "# a comment\n\ndecode.c: return Z_NULL; # the arena is large enough\n"
    assert cover.read_exceptions(text) == {("decode.c", "return Z_NULL;"):
                                           "the arena is large enough"}
