# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Block I/O 2 of an image: every answer of Block I/O, by each way a token offers.

The agent passes a success with an event on only if it was signalled once, after TransactionStatus
was set, and an error only if nothing was signalled: the answers below mean that, too.
"""

import pytest

import logwrites
import machine
import vm
from conftest import crc, judge_disk, select, virtio
from images import disks
from test_blockio import CHECKS, child_checks
from test_write import Writer

WAYS = ["without", "idle", "event"]
SUCCESS = {"status": "SUCCESS"}


@pytest.mark.parametrize("device", ["virtio", "ahci"])
def test_argument_checks(rig, device):
    """The same answers in the same order as Block I/O, on a disk with and without alignment."""
    orders = [order for way in ["plain", *WAYS] for order in (f"way {way}", "checks")]
    disk = machine.Disk(rig.image("data-v3-64k"), device)
    report = rig.loaded([select(device), "media child", *orders, "media child", "tpl"], disk)
    checks = child_checks(report)
    assert [line for line in checks if not line.endswith(" PASS")] == []
    align = int(report.all("media")[0]["align"])
    each = CHECKS + (3 * (align.bit_length() - 1) if align > 1 else 0)
    assert len(checks) == len(["plain", *WAYS]) * each
    assert report.all("media")[0] == report.all("media")[1]
    assert report.one("tpl")["tpl"] == "4"


@pytest.mark.parametrize("way", WAYS)
def test_medium_below(rig, way):
    report = rig.loaded([select(), f"way {way}", "medium gone", "tpl"],
                        virtio(rig.image("data-v3-64k")))
    checks = child_checks(report)
    assert len(checks) == 8 and all(line.endswith(" PASS") for line in checks), checks
    assert report.one("tpl")["tpl"] == "4"


def test_readonly(rig):
    """Nothing can be volatile there, so a flush is nothing to refuse; a write is."""
    disk = machine.Disk(rig.image("data-v3-64k"), readonly=True)
    report = rig.loaded([select(), "media child", "way event", "write child 0 8 1", "flush child",
                         "reset child"], disk)
    assert (report.one("media")["readonly"], report.one("media")["caching"]) == ("1", "0")
    assert report.one("write") == {"status": "WRITE_PROTECTED"}
    assert report.one("flush") == report.one("reset") == SUCCESS


@pytest.mark.parametrize("way", WAYS)
def test_written(rig, way):
    """Seeded writes, reads and flushes; what QEMU finds in the image is what was written."""
    disk = rig.container(f"ways-{way}", rig.image("data-v3-64k"))
    writer = Writer(rig.content(rig.image("data-v3-64k")), "blockio2", way)
    for _ in range(30):
        writer.step()
    report = rig.loaded([select(part=1), f"way {way}", *writer.orders, "sum child 1001",
                         "disconnect", "tpl"], disk)
    writer.judge(report)
    assert report.one("sum")["crc"] == crc(writer.content)
    assert report.one("tpl")["tpl"] == "4"
    assert judge_disk(disk) == writer.content


def test_errors_signal_nothing(rig):
    """A disk below that fails: the error is the call's own, and no event comes after it."""
    disk = rig.container("signalled", rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), "way event", "fault all", "read child 1024 8",
                         "write child 1024 8 1", "flush child", "fault none", "read child 1024 8"],
                        disk)
    failed, good = report.all("read")
    assert failed["status"] == report.one("write")["status"] == "DEVICE_ERROR"
    content = rig.content(rig.image("data-v3-64k"))
    assert good == {"status": "SUCCESS", "crc": crc(content[1024 * 512:1032 * 512])}


def test_reset_of_a_failed_image(rig):
    """An image that takes no more writes can be reset: Disk I/O does not let go without that."""
    disk = rig.container("failed", rig.image("empty-v3-64k"))
    report = rig.loaded([select(part=1), "way event", "fault flush", "write child 0 8 1",
                         "fault none", "flush child", "reset child", "media child", "disconnect"],
                        disk)
    assert report.one("write") == report.one("flush") == {"status": "DEVICE_ERROR"}
    assert report.one("media")["readonly"] == "1"
    assert report.one("reset") == report.one("disconnect") == SUCCESS


def test_flush_is_behind_writes(rig):
    """When the event of a flush is signalled, everything submitted before it is on the disk."""
    disk = rig.container("ordered", rig.image("empty-v3-64k"), log=True)
    before = disk.path.read_bytes()
    stream = [f"write child {number * 128} 8 1" for number in range(40)]
    report = rig.loaded([select(part=1), "way event", *stream, "flush child"], disk)
    assert report.all("write") == [SUCCESS] * 40 and report.one("flush") == SUCCESS
    after = bytearray(before)
    for writes in logwrites.segments(logwrites.entries(disk.log))[:-1]:
        logwrites.apply(after, writes)
    disk.path.write_bytes(after)
    found = judge_disk(disk)
    for number in range(40):
        assert found[number * 65536:][:4096] == vm.pattern(1, number * 128, 8)


def test_next_request_from_the_event(rig):
    """A client may submit its next request in the notification of the last one."""
    image = rig.image("data-v3-64k")
    report = rig.loaded([select(), "chain 256", "tpl"], virtio(image))
    assert report.one("chain") == {"status": "SUCCESS", "done": "256",
                                   "crc": crc(rig.content(image)[:256 * 512])}
    assert report.one("tpl")["tpl"] == "4"


@pytest.fixture(scope="module")
def volume(rig):
    """An image with a partition, and in it a file system."""
    fat = disks.make_fat(rig.folder / "blockio2.fat", {"A.BIN": rig.image("data-v3-64k")})
    raw = disks.write_gpt(rig.folder / "blockio2.raw", [(disks.ESP_TYPE, fat)], name="blockio2")
    qcow2 = rig.folder / "blockio2.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    return qcow2


def test_those_above(rig, volume):
    """Partitions in the image get the protocol too, and Disk I/O 2 works on it, byte by byte."""
    disk = rig.container("above", volume)
    report = rig.loaded([select(part=1), "layers", "disk2 400001 70001 5",
                         "reconnect 2", "layers", "file A.BIN", "disconnect", "tpl"],
                        disk)
    assert report.all("layers") == [{"blockio2": "1", "media": "1", "diskio2": "1", "volume2": "1",
                                     "volumedisk2": "1"}] * 2
    assert report.one("disk2") == {"write": "SUCCESS", "written": "SUCCESS", "flush": "SUCCESS",
                                   "flushed": "SUCCESS", "read": "SUCCESS", "equal": "1"}
    assert report.one("reconnect") == {"worst": "SUCCESS"}
    assert report.one("tpl")["tpl"] == "4"
    found = judge_disk(disk)
    assert found[400001:470002] == vm.pattern(5, 0, 137)[:70001]


def test_after_boot_services(rig):
    """The end of boot services ends Block I/O 2 with the rest."""
    report = rig.loaded([select(), "exit"], virtio(rig.image("data-v3-64k")))
    assert report.one("exit2") == {"read": "DEVICE_ERROR", "write": "DEVICE_ERROR",
                                   "flush": "DEVICE_ERROR"}
