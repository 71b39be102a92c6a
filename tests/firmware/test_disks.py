# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every kind of disk that the firmware drives, with every block size it can have.

On each the same requests: parts of the disk's blocks and wholes, over the edges of clusters and
tables and up to the end, as long as the agent's buffer, from buffers as misaligned as the disk
allows. What the firmware read, what QEMU then finds in the image, and what the disk was told to
keep is judged. A disk that takes no writes gives an image that takes none.

Left to others: the kinds of images (test_read.py, test_write.py), power cuts (test_crash_fw.py).
"""

import os
import re
from pathlib import Path

import pytest

import logwrites
import machine
import vm
from conftest import crc, judge_disk
from images import disks

SECTOR = 512
CLUSTER = 8  # sectors
TABLE = 512 * CLUSTER  # sectors that one L2 table maps
GUEST = 12 * disks.MIB // SECTOR - 3  # ends inside a cluster
ROOM = 20 * disks.MIB
AGENT = Path(__file__).parent / "agent" / "agent.h"
NO_FLUSH = ", no flush: safe against a crash of the system, not against power loss"
SUCCESS = {"status": "SUCCESS"}

# What OVMF's driver asks of a buffer; whether a flush, or each write, makes the disk keep it.
IO_ALIGN = {"virtio": 0, "scsi": 0, "usb": 0, "ahci": 8, "nvme": 8}
KEEPS = {"virtio", "scsi", "nvme"}
ERASES = [(TABLE + 99, 300), (2 * TABLE, CLUSTER)]  # [(lba, count)]
MACHINES = {
    "512": [("virtio", 512), ("scsi", 512), ("usb", 512), ("ahci", 512)],
    "4096": [("virtio", 4096), ("scsi", 4096), ("usb", 4096)],
    "nvme": [("nvme", 512), ("nvme", 4096)],
}


def longest():
    """Sectors of the longest request: what the agent's buffer holds."""
    found = re.search(r"AGENT_BUFFER_BYTES +\((\d+)u << (\d+)\)", AGENT.read_text())
    return (int(found[1]) << int(found[2])) // SECTOR


def writes():
    """[(lba, count, off)], later ones partly over earlier ones."""
    long = longest()
    return [(0, 1, 0), (3, 1, 1), (13, 6, 2), (16, 8, 0), (CLUSTER * 9 - 1, 2, 3),
            (TABLE + 8 * CLUSTER, long, 0), (TABLE - 3, long, 1), (2 * TABLE - 3, 7, 1),
            (GUEST - 9, 9, 1), (GUEST - 1, 1, 0)]


def reads():
    return [(0, 1, 1), (2, 17, 3), (CLUSTER * 9 - 2, 5, 0), (TABLE - 1, 2, 1),
            (TABLE - 9, longest(), 3), (GUEST - 3, 3, 2)]


@pytest.fixture(scope="module")
def image(rig):
    """Data at the edges of the first table: some writes change clusters, others take new ones."""
    path = rig.folder / "every.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER * SECTOR}",
              path, str(GUEST * SECTOR))
    disks.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 30k", "-c",
              f"write -q -P 9 {(TABLE - 40) * SECTOR} 90k", path)
    return path


@pytest.fixture(scope="module")
def content(rig, image):
    """What the image holds after writes() and ERASES."""
    content = bytearray(rig.content(image))
    for number, (lba, count, _off) in enumerate(writes(), 1):
        content[lba * SECTOR:(lba + count) * SECTOR] = vm.pattern(number, lba, count)
    for lba, count in ERASES:
        content[lba * SECTOR:(lba + count) * SECTOR] = bytes(count * SECTOR)
    return content


def disk_with(rig, image, slot, device, block_bytes):
    name = f"every-{device}-{block_bytes}"
    disk = rig.container(name, image, device, block_bytes, ROOM, log=device in KEEPS, whole=True)
    disk.slot = slot
    return disk


def orders_of(disk):
    """All that is asked of the image on this disk; its first and last sector are written twice."""
    orders = [f"select {disk.slot} 0", "media parent", "media child", "checks"]
    orders += [f"write child {lba} {count} {number} {off}"
               for number, (lba, count, off) in enumerate(writes(), 1)]
    orders += [f"erase {lba} {count}" for lba, count in ERASES]
    orders += ["flush child", *(f"read child {lba} {count} {off}" for lba, count, off in reads())]
    return [*orders, "sum child 1001"]


def judge_answers(answers, disk, content):
    """The next answers in the report are those to orders_of(disk)."""
    below, child = next(answers["media"]), next(answers["media"])
    assert (below["block"], below["readonly"]) == (str(disk.block_bytes), "0")
    assert (child["block"], child["readonly"], child["align"]) == ("512", "0", below["align"])
    assert int(child["align"]) == IO_ALIGN[disk.device], disk.device
    assert int(child["last"]) == GUEST - 1
    assert [next(answers["write"]) for _ in writes()] == [SUCCESS] * len(writes())
    for lba, count, off in reads():
        part = crc(content[lba * SECTOR:(lba + count) * SECTOR])
        assert next(answers["read"]) == {"status": "SUCCESS", "crc": part}, (disk, lba, count, off)
    assert next(answers["sum"]) == {"status": "SUCCESS", "blocks": str(GUEST), "crc": crc(content)}


