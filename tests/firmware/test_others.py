# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The driver among others: twins of a disk, images in images, the EFI shell, disks that are pulled.

What the firmware does to a driver that it shares a machine with, in any order and many times over:
nothing hangs, nothing is lost that was flushed, nothing stays behind, and no image harms another.
"""

import os
import re
import shutil
import struct
import time

import pytest

import machine
import vm
from conftest import DRIVER, crc, judge_disk, select, virtio
from console import PROMPT, USB_CONTROLLER, Console
from images import disks, loaders

SECTOR = 512
SUCCESS = {"status": "SUCCESS"}
ROUNDS = 50
SHELL_ROUNDS = 5
CONTENT = bytes(range(253)) * 7000
PAGES_A_ROUND_MAX = 2  # what OVMF itself keeps of each "reconnect -r" is one
POLLS_MAX = 30
LONG_TIMEOUT_S = 300


def with_room(folder, name, content):
    """A qcow2 with a volume with that file, A, and room for two more of its size."""
    volume = disks.make_fat(folder / f"{name}.fat", {file: content for file in "ABC"})
    disks.run("mdel", "-i", volume, "::B", "::C")
    raw = disks.write_gpt(folder / f"{name}.disk", [(disks.ESP_TYPE, volume)], name=name)
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / f"{name}.qcow2")
    return folder / f"{name}.qcow2"


@pytest.fixture(scope="module")
def content(rig):
    path = rig.folder / "content.bin"
    path.write_bytes(CONTENT)
    return path


def test_reconnects_between_writes(rig, content):
    """
    The disk's own driver and all above it go and come back after every write, none of them flushed
    by the writer. What others keep of many rounds is what they keep of one.
    """
    disk = rig.container("rounds", with_room(rig.folder, "rounds-in", content),
                         whole=True)
    one = ["put F0 3000 1", "reconnect 1"]
    rounds = []
    for number in range(ROUNDS):
        rounds += [f"put F{number} 3000 {number}", "reconnect 1"]
    report = rig.loaded([select(), *one, "handles", "opens", "watch begin", *one, "watch end",
                         "watch begin", *rounds, "watch end", "handles", "opens", "tpl", "unload"],
                        disk)
    assert report.all("put") == [SUCCESS] * (ROUNDS + 2)
    assert report.all("reconnect") == [{"worst": "SUCCESS"}] * (ROUNDS + 2)
    before, after = report.all("handles")
    assert before == after and before["children"] == "1"
    assert report.all("opens")[0] == report.all("opens")[1]
    first, second = report.all("watch")
    for kind in ("pool", "pages", "events", "others", "lost"):
        assert first[kind] == second[kind]
    assert report.one("tpl")["tpl"] == "4" and report.one("unload") == SUCCESS
    inside = judge_disk(disk, whole=True)
    for number in range(ROUNDS):
        wanted = vm.pattern(number, 0, 6)[:3000]
        assert loaders.take_file(inside, rig.folder, f"F{number}") == wanted


def test_twins(rig):
    """Two disks alike to the last byte, all GUIDs included: each takes its own writes alone."""
    first = rig.container("twin", rig.image("empty-v3-64k"))
    second = vm.Kept(rig.folder / "twin2.raw", "ahci", slot=vm.SLOTS["ahci"])
    shutil.copyfile(first.path, second.path)
    twins = ((first, (0, 1024)), (second, (2048, 256, 0)))
    orders = []
    for disk, sectors in twins:
        orders += [select(disk.device, 1), *[f"write child {at} 8 {disk.slot}" for at in sectors]]
    for disk, _ in twins:
        orders += [select(disk.device, 1), "reconnect 1", "sum child 64"]
    report = rig.loaded([*orders, "handles", "unload"], first, second)
    assert report.all("select") == [{"found": "1", "child": "1"}] * 4
    assert report.all("write") == [SUCCESS] * 5
    assert report.one("handles")["children"] == "2" and report.one("unload") == SUCCESS
    sums = []
    for disk, sectors in twins:
        expected = bytearray(rig.content(rig.image("empty-v3-64k")))
        for at in sectors:
            expected[at * SECTOR:(at + 8) * SECTOR] = vm.pattern(disk.slot, at, 8)
        assert judge_disk(disk) == expected
        sums.append(crc(expected))
    assert [answer["crc"] for answer in report.all("sum")] == sums


def test_images_in_an_image(rig):
    """On a partition of an image, or all of it: they are left alone, without a word or a write."""
    inner = rig.image("data-v3-64k")
    raw = disks.write_gpt(rig.folder / "nest.raw", [(disks.DATA_TYPE, inner)] * 2, name="nest")
    contents = {"partitions": raw, "all": inner}
    held = []
    for device, name in (("virtio", "partitions"), ("ahci", "all")):
        qcow2 = rig.folder / f"{name}.qcow2"
        disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", contents[name], qcow2)
        held.append(rig.container(f"nest-{name}", qcow2, device))
    before = [disk.path.read_bytes() for disk in held]
    report = rig.loaded(["console", "handles", "connect", select(), "reconnect 2", "handles",
                         "console", "unload"], *held)
    assert [answer["children"] for answer in report.all("handles")] == ["2", "2"]
    assert len(report.console()) == 2 and report.one("unload") == SUCCESS
    assert [disk.path.read_bytes() for disk in held] == before


@pytest.mark.parametrize("is_late", [False, True], ids=["first", "late"])
def test_first_in_line(rig, is_late):
    """
    A container whose first sector is a partition table as well: the driver is asked before those
    of partitions. One that they have already is theirs, until somebody disconnects them.
    """
    path = rig.folder / f"signed-{is_late}.qcow2"
    content = bytearray(rig.image("data-v2-64k").read_bytes())
    assert not any(content[446:SECTOR])
    content[446:SECTOR] = struct.pack("<B3sB3sII48xH", 0, b"\0\2\0", 0x83, b"\xff\xff\xff", 64,
                                      1024, 0xAA55)
    path.write_bytes(content)
    orders = ["connect"] if is_late else []
    report = rig.run([*orders, f"load {DRIVER}", "connect", select(), select(part=1), select(),
                      "disconnect", "connect", select(part=1), select(), "sum child 64"],
                     virtio(path))
    ours = [("1", "1"), ("0", "0"), ("1", "1")]
    theirs = [("1", "0"), ("1", "0"), ("1", "0")]
    found = [(answer["found"], answer["child"]) for answer in report.all("select")]
    assert found[:3] == (theirs if is_late else ours)
    assert found[3:] == ours[1:]
    assert report.one("sum")["crc"] == crc(rig.content(path))


def alias(said, *parts):
    """The shell's name for the file system whose path contains all parts; None without one."""
    for name, path in re.findall(r"FS\d+: Alias\(s\):(\w+:).*\n\s+(\S+)", said):
        if all(part in path for part in parts):
            return name
    return None


