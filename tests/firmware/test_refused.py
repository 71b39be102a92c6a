# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images the driver refuses: one line that names the reason, said once, and the disk stays usable.

All of them lie on one disk, each in a partition, so that one run of the machine shows them side by
side with an image that is taken.
"""

import re
import struct

import pytest

from conftest import crc, select, virtio
from images import disks

SMALL = "1M"

# name: (what qemu-img creates it with, pokes {host_off: bytes}, status, the console's words)
REFUSED = {
    "bit": ((), {72: struct.pack(">Q", 1 << 42)}, "UNSUPPORTED",
            r"unknown incompatible feature bit 42\b.*"),
    "version": ((), {4: struct.pack(">I", 4)}, "UNSUPPORTED", r"version 4 not supported"),
    "clusters": ((), {20: struct.pack(">I", 8)}, "VOLUME_CORRUPTED",
                 r"cluster_bits 8 out of range 9\.\.21"),
    "l1": ((), {40: struct.pack(">Q", 0)}, "VOLUME_CORRUPTED", r"L1 table offset 0x0 invalid"),
    "compression": (("-o", "compression_type=zstd"), {104: b"\2"}, "UNSUPPORTED",
                    r"compression type 2\b.*"),
    "luks": ((), {32: struct.pack(">I", 2)}, "UNSUPPORTED", r"encryption method 2\b.*"),
    "backing": (("-b", "base.qcow2", "-F", "qcow2"), {}, "ACCESS_DENIED",
                "backing name refused: no base in the configuration"),
    "vmdk": (("-u", "-b", "base.vmdk", "-F", "vmdk"), {}, "UNSUPPORTED",
             "backing format vmdk not supported"),
    "datafile": (("-o", "data_file=data.raw"), {}, "ACCESS_DENIED",
                 "backing name refused: no data file in the configuration"),
}
NAMES = list(REFUSED)
GOOD_PART = len(NAMES) + 1


def make_refused(folder, name):
    options, pokes, _, _ = REFUSED[name]
    path = folder / f"{name}.qcow2"
    size = () if name == "backing" else (SMALL,)
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", *options, path.name, *size, cwd=folder)
    with open(path, "r+b") as image:
        for host_off, content in pokes.items():
            image.seek(host_off)
            image.write(content)
    return path


@pytest.fixture(scope="module")
def refused(rig):
    """(the report of one machine with all of them, the disk's bytes)"""
    folder = rig.folder / "refused"
    folder.mkdir()
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", SMALL, cwd=folder)
    images = [make_refused(folder, name) for name in NAMES]
    disk = rig.partitioned("refused", images + [rig.image("data-v3-64k")])
    orders = ["console", "handles"]
    for part in range(1, GOOD_PART):
        orders += [select(part=part), "start", "opens", "read parent 0 8", "reconnect 2"]
    orders += [select(part=GOOD_PART), "sum child 64", "tpl", "console", "unload", "handles"]
    return rig.loaded(orders, virtio(disk)), images


@pytest.mark.parametrize("name", NAMES)
def test_refused(refused, name):
    report, images = refused
    number = NAMES.index(name)
    _, _, status, words = REFUSED[name]
    said = [line for line in report.console() if f"/HD({number + 1},GPT," in line]
    assert len(said) == 1
    assert re.fullmatch(r"qcow2: PciRoot\S*: refused: " + words, said[0])
    assert report.all("start")[number] == {"supported": "SUCCESS", "started": status, "child": "0"}
    assert report.all("opens")[number]["ours"] == "0"
    head = images[number].read_bytes()[:8 * 512]
    assert report.all("read")[number] == {"status": "SUCCESS", "crc": crc(head)}
    assert report.all("reconnect")[number] == {"worst": "SUCCESS"}


def test_others_are_taken(rig, refused):
    report, _ = refused
    assert [answer["children"] for answer in report.all("handles")] == ["1", "0"]
    assert report.one("sum")["crc"] == crc(rig.content(rig.image("data-v3-64k")))
    assert report.one("unload") == {"status": "SUCCESS"}
    assert report.one("tpl")["tpl"] == "4"
    # One line an image and not one more: the disks without an image are passed over in silence.
    assert len(report.console()) == len(NAMES) + 1


def test_foreign_disk_is_silent(rig):
    report = rig.loaded([select("ahci"), "start", "console", "opens"])
    assert report.one("start") == {"supported": "SUCCESS", "started": "UNSUPPORTED",
                                   "child": "0"}
    assert report.console() == []
    assert report.one("opens")["ours"] == "0"


def test_one_too_many(rig):
    """Six images are attached at once; a seventh is told so, and takes the place of one gone."""
    image = rig.image("fragmented-v3-512")
    disk = rig.partitioned("many", [image] * 7)
    report = rig.loaded(["handles", "console", select(part=7), "start", "sum parent 64", "opens",
                         select(part=2), "disconnect", select(part=7), "start", "sum child 64"],
                        virtio(disk))
    assert report.one("handles")["children"] == "6"
    refusals = [line for line in report.console() if ": refused: " in line]
    assert len(refusals) == 1 and refusals[0].endswith("no more images can be attached")
    first, second = report.all("start")
    assert first == {"supported": "SUCCESS", "started": "OUT_OF_RESOURCES", "child": "0"}
    assert second == {"supported": "SUCCESS", "started": "SUCCESS", "child": "1"}
    assert report.one("opens")["ours"] == "0"
    assert report.all("sum")[1]["crc"] == crc(rig.content(image))
