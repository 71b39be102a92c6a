# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Three static analyzers find nothing in the driver's sources, and each finds what is there.

What they report is either wrong in the code, or something that they cannot know; then it stands in
model.h or in SUPPRESSED, with the reason.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
THIRD_PARTY = ROOT / os.environ.get("THIRD_PARTY", "build/third-party")
SECONDS_MAX = 600

SOURCES = sorted(path.relative_to(ROOT).as_posix()
                 for pattern in ("core/*.c", "drivers/*.c", "efi/*.c", "efi/command/*.c",
                                 "efi/command/report/*.c")
                 for path in ROOT.glob(pattern))
HEADERS = [f"-isystem{THIRD_PARTY / folder}" for folder in ("zlib", "zstd/lib")]
HEADERS += ["-isystem/usr/include/efi", "-isystem/usr/include/efi/x86_64"]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-fshort-wchar", *HEADERS]

SUPPRESSED = {
    # Two strings that are equal so far end together: no index behind the shorter is reached.
    "arrayIndexOutOfBoundsCond:core/layers.c",
    # Whoever walks a table without suspects only fills the filter: no name is looked for.
    "ctunullpointer:core/guard.c",
}


def said(*command):
    """What a tool says of a source; nothing where all is well."""
    run = subprocess.run(["nice", "-n", "15", *command], cwd=ROOT, capture_output=True, text=True,
                         timeout=SECONDS_MAX, check=False)
    return run.stdout + run.stderr + (f"status {run.returncode}" if run.returncode else "")


def gcc(source):
    return said("gcc", "-O1", "-fanalyzer", "-Werror", *FLAGS, "-c", source, "-o", os.devnull)


def clang(source):
    """The file that defines what the model replaces goes without."""
    model = [] if source == "core/detail.c" else ["-include", "tests/proof/model.h"]
    return said("clang", "--analyze", "-Xclang", "-analyzer-output=text", *FLAGS, *model, source)


def cppcheck(*sources):
    """Of the configuration that is built: the named bugs are left out."""
    return said("cppcheck", "--std=c11", "--enable=warning,performance,portability", "--quiet",
                "-UQC_SEEDED", "-UQC_SEEDS_AT_RUN_TIME", "--error-exitcode=1",
                *(f"--suppress={rule}" for rule in sorted(SUPPRESSED)), *sources)


def test_sources_are_seen():
    assert {"core/image.c", "drivers/efi_block.c", "efi/config.c"} <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_gcc(source):
    assert gcc(source) == ""


@pytest.mark.parametrize("source", SOURCES)
def test_clang(source):
    assert clang(source) == ""


def test_cppcheck():
    assert cppcheck(*SOURCES) == ""


# ---- each can fail ---------------------------------------------------------------------------

BAD = """
#include <stddef.h>
int unset(int n);
int unset(int n)
{
    int a[4], x;

    if (n == 3)
        x = a[4];
    return x;
}
int null(int *p);
int null(int *p)
{
    if (p == NULL)
        return *p + 1;
    return *p;
}
"""
FAILS = """
#include "core/detail.h"
int uses(struct qc_detail *detail, int n);
static qc_status get(struct qc_detail *detail, int n, int *ret)
{
    if (n == 3)
        return qc_fail(detail, STATUS, "three");
    *ret = n;
    return QC_OK;
}
int uses(struct qc_detail *detail, int n)
{
    int value;

    return get(detail, n, &value) == QC_OK && value > 7;
}
"""


@pytest.mark.parametrize("tool, words", [(gcc, "-Werror=analyzer-use-of-uninitialized-value"),
                                         (clang, "core.NullDereference"),
                                         (clang, "core.uninitialized"),
                                         (cppcheck, "arrayIndexOutOfBounds")])
def test_bad_source_is_reported(tool, words, tmp_path):
    (tmp_path / "bad.c").write_text(BAD)
    assert words in tool(str(tmp_path / "bad.c"))


@pytest.mark.parametrize("status, is_wrong", [("QC_IO", False), ("QC_OK", True)])
def test_model_says_what_a_failure_is(status, is_wrong, tmp_path):
    """It silences what cannot be, and not the same where it can."""
    (tmp_path / "fails.c").write_text(FAILS.replace("STATUS", status))
    report = said("clang", "--analyze", "-Xclang", "-analyzer-output=text", "-I.", "-std=c11",
                  "-include", "tests/proof/model.h", str(tmp_path / "fails.c"))
    assert ("garbage" in report) is is_wrong, report
