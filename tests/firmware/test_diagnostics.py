# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Driver Diagnostics 2: the image as the controller under test.

The figures of an extended test are held against qemu-img's for the same bytes. No test changes a
byte of the disk, but for what was written before it and is made durable by it.
"""

import json
import subprocess

import pytest

import machine
from conftest import entry, image_of, select, virtio

PASSED = {"status": "SUCCESS", "returned": "0"}
FAILED = {"status": "DEVICE_ERROR", "returned": "0"}
UNSUPPORTED = "UNSUPPORTED"


def be64(image, off):
    return int.from_bytes(image[off:off + 8], "big")


def figures(path):
    """What qemu-img's check says, as the driver's line says it."""
    done = subprocess.run(["qemu-img", "check", "--output=json", "-f", "qcow2", path],
                          capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(done.stdout)
    return (f"corruptions {found.get('corruptions', 0)}, errors {found['check-errors']}, "
            f"leaked clusters {found.get('leaks', 0)}, "
            f"allocated {found['allocated-clusters']} of {found['total-clusters']}")


def leaking(image):
    """A count for a cluster that nobody names, the last one of the file."""
    block = be64(image, be64(image, 48))
    image += bytes(65536)
    image[block + 2 * (len(image) // 65536 - 1) + 1] = 1
    return image


def corrupt(image):
    """A cluster in use whose count says otherwise, and a wrong COPIED flag."""
    block = be64(image, be64(image, 48))
    table = be64(image, be64(image, 40)) & 0x00FFFFFFFFFFFE00
    image[block + 2 * ((be64(image, table + 16) & 0x00FFFFFFFFFFFE00) // 65536) + 1] = 0
    image[table + 24] &= 0x7F
    return image


def marked(image):
    image[79] |= 2
    return image


def test_arguments(rig):
    report = rig.loaded([select(), "checkdiagnose", "tpl"], virtio(rig.image("data-v3-64k")))
    checks = [line for line in report.lines if line.startswith("check ")]
    assert len(checks) == 12
    assert [line for line in checks if not line.endswith(" PASS")] == []
    assert report.one("tpl")["tpl"] == "4"


def damaged(rig, name, change):
    disk = rig.folder / f"diagnosed-{name}.qcow2"
    disk.write_bytes(change(bytearray(rig.image("data-v3-64k").read_bytes())))
    return disk


@pytest.mark.parametrize("change,standard,extended", [
    (bytearray, PASSED, PASSED),
    (leaking, PASSED, PASSED),
    (corrupt, PASSED, FAILED),
    (marked, FAILED, PASSED),
])
def test_verdicts(rig, change, standard, extended):
    """Both kinds on an image, called for the container and for the child, figures as QEMU's."""
    disk = damaged(rig, change.__name__, change)
    report = rig.loaded([select(), "console", "diagnose standard", "diagnose standard child",
                         "diagnose extended", "diagnose manufacturing child", "diagnose cancel",
                         "console", "tpl"], machine.Disk(disk))
    assert report.all("diagnose") == [standard, standard, extended, extended,
                                      {"status": UNSUPPORTED, "returned": "1"}]
    word = {str(PASSED): "passed", str(FAILED): "failed"}
    lines = [line.rsplit(")): ", 1)[-1].split("0100): ", 1)[-1] for line in report.console()[1:]]
    mark = "" if standard == PASSED else ", marked corrupt"
    assert lines == [f"test: {word[str(standard)]}{mark}"] * 2 + \
        [f"check: {word[str(extended)]}, {figures(disk)}"] * 2
    assert report.one("tpl")["tpl"] == "4"


@pytest.mark.parametrize("cluster", [0, 63])
def test_ends(rig, cluster):
    """A table entry that cannot be, for the first or the last cluster."""
    def change(image):
        table = be64(image, be64(image, 40)) & 0x00FFFFFFFFFFFE00
        image[table + 8 * cluster + 6] |= 2
        return image

    report = rig.loaded([select(), "console", "diagnose standard", "console"],
                        machine.Disk(damaged(rig, f"end{cluster}", change), readonly=True))
    assert report.one("diagnose") == FAILED
    assert ": test: failed, bad L2 entry " in report.console()[-1]


def test_image_in_use(rig):
    """What was written before is part of what is tested, and what is written after it works."""
    disk = rig.container("diagnosed", rig.image("data-v3-64k"))
    writes = [f"write child {number * 128 + 3} 200 4" for number in range(20)]
    report = rig.loaded([select(part=1), "fault write", "write child 0 8 1", "diagnose standard",
                         "fault none", "console", *writes, "diagnose extended", "console",
                         "write child 1 8 5", "read child 1 8", "disconnect"], disk)
    assert report.all("diagnose") == [PASSED, PASSED]
    assert [answer["status"] for answer in report.all("write")] == \
        ["DEVICE_ERROR"] + ["SUCCESS"] * 21
    assert report.one("read")["status"] == "SUCCESS"
    assert ": check: passed, corruptions 0, errors 0, leaked clusters " in report.console()[-1]
    after = disk.path.with_suffix(".after")
    after.write_bytes(image_of(disk.path.read_bytes()))
    assert figures(after).startswith("corruptions 0, errors 0, leaked clusters 0")


def test_nothing_is_changed(rig):
    """A test of a corrupt image writes nothing; nor does it turn the image read-only."""
    image = damaged(rig, "unchanged", corrupt)
    disk = rig.container("diagnosed-unchanged", image)
    before = disk.path.read_bytes()
    report = rig.loaded([select(part=1), "diagnose extended", "diagnose standard", "media child"],
                        disk)
    assert report.all("diagnose") == [FAILED, PASSED]
    assert report.one("media")["readonly"] == "0"
    assert disk.path.read_bytes() == before


@pytest.mark.parametrize("fault,line", [("all", "read"), ("empty", "failed, no medium")])
def test_disk_fails(rig, fault, line):
    """A disk that does not read fails its test, and one without a medium says so."""
    report = rig.loaded([select(), "console", f"fault {fault}", "read child 1024 8",
                         "diagnose standard", "diagnose extended", "console", "tpl"],
                        virtio(rig.image("data-v3-64k")))
    assert report.all("diagnose") == [FAILED, FAILED]
    said = report.console()[1:]
    assert ": test: failed, " in said[-2] and ": check: " in said[-1]
    assert fault == "all" or all(text.endswith(line) for text in said[-2:])
    assert report.one("tpl")["tpl"] == "4"


def test_not_opened(rig):
    """A snapshot's tables cannot be told from its counts alone; a base is no image of its own."""
    image = rig.image("snapshot-v2-64k")
    found = json.loads(subprocess.run(["qemu-img", "info", "--output=json", image], timeout=60,
                                      capture_output=True, check=True).stdout)["snapshots"][0]
    disk = machine.Disk(rig.partitioned("diagnosed-snapshot", [image]))
    lines = entry("a", "diagnosed-snapshot", 1, f"snapshot {found['name']}")
    report = rig.configured(lines, [select(part=1), "diagnose standard", "diagnose extended",
                                    "console"], disk)
    assert report.all("diagnose") == [PASSED, {"status": UNSUPPORTED, "returned": "0"}]
    assert report.console()[-1].endswith(": check: not done, a snapshot is open: not to be checked")