def shell_machine(rig, scratch, files, *attached):
    """Its only loader is the firmware's own shell, whose volume has the driver and files."""
    driver = rig.build / "x64/qcow2x64.efi"
    volume = disks.make_fat(scratch / "shell.fat", {"qcow2x64.efi": driver,
                                                    "other/qcow2x64.efi": driver, **files})
    system = disks.write_gpt(scratch / "shell.raw", [(disks.ESP_TYPE, volume)], name="shell")
    command = machine.firmware(scratch) + ["-m", "256"] \
        + machine.attach(machine.Disk(system, slot=vm.ESP_SLOT))
    for disk in attached:
        command += machine.attach(disk)
    return command


def free_pages(said):
    return int(re.search(r"Available :\s+([\d,]+) Pages", said)[1].replace(",", ""))


def test_shell(rig, content, tmp_path):
    """
    "reconnect -r", under which all of the machine goes and comes back, while files are copied; and
    a second copy of the driver from another place, which leaves the first as it is.
    """
    disk = rig.container("shell", with_room(tmp_path, "shell-in", content))
    script = loaders.written(tmp_path, "rounds.nsh", f"""\
@echo -off
for %n run (1 {SHELL_ROUNDS})
  cp -q %1\\one.bin %2\\copy.bin
  reconnect -r
  comp %1\\one.bin %2\\copy.bin
  rm %2\\copy.bin
endfor
""")
    command = shell_machine(rig, tmp_path, {"one.bin": content, "rounds.nsh": script}, disk)
    with Console(command, tmp_path) as console:
        console.enter_shell()
        console.shell("load fs0:\\qcow2x64.efi")
        mapped = console.shell("map -r")
        ours, theirs = alias(mapped, "VenMedia"), alias(mapped, "Pci(0xF")
        assert "Already started" in console.shell(f"load {theirs}\\other\\qcow2x64.efi")
        console.shell("reconnect -r")
        handles = console.shell("dh")
        said = console.shell(f"{theirs}\\rounds.nsh {theirs} {ours}")
        assert said.count("no differences encountered") == SHELL_ROUNDS
        # The shell itself keeps memory of every cp, so they are not what this counts.
        pages = free_pages(console.shell("memmap"))
        for _ in range(SHELL_ROUNDS):
            console.shell("reconnect -r")
        assert pages - free_pages(console.shell("memmap")) <= PAGES_A_ROUND_MAX * SHELL_ROUNDS
        assert console.shell("dh").count("\n") == handles.count("\n")
        console.shell(f"cp -q {theirs}\\one.bin {ours}\\kept.bin")
        console.type("reset -s\r")
        assert console.ended() == vm.EXIT_OFF
    assert loaders.take_file(judge_disk(disk), tmp_path, "kept.bin") == CONTENT


