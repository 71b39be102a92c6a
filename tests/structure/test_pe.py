# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What firmware that guards its memory and its boot asks of a binary (rig/pe.py), and that builds
repeat: of the same source, in other folders, they are the same bytes, so that who has the source
can tell whether a binary was made from it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import making
import pe

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("Makefile", "core", "drivers", "efi", "tests/rig/sources.sh")
BINARIES = ("qcow2x64.efi", "qcow2.efi")
KINDS = [("qcow2x64.efi", pe.BOOT_DRIVER), ("qcow2.efi", pe.APPLICATION)]


@pytest.mark.parametrize("name, subsystem", KINDS)
def test_firmware_can_guard_it(build, name, subsystem):
    image = pe.parse((build / "x64" / name).read_bytes())
    assert list(pe.complaints(image, pe.MACHINES["x64"], subsystem)) == []


def loaders(pattern):
    """The sources that start, or have others start, what is not in this binary."""
    return [path.name for path in ROOT.glob(pattern)
            if re.search(r"\b(LoadImage|StartImage)\(", path.read_text())]


def test_driver_loads_no_code():
    """Of the two binaries the command alone does, through the firmware, which verifies."""
    assert loaders("core/*.c") + loaders("drivers/*.c") + loaders("efi/*.c") == []
    assert loaders("efi/command/*.c") == ["files.c"]


# ---- the rules can fail ----------------------------------------------------------------------

LINKED = ["/nologo", "/nodefaultlib", "/entry:efi_main", "/subsystem:efi_boot_service_driver"]
SOURCE = """
int filled = 1;
int *pointer = &filled;
__attribute__((used, section(".sbat"))) const char sbat[] = "%s";
int efi_main(void) { return *pointer; }
"""
GOOD = "\\n".join(pe.SBAT) + "1,n/a\\n"
OFFENDERS = {
    "application": ((), ["/subsystem:efi_application"], GOOD, "subsystem 10"),
    "align": ((), ["/align:512", "/driver"], GOOD, "sections are aligned to 512"),
    "no-nx": ((), ["/nxcompat:no"], GOOD, "flag 0x100 is missing"),
    "fixed": ((), ["/fixed", "/base:0x10000"], GOOD, "it cannot be relocated"),
    "pinned": ((), ["/fixed", "/base:0x10000"], GOOD, "it has no relocations"),
    "writable": ((), ["/section:.text,erw"], GOOD, ".text is writable and executable"),
    "machine": (("-target", "aarch64-unknown-windows"), [], GOOD, "machine 0xaa64"),
    "debug": (("-g", "-gcodeview"), ["/debug"], GOOD, "it names a debug file"),
    "sbat-lines": ((), [], pe.SBAT[0], ".sbat has 1 lines"),
    "sbat-name": ((), [], GOOD.replace("qcow2efi", "qcow3efi"), ".sbat says qcow3efi,"),
    "sbat-fields": ((), [], GOOD.replace(",n/a", ""), ".sbat says qcow2efi,"),
    "sbat-writable": ((), ["/section:.sbat,rw"], GOOD, ".sbat has flags"),
}


def linked(folder, compiler, linker, sbat):
    (folder / "sample.c").write_text(SOURCE % sbat)
    target = ("-target", "x86_64-unknown-windows")
    subprocess.run(["clang", *target, "-ffreestanding", *compiler, "-c", "sample.c"],
                   cwd=folder, check=True, timeout=60)
    subprocess.run(["lld-link", *LINKED, *linker, "/out:sample.efi", "sample.o"], cwd=folder,
                   check=True, timeout=60, capture_output=True)
    return pe.parse((folder / "sample.efi").read_bytes())


def judged(image):
    return list(pe.complaints(image, pe.MACHINES["x64"], pe.BOOT_DRIVER))


@pytest.mark.parametrize("name", OFFENDERS)
def test_offender_is_named(name, tmp_path):
    compiler, linker, sbat, complaint = OFFENDERS[name]
    found = judged(linked(tmp_path, compiler, linker, sbat))
    assert any(line.startswith(complaint) for line in found), found


def test_keeper_is_left_alone(tmp_path):
    assert judged(linked(tmp_path, (), [], GOOD)) == []


# ---- builds repeat ---------------------------------------------------------------------------


def test_build_repeats(build, tmp_path):
    """A copy of the source in another folder, built into a third one: the same bytes."""
    tree, made = tmp_path / "tree", tmp_path / "made"
    for name in SOURCES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tree / name)
    making.make(made, "firmware", tree=tree)
    for name in BINARIES:
        first, second = ((folder / "x64" / name).read_bytes() for folder in (build, made))
        assert len(first) == len(second)
        assert first == second
