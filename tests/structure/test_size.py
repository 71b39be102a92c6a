# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The driver keeps its limits of size, and the tool that says so can say otherwise.

The tool is shown objects of made-up sources, one for each limit it must notice.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import size

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 60
FLAGS = ["-target", "x86_64-unknown-windows", "-ffreestanding", "-O2", "-fstack-usage"]


def compiled(folder, source):
    path = folder / "sample.c"
    path.write_text(source)
    subprocess.run(["clang", *FLAGS, "-c", path, "-o", folder / "sample.obj"], check=True,
                   timeout=SECONDS_MAX)
    return folder / "sample.obj"


def test_driver_keeps_its_limits(build):
    run = subprocess.run([sys.executable, ROOT / "tests" / "rig" / "size.py", "--build", build],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    driver = build / "x64" / "qcow2x64.efi"
    assert f"qcow2x64.efi: {driver.stat().st_size} bytes" in run.stdout


def test_driver_not_built(tmp_path):
    run = subprocess.run([sys.executable, ROOT / "tests" / "rig" / "size.py", "--build", tmp_path],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert run.returncode == 1
    assert "is not built" in run.stderr


def test_decoders_count(tmp_path, build):
    """They are in what is measured, with their frames; built by nobody, they are not small."""
    driver = size.driver_objects(build / "x64")
    decoders = [path for path in driver if path.parent.name == "third-party"]
    assert {"inflate", "zstddeclib-in"} <= {path.stem for path in decoders}
    assert all(size.frames(path) for path in decoders)
    assert not size.decoders_of(tmp_path)[0].exists()


def test_sizes_of_objects(tmp_path):
    """Zeroed and initialised ones, with a file's scope and with a function's."""
    source = ("static char zeroed[4096]; int filled[100] = {1}; const int fixed[500] = {2};\n"
              "char *f(int n) { static char local[512]; local[n]++; return zeroed + local[0]; }\n")
    sections, symbols = size.read_object(compiled(tmp_path, source).read_bytes())
    assert sorted(size.static_objects(sections, symbols)) == [
        ("f.local", 512), ("filled", 400), ("zeroed", 4096)]


@pytest.mark.parametrize("length, kept", [(size.STATIC_BYTES_MAX, True),
                                          (size.STATIC_BYTES_MAX + 1, False)])
def test_static_limit(length, kept, tmp_path, capsys):
    path = compiled(tmp_path, f"char pool[{length}];\n")
    assert size.report_static([path]) is kept
    assert f"{length} pool (sample.c)" in capsys.readouterr().out


@pytest.mark.parametrize("array, kept", [("char a[900]", True), ("char a[1100]", False),
                                         ("char a[n]", False)])
def test_frame_limit(array, kept, tmp_path):
    path = compiled(tmp_path, f"void g(char *); void f(int n) {{ {array}; g(a); }}\n")
    assert size.report_frames([path]) is kept


def test_frames_missing(tmp_path):
    """No frames at all, or code whose frames nobody wrote down, is not the same as small frames."""
    assert not size.report_frames([compiled(tmp_path, "int x;\n")])
    path = compiled(tmp_path, "int f(void) { return 1; }\n")
    path.with_suffix(".su").unlink()
    with pytest.raises(FileNotFoundError):
        size.report_frames([path])


@pytest.mark.parametrize("source, kept", [
    ("void g(void); void f(void) { g(); }", True),
    ("void *malloc(unsigned long long); void *f(void) { return malloc(8); }", False),
    ("void g(char *); void f(void) { char a[5000]; g(a); }", False),
    ("double f(double x) { return x * 2; }", False),
], ids=["none", "malloc", "page-frame", "float"])
def test_forbidden_symbol(source, kept, tmp_path):
    assert size.report_symbols([compiled(tmp_path, source + "\n")]) is kept


def test_file_limit(tmp_path, build):
    """The real driver with a tail: at the limit and one byte over it."""
    driver = (build / "x64" / "qcow2x64.efi").read_bytes()
    grown = tmp_path / "grown.efi"
    for length, kept in ((size.FILE_BYTES_MAX, True), (size.FILE_BYTES_MAX + 1, False)):
        grown.write_bytes(driver.ljust(length, b"\0"))
        assert size.report_file(grown) is kept
