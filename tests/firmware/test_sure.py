# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A failed assertion in firmware: that image turns read-only with a line, the machine goes on.

The driver is built with a promise of its own broken on purpose (core/seeded.h, own_fault): the
first flush that has a table to write fails, nothing of it lands, other images are untouched by it.
"""

import shutil

import pytest

import making
import vm
from conftest import Rig, crc, judge_disk, select
from images import disks

LINE = "internal fault: a table outside the disk: read-only"


@pytest.fixture(scope="module")
def faulty(build, cache, tmp_path_factory):
    """A build of its own, with the agent of the other one, and a way into the machine with it."""
    making.make(build / "own_fault", "SEEDED=own_fault", "firmware")
    shutil.copyfile(build / "x64/agent.efi", build / "own_fault/x64/agent.efi")
    return Rig(build / "own_fault", cache, tmp_path_factory.mktemp("own_fault"))


def test_failed_assertion(faulty):
    image = faulty.folder / "image.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    disks.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 1M", image)
    kept = [faulty.container(name, image, device, room=disks.MIB)
            for name, device in (("one", "virtio"), ("two", "scsi"))]
    before = b"\5" * disks.MIB + bytes(7 * disks.MIB)
    orders = [select("virtio", 1), "write child 0 128 1", "flush child",
              "write child 8192 8 2",
              "flush child", "write child 0 8 3", "flush child", "read child 0 128",
              "read child 8192 8",
              select("scsi", 1), "write child 8 8 4", "flush child", "read child 8 8", "console",
              "tpl", "unload"]
    report = faulty.loaded(orders, *kept)
    writes = [answer["status"] for answer in report.all("write")]
    assert writes == ["SUCCESS", "SUCCESS", "WRITE_PROTECTED", "SUCCESS"]
    assert [answer["status"] for answer in report.all("flush")] == \
        ["SUCCESS", "DEVICE_ERROR", "DEVICE_ERROR", "SUCCESS"]
    said = [line for line in report.console() if "fault" in line]
    assert len(said) == 1 and said[0].endswith(f": flush error: {LINE}; no more writes are taken")
    # What waited for its tables can be read as long as the machine runs.
    patterns = [vm.pattern(1, 0, 128), vm.pattern(2, 8192, 8), vm.pattern(4, 8, 8)]
    assert report.all("read") == [{"status": "SUCCESS", "crc": crc(part)} for part in patterns]
    assert report.one("tpl")["tpl"] == "4"
    assert report.one("unload") == {"status": "SUCCESS"}
    first, second = bytearray(before), bytearray(before)
    first[:len(patterns[0])] = patterns[0]
    second[8 * 512:16 * 512] = patterns[2]
    assert [judge_disk(disk) for disk in kept] == [first, second]