def wait_for_volume(console, *parts, gone=False):
    """Its alias, once the firmware has noticed that it is there, or gone."""
    for _ in range(POLLS_MAX):
        found = alias(console.shell("map -r"), *parts)
        if (found is None) == gone:
            return found
        time.sleep(1)
    raise console.failure(f"the volume on {parts} is {'still' if gone else 'not'} there")


def stick_machine(rig, scratch, content):
    """(command, the image's disk that stays, the stick's)"""
    fixed = rig.container("fixed", with_room(scratch, "fixed-in", content))
    stick = rig.container("stick", with_room(scratch, "stick-in", content), "usb")
    return shell_machine(rig, scratch, {"one.bin": content}, fixed) + USB_CONTROLLER, fixed, stick


def plug_in(console, stick):
    """The alias of the volume in its image, which nobody connects but the firmware itself."""
    console.plug(stick.path)
    return wait_for_volume(console, "USB(", "VenMedia")


def assert_copied(console, scratch, content, *disks_left):
    """Files go onto the volumes of all images, and lie there when the machine is off."""
    for disk in disks_left:
        mapped = console.shell("map -r")
        theirs = alias(mapped, "Pci(0xF")
        ours = alias(mapped, "VenMedia", "USB(" if disk.device == "usb" else "Pci(0x10")
        assert "cp: " not in console.shell(f"cp -q {theirs}\\one.bin {ours}\\kept.bin")
    console.type("reset -s\r")
    assert console.ended() == vm.EXIT_OFF
    for disk in disks_left:
        inside = judge_disk(disk, leaks=True)
        assert loaders.take_file(inside, scratch, "kept.bin") == content.read_bytes()


def test_stick_is_pulled(rig, content, tmp_path):
    """
    The firmware notices, and the image goes; all else goes on. The stick comes back, and so does
    its image. Nobody says anything to the driver but the firmware's own driver of the bus.
    """
    command, fixed, stick = stick_machine(rig, tmp_path, content)
    with Console(command, tmp_path) as console:
        console.enter_shell()
        console.shell("load fs0:\\qcow2x64.efi")
        handles = console.shell("dh")
        ours = plug_in(console, stick)
        theirs = alias(console.shell("map -r"), "Pci(0xF")
        assert "cp: " not in console.shell(f"cp -q {theirs}\\one.bin {ours}\\first.bin")
        console.unplug()
        wait_for_volume(console, "USB(", gone=True)
        assert console.shell("dh").count("\n") == handles.count("\n")
        ours = plug_in(console, stick)
        theirs = alias(console.shell("map -r"), "Pci(0xF")
        compared = console.shell(f"comp {theirs}\\one.bin {ours}\\first.bin")
        assert "no differences encountered" in compared
        assert_copied(console, tmp_path, content, fixed, stick)


def test_stick_is_pulled_in_a_copy(request, rig, tmp_path):
    """
    OVMF's driver of the stick tries for a long time, fails the copy, and by that has lost the sign
    that the stick is gone: its image stays until something else is plugged in. Then it must go,
    with all that it could not write, and what comes is attached.
    """
    if not request.config.getoption("--long"):
        pytest.skip("a minute of time-outs in the firmware")
    large = tmp_path / "large.bin"
    large.write_bytes(CONTENT * 5)
    command, fixed, stick = stick_machine(rig, tmp_path, large)
    with Console(command, tmp_path) as console:
        console.enter_shell()
        console.shell("load fs0:\\qcow2x64.efi")
        ours = plug_in(console, stick)
        theirs = alias(console.shell("map -r"), "Pci(0xF")
        before = os.stat(stick.path).st_mtime_ns
        console.type(f"cp -q {theirs}\\one.bin {ours}\\copy.bin\r")
        console.wait_for(lambda: os.stat(stick.path).st_mtime_ns != before)
        console.unplug()
        assert "cp: " in console.wait(r"copy\.bin\n(?:.*\n)*?" + PROMPT, LONG_TIMEOUT_S)
        console.plug(stick.path)
        for _ in range(POLLS_MAX):
            compared = console.shell(f"comp {theirs}\\one.bin {ours}\\A")
            if "no differences encountered" in compared:
                break
            time.sleep(1)
        assert "no differences encountered" in compared
        assert_copied(console, tmp_path, large, fixed, stick)


def test_wrapped_binding(rig):
    """Tools put proxies into the installed structure: all goes through them, and they can leave."""
    image = rig.image("data-v3-64k")
    report = rig.loaded([select(part=1), "wrap begin", "reconnect 3", "wrap end", "reconnect 1",
                         "sum child 64", "unload"],
                        virtio(rig.partitioned("wrapped", [image])))
    assert report.all("wrap") == [{}, {"asked": "1", "started": "3", "stopped": "6"}]
    assert report.all("reconnect") == [{"worst": "SUCCESS"}] * 2
    assert report.one("sum")["crc"] == crc(rig.content(image))
    assert report.one("unload") == SUCCESS
