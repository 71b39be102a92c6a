# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The tests see small changes of the parser, the cache, the epoch and the commit.

Of each file's changes that are not equivalent at least 95 of 100 must break a test (with --long;
tests/proof/mutate.py says what is changed and what is run). What the mutator itself promises, and
that it can say no, is tested always.
"""

import os
import subprocess
import sys
from pathlib import Path

import mutate
import pytest

from images.lock import alone

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ["cache", "commit", "epoch", "extensions", "header"]
BUILD_TIMEOUT_S = 600
RUN_TIMEOUT_S = 3600

SAMPLE = '''/* if (a < b) in a comment */
#define LIMIT 8u

static qc_status check(unsigned count, const char *name)
{
    qc_status status = QC_OK;

    if (count > LIMIT && name[0] != 'x') /* a < b */
        return fail("a < b");
    total += count;
    status = look(count - 1, !is_first);
    return status;
}
'''


def afters(text=SAMPLE):
    return [mutant.name.split(" -> ")[1] for mutant in mutate.mutants_of("core/a.c", text)]


def test_changes_are_made():
    found = afters()
    for wanted in ("#define LIMIT 9u", "#define LIMIT 7u",
                   "if (count >= LIMIT && name[0] != 'x') /* a < b */",
                   "if (count > LIMIT || name[0] != 'x') /* a < b */",
                   "if (count > LIMIT && name[0] == 'x') /* a < b */",
                   "if (!(count > LIMIT && name[0] != 'x')) /* a < b */",
                   "return QC_OK;", "total -= count;", ";", "status = look(count + 1, !is_first);",
                   "status = look(count - 2, !is_first);", "status = look(count - 1, is_first);"):
        assert wanted in found


def test_words_are_left_alone():
    """Comments, strings, includes, declarations and pointers are no code to change."""
    found = afters('#include "a+b.h"\n/* 1 + 1 */\nstatic const char *name(const char *text)\n{\n'
                   '    const char *end = "1 + 1";\n\n    g(\'1\', &end);\n}\n')
    assert found == [";"]


def test_names_hold_though_lines_move():
    names = [mutant.name for mutant in mutate.mutants_of("core/a.c", SAMPLE)]
    moved = SAMPLE.replace("static qc_status", "int more;\n\nstatic qc_status")
    assert names == [mutant.name for mutant in mutate.mutants_of("core/a.c", moved)]
    assert len(set(names)) == len(names)
    assert "core/a.c check: total += count; -> total -= count;" in names


def test_change_is_where_it_says():
    for mutant in mutate.mutants_of("core/a.c", SAMPLE):
        text = SAMPLE[:mutant.start] + mutant.new + SAMPLE[mutant.end:]
        assert text != SAMPLE or mutant.new == "return QC_OK;"
        assert text.startswith("/* if (a < b) in a comment */\n")


def mutants(count):
    return [mutate.Mutant(0, 0, "", f"core/a.c f: {i} -> {i + 1}") for i in range(count)]


def judged(survivors, listed, count=100):
    answers = ["survived" if i < survivors else "test_a" for i in range(count)]
    return mutate.judge("core/a.c", mutants(count), answers, listed, 0)


def test_floor():
    assert judged(5, []).is_good()
    assert not judged(6, []).is_good()
    assert not judged(100, []).is_good()


def test_equivalents_do_not_count():
    names = [mutant.name for mutant in mutants(6)]
    assert judged(6, names[:2]).is_good()
    assert judged(6, names[:2]).survived == names[2:]


def test_list_of_equivalents_is_right():
    """What a test sees is not equivalent, and what is not there any more is not listed."""
    names = [mutant.name for mutant in mutants(6)]
    assert not judged(5, names).is_good()
    assert judged(5, names).wrong == names[5:]
    assert not judged(5, ["core/a.c f: old -> older"]).is_good()
    assert judged(5, ["core/b.c f: old -> older"]).is_good()


def test_nothing_tried_is_not_good():
    assert not judged(0, [], count=0).is_good()


def test_every_equivalent_has_a_reason():
    names = mutate.equivalents(mutate.EQUIVALENT.read_text())
    assert len(set(names)) == len(names)
    assert mutate.equivalents("# why\na -> b\nc -> d\n") == ["a -> b", "c -> d"]
    with pytest.raises(ValueError):
        mutate.equivalents("# why\na -> b\n\nc -> d\n")


@pytest.fixture(scope="session", name="programs")
def programs_fixture(build):
    """What is run, built once."""
    plain = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    with alone(build / "host" / "mutate-made"):
        subprocess.run(["make", "-s", "-j2", f"BUILD={os.path.relpath(build, ROOT)}",
                        "mutate-binaries"],
                       cwd=ROOT, env=plain, check=True, timeout=BUILD_TIMEOUT_S)
    return build


@pytest.mark.parametrize("name", FILES)
def test_small_changes_are_seen(name, request):
    if not request.config.getoption("--long"):
        pytest.skip("minutes: make test-all, or make mutate")
    build = request.getfixturevalue("programs")
    done = subprocess.run([sys.executable, "-B", ROOT / "tests" / "proof" / "mutate.py", "--build",
                           build, "--jobs", "1", f"core/{name}.c"], capture_output=True, text=True,
                          timeout=RUN_TIMEOUT_S, check=False)
    print(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
