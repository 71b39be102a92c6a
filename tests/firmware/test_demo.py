# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The demo reaches Linux through the driver, and fails, saying why, whenever that is not so."""

import argparse
import os
import secrets
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import demo
import machine
import vm
from conftest import ROOM, judge, select
from images import disks
from images.demo import demo_disks, unified_kernel
from images.kernel import kernel

RIG = Path(demo.__file__).parent
TIMEOUT_S = 200
NONCE = "00112233"
GOOD = f"payload: OK\nqcow2-efi: inside, nonce {NONCE}, payload ok\n"


def program(name, *arguments):
    return subprocess.run([sys.executable, RIG / name, *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=TIMEOUT_S, check=False)


def last_line(done):
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("layout,image", [("partition", "plain"), ("disk", "zstd"),
                                          ("partition", "overlay")])
def test_linux_is_reached(build, layout, image):
    done = program("demo.py", "--build", build, "--layout", layout, "--image", image)
    assert last_line(done) == "run: Linux reached through the driver, nonce equal"
    assert done.returncode == 0
    assert "\x1b" not in done.stdout and "Linux version" in done.stdout


@pytest.mark.parametrize("layout,image,broken,reason", [
    ("partition", "overlay", "nodriver",
     "the boot program gave up: qcow2: driver qcow2x64.efi not found"),
    ("disk", "plain", "byte", "the kernel in the qcow2 is damaged: "),
    ("disk", "zlib", "byte", "the boot program gave up: qcow2: \\EFI\\BOOT\\BOOTX64.EFI from "),
], ids=["nodriver", "byte", "byte-zlib"])
def test_broken_is_noticed(build, layout, image, broken, reason):
    done = program("demo.py", "--build", build, "--layout", layout, "--image", image,
                   "--break", broken)
    assert last_line(done).startswith(f"run: FAILED: {reason}")
    assert done.returncode == 1


def test_base_is_watched(build, tmp_path, monkeypatch):
    """One byte of the base that changes while the machine runs fails the run."""
    (tmp_path / "x64").symlink_to(build / "x64")
    options = argparse.Namespace(build=tmp_path, layout="disk", image="overlay", broken=None)

    def boot(_command, _nonce):
        with open(tmp_path / "demo/part3.raw", "r+b") as disk:
            disk.seek(disks.ALIGN + 12345)
            disk.write(b"!")

    monkeypatch.setattr(demo, "boot", boot)
    assert demo.run(options) == "the overlay's base was written"
    monkeypatch.setattr(demo, "boot", lambda _command, _nonce: None)
    assert demo.run(options) is None


def system_to_rewrite(folder, cache, build, nonce):
    """
    One disk: the boot program's ESP, and a qcow2 with a system whose volume has room for a second
    copy of it, all of which the qcow2 has yet to allocate.
    """
    vmlinuz = kernel(cache)
    uki = unified_kernel(folder / "uki.efi", vmlinuz, folder, nonce)
    room = folder / "room"
    with open(room, "wb") as file:
        file.truncate(uki.stat().st_size)
    volume = disks.make_fat(folder / "system.fat", {"EFI/BOOT/BOOTX64.EFI": uki, "ROOM": room})
    raw = disks.write_gpt(folder / "system.raw", [(disks.ESP_TYPE, volume)], name="system")
    qcow2 = folder / "system.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    os.truncate(qcow2, qcow2.stat().st_size + uki.stat().st_size + ROOM)
    esp = disks.make_esp(folder / "esp.fat", build / "x64/qcow2x64.efi", build / "x64/qcow2.efi")
    return disks.write_gpt(folder / "machine.raw",
                           [(disks.ESP_TYPE, esp), (disks.DATA_TYPE, qcow2)], name="machine")


def second_partition(disk, folder):
    """The qcow2 on the disk, as a file; qemu-img passes over what lies behind it."""
    content = disk.read_bytes()
    first_lba = struct.unpack_from("<Q", content, 2 * 512 + 128 + 32)[0]
    qcow2 = folder / "after.qcow2"
    qcow2.write_bytes(content[first_lba * 512:])
    return qcow2


def test_system_written_by_the_firmware(rig, build, cache, tmp_path):
    """
    The firmware copies the system inside the image, byte by byte, over to new clusters, and deletes
    the old one; the machine is then booted, and Linux finds this run's nonce in the copy.
    """
    nonce = secrets.token_hex(16)
    disk = system_to_rewrite(tmp_path, cache, build, nonce)
    orders = [select(part=2), "delete ROOM", "copy EFI\\BOOT\\BOOTX64.EFI EFI\\BOOT\\NEW.EFI",
              "delete EFI\\BOOT\\BOOTX64.EFI", "rename EFI\\BOOT\\NEW.EFI BOOTX64.EFI",
              "put EFI\\NOTE.BIN 5000 3", "unload"]
    report = rig.loaded(orders, vm.Kept(disk))
    for order in ("copy", "rename", "put", "delete", "unload"):
        assert {answer["status"] for answer in report.all(order)} == {"SUCCESS"}, order
    judge(second_partition(disk, tmp_path))
    command = machine.firmware(tmp_path) + ["-m", "512", "-serial", "stdio"]
    command += machine.attach(machine.Disk(disk))
    assert demo.boot(command, nonce) is None
    judge(second_partition(disk, tmp_path))


@pytest.mark.parametrize("device,own_esp", [("nvme", False), ("usb", True)])
def test_boot_an_image_of_ones_own(build, cache, tmp_path, device, own_esp):
    """With the boot program's ESP, and with a folder that has a loader but no driver."""
    made = demo_disks(tmp_path / "demo", cache, build / "x64/qcow2x64.efi",
                      build / "x64/qcow2.efi", "disk")
    arguments = ["--disk", made.disks[1], "--device", device]
    if own_esp:
        loader = tmp_path / "esp/EFI/BOOT/BOOTX64.EFI"
        loader.parent.mkdir(parents=True)
        loader.write_bytes((build / "x64/qcow2.efi").read_bytes())
        arguments += ["--esp", tmp_path / "esp"]
    done = program("boot.py", "--build", build, *arguments)
    assert f"nonce {made.nonce}, payload ok" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("arguments,words", [
    (["--disk", ""], "DISK is not set"),
    (["--disk", "/nowhere/image.qcow2"], "DISK=/nowhere/image.qcow2: no such file"),
    (["--disk", "/bin/sh", "--esp", "/nowhere"], "ESP=/nowhere: no such folder"),
    (["--disk", "/proc/self/mem"], "DISK=/proc/self/mem: Input/output error"),  # root's too
], ids=["unset", "missing", "esp", "unreadable"])
def test_boot_says_what_is_wrong(build, arguments, words):
    done = program("boot.py", "--build", build, *arguments)
    assert done.returncode == 2
    assert last_line(done).startswith(f"boot: {words}")


@pytest.mark.parametrize("text,ended,in_time,failure", [
    (GOOD, True, True, None),
    (GOOD, False, True, "the system was reached, but the machine did not power off"),
    (GOOD.replace(NONCE, "44"), True, True, "a system was reached, but not this run's"),
    (GOOD.replace("payload ok", "payload BAD"), True, True, "the system inside the qcow2 was"),
    ("", True, True, "the machine ended without reaching"),
    ("", False, False, "no system reached within"),
    (GOOD + "Kernel panic - not syncing: x\n", True, True, "the system inside the qcow2 died: "),
    ("invalid header\n\n -- System halted", False, True,
     "the kernel in the qcow2 is damaged: invalid header"),
    ("qcow2: starting x\nBdsDxe: failed to start Boot0001\n", False, True,
     "the boot program gave up"),
    ("qcow2: no volume\nqcow2: starting x\nBdsDxe: failed to start Boot0001\n", False, True,
     "the boot program gave up: qcow2: no volume"),
    ("Shell> ", False, True, "the firmware found nothing to start"),
], ids=["good", "stays-on", "other-nonce", "bad-payload", "ends-early", "time-out", "panic",
        "halted", "gave-up", "gave-up-why", "shell"])
def test_verdict(text, ended, in_time, failure):
    judged = demo.judge(text, demo.dead_end(text), ended, in_time, NONCE)
    assert judged is failure if failure is None else judged.startswith(failure)


@pytest.mark.parametrize("script,failure", [
    (f"printf '{GOOD}'", None),
    (f"printf '{GOOD}'; exit 3", "the system was reached, but the machine did not power off"),
    (f"printf '{GOOD}'; exec sleep 60", "the system was reached, but the machine did not"),
    ("exec sleep 60", "no system reached within"),
    ("printf 'Kernel panic - x\\n'; exec sleep 60", "the system inside the qcow2 died"),
], ids=["good", "status", "stays-on", "silent", "panic"])
def test_machine_is_ended(monkeypatch, script, failure):
    """A machine that hangs, before or after its verdict, costs the time-out and no more."""
    monkeypatch.setattr(demo, "BOOT_TIMEOUT_S", 2)
    judged = demo.boot(["sh", "-c", script], NONCE)
    assert judged is failure if failure is None else judged.startswith(failure)


def test_escapes_are_taken_out():
    script = "printf '\\033[2J\\033[01;01Hone\\033'; sleep 0.3; printf '[=3htwo\\r\\n'"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert "".join(demo.console(process, demo.time.monotonic() + 10)) == "onetwo\n"
