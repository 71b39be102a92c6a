# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What images/handover/install.sh puts where, in a made-up system, and when it touches nothing.

The programs that need a real one (chroot, mount, unshare) are stand-ins that keep what was asked.
"""

import os
import subprocess
from pathlib import Path

import pytest

HANDOVER = Path(__file__).resolve().parents[2] / "images/handover"
NEEDED = {"usr/sbin/update-initramfs": "initramfs-tools", "bin/busybox": "busybox",
          "usr/bin/qemu-nbd": "qemu-utils", "usr/sbin/nbd-client": "nbd-client"}
INITRAMFS = "boot/initrd.img-6.1.0-1-amd64"
PLACES = {"hook": "etc/initramfs-tools/hooks/qcow2",
          "local-top": "etc/initramfs-tools/scripts/local-top/qcow2",
          "init-bottom": "etc/initramfs-tools/scripts/init-bottom/qcow2",
          "reader.sh": "usr/lib/qcow2/reader.sh", "shutdown.sh": "usr/lib/qcow2/shutdown.sh"}
STANDINS = {"unshare": 'shift; exec "$@"', "chroot": "", "mount": ""}


@pytest.fixture
def system(tmp_path):
    root = tmp_path / "a root"
    for name in (*NEEDED, INITRAMFS, "etc/hostname"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*") if path.is_file()}


def install(root):
    """The script's end, and what the stand-ins were asked, a line each."""
    programs, asked = root.parent / "programs", root.parent / "asked"
    programs.mkdir(exist_ok=True)
    asked.write_text("")
    for name, more in STANDINS.items():
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{asked}"\n{more}\n')
        (programs / name).chmod(0o755)
    done = subprocess.run(["sh", HANDOVER / "install.sh", root], capture_output=True, text=True,
                          env=dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}"),
                          timeout=60, check=False)
    return done, asked.read_text().splitlines()


def test_all_is_installed(system):
    before = files_of(system)
    for _again in range(2):
        done, asked = install(system)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "install.sh: the next boot from a qcow2 takes the image over\n"
        assert asked[-1] == f"chroot {system} update-initramfs -u -k all"
        assert [line for line in asked if line.startswith("mount")] == [
            f"mount --rbind /{name} {system}/{name}" for name in ("dev", "proc", "sys")]
        installed = {place: (HANDOVER / name).read_bytes() for name, place in PLACES.items()}
        assert files_of(system) == before | installed
        assert {(system / place).stat().st_mode & 0o777 for place in installed} == {0o755}


def test_no_script_is_forgotten():
    assert {path.name for path in HANDOVER.iterdir()} == {*PLACES, "install.sh", "README.md"}


@pytest.mark.parametrize("gone,why", [
    *(([name], f"packages are missing: {package}") for name, package in NEEDED.items()),
    (list(NEEDED), "packages are missing: initramfs-tools busybox qemu-utils nbd-client"),
    ([INITRAMFS], "/boot has no initramfs"),
    (["etc/hostname", "etc"], ": there is no system"),
], ids=[*NEEDED.values(), "all", "initramfs", "system"])
def test_nothing_is_changed(system, gone, why):
    for name in gone:
        path = system / name
        path.rmdir() if path.is_dir() else path.unlink()
    before = files_of(system)
    done, asked = install(system)
    assert done.returncode == 1 and done.stdout == "" and asked == []
    assert done.stderr.startswith("install.sh: ")
    assert done.stderr.endswith(f"{why}; nothing was changed\n")
    assert files_of(system) == before
