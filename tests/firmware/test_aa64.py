# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The same driver on 64-bit Arm: it builds there, keeps its limits, and works once from end to end.

One boot of a machine that has none of the rig's channels: the application smoke.c says on the
serial console what it read and wrote, and QEMU's tools tell afterwards whether that is true.
"""

import re
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

import machine
import making
import pe
from conftest import judge_disk
from images import disks

ROOT = Path(__file__).resolve().parents[2]
BOOT_TIMEOUT_S = 180
MEMORY_MIB = 256
ESP_SLOT, FIRST_SLOT = 0x0F, 0x10
DISK_BYTES = 3 * disks.MIB
# As in smoke.c.
SECTOR_FIRST, SECTORS_COUNT, WORD_FACTOR = 1001, 300, 0x9E3779B97F4A7C15
OPTIONS = {"deflate": "compression_type=zlib", "zstd": "compression_type=zstd"}


@pytest.fixture(scope="module")
def binaries(build):
    making.make(build, "ARCH=aa64", "firmware", f"{build}/aa64/smoke.efi")
    return build / "aa64"


def content(seed):
    """Half of it compresses, the other half is not there."""
    words = (((seed << 40 | number // 3) * WORD_FACTOR) & 2 ** 64 - 1
             for number in range(DISK_BYTES // 16))
    return struct.pack(f"<{DISK_BYTES // 16}Q", *words).ljust(DISK_BYTES, b"\0")


def written(number):
    """What smoke.c writes to the image of this number, from 1."""
    words = ((number << 32 | i) * WORD_FACTOR & 2 ** 64 - 1 for i in range(SECTORS_COUNT * 64))
    return struct.pack(f"<{SECTORS_COUNT * 64}Q", *words)


def changed(before, number):
    start, new = SECTOR_FIRST * 512, written(number)
    return before[:start] + new + before[start + len(new):]


@dataclass
class Container:
    path: Path
    before: bytes


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    """A disk with a compressed image for each kind of compression, and room to write."""
    folder, made = tmp_path_factory.mktemp("arm"), []
    for number, (name, option) in enumerate(OPTIONS.items(), 1):
        before = content(number)
        (folder / "raw").write_bytes(before)
        disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", option, "raw",
                  name, cwd=folder)
        with open(folder / name, "ab") as image:
            image.truncate(8 * disks.MIB)
        parts = [(disks.DATA_TYPE, folder / name)]
        made.append(Container(disks.write_gpt(folder / f"{name}.raw", parts, name=name), before))
    return made


def boot(folder, files, attached):
    esp = disks.make_fat(folder / "esp.fat", files)
    system = disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, esp)], name="smoke")
    command = machine.arm_firmware() + ["-m", str(MEMORY_MIB), "-serial", "stdio"]
    command += machine.attach(machine.Disk(system, slot=ESP_SLOT, bootindex=0))
    for slot, path in enumerate(attached, FIRST_SLOT):
        command += machine.attach(machine.Disk(path, slot=slot))
    # A machine that goes on for ever raises, with what it said so far.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=BOOT_TIMEOUT_S, check=True)
    return done.stdout.decode("ascii", "replace")


@pytest.fixture(scope="module")
def said(tmp_path_factory, binaries, containers):
    """[(key, value)] of the smoke test's lines, and everything else that was on the console."""
    files = {"EFI/BOOT/BOOTAA64.EFI": binaries / "smoke.efi",
             "EFI/BOOT/driver.efi": binaries / "qcow2aa64.efi"}
    console = boot(tmp_path_factory.mktemp("boot"), files, [disk.path for disk in containers])
    return [(key, int(value, 16)) for key, value in
            re.findall(r"smoke: (\w+) ([0-9a-f]{16})", console)], console


def test_what_firmware_asks_of_a_binary(binaries):
    for name, subsystem in (("qcow2aa64.efi", pe.BOOT_DRIVER), ("qcow2.efi", pe.APPLICATION)):
        image = pe.parse((binaries / name).read_bytes())
        assert list(pe.complaints(image, pe.MACHINES["aa64"], subsystem)) == []


def test_limits_of_size(binaries):
    run = subprocess.run([sys.executable, ROOT / "tests/rig/size.py", "--build", binaries.parent,
                          "--arch", "aa64"], capture_output=True, text=True, timeout=60,
                         check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "qcow2aa64.efi: " in run.stdout


def test_read_write_flush(said, containers):
    """Every call succeeds, and what is read is what QEMU wrote, then what was written here."""
    lines, console = said
    assert lines[:2] == [("load", 0), ("start", 0)], console
    wanted = []
    for number, disk in enumerate(containers, 1):
        after = changed(disk.before, number)
        wanted += [("image", number), ("sectors", DISK_BYTES // 512),
                   ("crc", zlib.crc32(disk.before)), ("write", 0), ("flush", 0),
                   ("crc", zlib.crc32(after))]
    assert lines[2:] == wanted + [("images", len(containers))], console


def test_disks_afterwards(said, containers):
    """Nothing is wrong with the images on the disks, and they hold what was written."""
    for number, disk in enumerate(containers, 1):
        assert judge_disk(disk) == changed(disk.before, number)


def test_console(said, containers):
    """One line an image."""
    lines = [line.rstrip("\r") for line in said[1].splitlines() if "qcow2: " in line]
    assert len(lines) == len(containers)
    assert all(line.endswith(": 3.0 MiB, 64 KiB clusters") for line in lines), lines


def test_boot_program(tmp_path, binaries):
    """It finds the driver and the loader by their names on Arm; here that is the smoke test."""
    esp = disks.make_fat(tmp_path / "fat", {"EFI/BOOT/BOOTAA64.EFI": binaries / "smoke.efi"})
    inside = disks.write_gpt(tmp_path / "inside", [(disks.ESP_TYPE, esp)], name="inside")
    disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", inside, tmp_path / "image")
    disk = disks.write_gpt(tmp_path / "disk", [(disks.DATA_TYPE, tmp_path / "image")], name="disk")
    files = {"EFI/BOOT/BOOTAA64.EFI": binaries / "qcow2.efi",
             "EFI/BOOT/qcow2aa64.efi": binaries / "qcow2aa64.efi"}
    console = boot(tmp_path, files, [disk])
    assert "qcow2: starting \\EFI\\BOOT\\BOOTAA64.EFI from " in console, console
    assert "smoke: images 0000000000000001" in console, console