def assert_kept(disk):
    """Whatever was written was followed by a flush."""
    found = logwrites.entries(disk.log)
    assert any(entry.data for entry in found)
    assert logwrites.segments(found)[-1] == []


def failed_checks(report):
    return [line for line in report.lines if line.startswith("check ")
            and not line.endswith(" PASS")]


@pytest.mark.parametrize("kind", MACHINES)
def test_every_disk(rig, image, content, kind):
    slots = range(vm.SLOTS["nvme"], vm.SLOTS["nvme"] + 8)
    attached = [disk_with(rig, image, slot if kind == "nvme" else vm.SLOTS[device], device, blocks)
                for slot, (device, blocks) in zip(slots, MACHINES[kind])]
    orders = [order for disk in attached for order in orders_of(disk)]
    report = rig.loaded(["console", *orders, "unload", "tpl"], *attached, cold=kind == "nvme")
    lines = report.console()
    assert len(lines) == len(attached)
    assert failed_checks(report) == []
    misaligned = sum("misaligned" in line for line in report.lines)
    assert (misaligned > 0) == any(IO_ALIGN[disk.device] > 1 for disk in attached)
    assert report.all("flush") == [SUCCESS] * len(attached)
    assert {answer["status"] for answer in report.all("erase")} == {"SUCCESS"}
    assert report.one("unload") == SUCCESS and report.one("tpl")["tpl"] == "4"
    answers = {order: iter(report.all(order)) for order in ("media", "write", "read", "sum")}
    for disk, line in zip(sorted(attached, key=lambda disk: disk.slot), lines):
        assert line.endswith(" 4 KiB clusters" + ("" if disk.device in KEEPS else NO_FLUSH))
    for disk in attached:
        judge_answers(answers, disk, content)
        assert judge_disk(disk, whole=True) == content
        if disk.log:
            assert_kept(disk)



def protected(rig, image, slot, device, block_bytes):
    """The image as a disk with room that QEMU does not write to, whatever it is asked."""
    path = rig.folder / f"protected-{device}.raw"
    path.write_bytes(image.read_bytes())
    os.truncate(path, disks.round_up(path.stat().st_size, disks.MIB) + disks.MIB)
    return machine.Disk(path, device, block_bytes, readonly=True, slot=slot)


def test_write_protected(rig, image):
    """A disk that says it takes no writes gives an image that takes none, and says so."""
    devices = (("virtio", 4096), ("usb", 512))
    attached = [protected(rig, image, vm.SLOTS[device], device, blocks)
                for device, blocks in devices]
    orders = ["console"]
    for disk in attached:
        orders += [f"select {disk.slot} 0", "media parent", "media child", "checks", "checkwrites",
                   "erase 0 8", "flush child", "sum child 1001"]
    report = rig.loaded([*orders, "console", "unload"], *attached)
    assert [line.split(" clusters")[1] for line in report.console()] == [", read-only"] * 2
    assert [media["readonly"] for media in report.all("media")] == ["1"] * 4
    assert [media["caching"] for media in report.all("media")][1::2] == ["0"] * 2
    assert failed_checks(report) == [] and report.all("erase")[0]["status"] == "WRITE_PROTECTED"
    assert report.all("flush") == [SUCCESS] * 2 and report.one("unload") == SUCCESS
    assert {answer["crc"] for answer in report.all("sum")} == {crc(rig.content(image))}


def test_write_protected_unsaid(rig, image):
    """OVMF's drivers of these do not tell: a write fails, says why, and is nowhere to be read."""
    attached = [protected(rig, image, slot, device, 512)
                for slot, device in enumerate(("scsi", "nvme"), vm.SLOTS["nvme"])]
    orders = ["console"]
    for disk in attached:
        orders += [f"select {disk.slot} 0", "media parent", "write parent 40 1 1",
                   "write child 5 3 1", "flush child", f"write child {GUEST - 9} 9 1",
                   "sum child 1001", "console"]
    report = rig.loaded(orders, *attached, cold=True)
    assert [media["readonly"] for media in report.all("media")] == ["0"] * 2
    assert report.all("write") == [{"status": "DEVICE_ERROR"}] * 6
    assert report.all("flush") == [SUCCESS] * 2  # of nothing: no write was taken
    assert {answer["crc"] for answer in report.all("sum")} == {crc(rig.content(image))}
    errors = [line for line in report.console() if "clusters" not in line]
    assert all(re.search(r": write error: data at 0x\w+ cannot be written$", line)
               for line in errors)
    assert all(any(name in line for line in errors) for name in ("Scsi(", "NVMe("))
