# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images the driver refuses, or takes for reading alone: one line that names the reason, said once,
and the disk stays usable and as it was.

All of them lie on one disk, each in a partition, so that one run of the machine shows them side by
side with an image that is taken and one whose damage a write meets.
"""

import re
import struct

import pytest

import vm
from conftest import crc, select, virtio
from images import disks

SMALL = "1M"
CLUSTER = 65536
REFUSALS = "refusal cases"
WRITTEN = ("-c", f"write -q -P 5 0 {3 * CLUSTER}")  # the L2 table is then the fifth cluster

# name: (what qemu-img creates it with, pokes {host_off: bytes}, status, the console's words)
REFUSED = {
    "bit": ((), {72: struct.pack(">Q", 1 << 42)}, "UNSUPPORTED",
            r"unknown incompatible feature bit 42\b.*"),
    "version": ((), {4: struct.pack(">I", 4)}, "UNSUPPORTED", r"version 4 not supported"),
    "clusters": ((), {20: struct.pack(">I", 8)}, "VOLUME_CORRUPTED",
                 r"cluster_bits 8 out of range 9\.\.21"),
    "l1": ((), {40: struct.pack(">Q", 0)}, "VOLUME_CORRUPTED", r"L1 table offset 0x0 invalid"),
    "l1size": ((), {36: struct.pack(">I", 4194305)}, "UNSUPPORTED",
               r"L1 table too large: 4194305 entries"),
    "extension": ((), {116: struct.pack(">I", CLUSTER)}, "VOLUME_CORRUPTED",
                  r"header extension 0x6803f857 invalid"),
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
# Silent: not one of its bytes is a header's, though nearly.
FOREIGN_PART = len(NAMES) + 1
# Taken for reading alone: pokes and the line's end.
READ_ONLY = {
    "corrupt": ({72: struct.pack(">Q", 2)}, "image is marked corrupt: read-only"),
    # Of the snapshot that make_read_only takes, whose table is the last cluster.
    "extra": ({-CLUSTER + 36: struct.pack(">I", 1025)}, "snapshot has 1025 bytes of extra data"),
}
READ_ONLY_PART = FOREIGN_PART + 1
# Guest cluster 1 is said to lie where the L1 table is.
DAMAGE = {4 * CLUSTER + 8: struct.pack(">Q", 1 << 63 | 3 * CLUSTER)}
DAMAGED_PART = READ_ONLY_PART + len(READ_ONLY)
GOOD_PART = DAMAGED_PART + 1


def poked(path, pokes):
    content = bytearray(path.read_bytes())
    for host_off, part in pokes.items():
        content[host_off:host_off + len(part)] = part
    path.write_bytes(content)
    return path


def make_refused(folder, name):
    options, pokes, _, _ = REFUSED[name]
    path = folder / f"{name}.qcow2"
    size = () if name == "backing" else (SMALL,)
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", *options, path.name, *size, cwd=folder)
    return poked(path, pokes)


def make_written(folder, name, pokes, has_snapshot=False):
    path = folder / f"{name}.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", path, SMALL)
    disks.run("qemu-io", "-f", "qcow2", *WRITTEN, path)
    if has_snapshot:
        disks.run("qemu-img", "snapshot", "-c", "one", path)
        size = disks.round_up(path.stat().st_size, CLUSTER)
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    return poked(path, pokes)


@pytest.fixture(scope="module")
def refused(rig):
    """(the report of one machine with all of them, the images, the disk after it)"""
    folder = rig.folder / "refused"
    folder.mkdir()
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", SMALL, cwd=folder)
    images = [make_refused(folder, name) for name in NAMES]
    foreign = folder / "foreign"
    foreign.write_bytes(b"QFI\xfa" + images[0].read_bytes()[4:])
    images.append(foreign)
    images += [make_written(folder, name, pokes, name == "extra")
               for name, (pokes, _) in READ_ONLY.items()]
    images += [make_written(folder, "damaged", DAMAGE), rig.image("data-v3-64k")]
    disk = vm.Kept(rig.partitioned("refused", images))
    orders = ["console", "handles"]
    for part in range(1, FOREIGN_PART + 1):
        orders += [select(part=part), "start", "opens", "read parent 0 8", "reconnect 2"]
    for part in range(READ_ONLY_PART, DAMAGED_PART):
        orders += [select(part=part), "media child", "write child 0 8 1", "read child 0 8"]
    orders += [select(part=DAMAGED_PART), "write child 128 8 1", "write child 128 8 1",
               "write child 0 8 1", "flush child", "read child 0 8", "media child"]
    orders += [select(part=GOOD_PART), "sum child 64", "tpl", "console", "unload", "handles"]
    return rig.loaded(orders, disk), images, disk.path.read_bytes()


def lines_of(report, part):
    return [line for line in report.console() if f"/HD({part},GPT," in line]


def part_of(disk_bytes, images, number):
    """What the disk holds where that image lies: partitions begin and end with whole MiB."""
    off = disks.ALIGN + sum(disks.round_up(image.stat().st_size, disks.ALIGN)
                            for image in images[:number - 1])
    return disk_bytes[off:off + images[number - 1].stat().st_size]


@pytest.mark.parametrize("name", NAMES)
def test_refused(refused, name, record_property):
    report, images, after = refused
    number = NAMES.index(name)
    _, _, status, words = REFUSED[name]
    said = lines_of(report, number + 1)
    assert len(said) == 1
    assert re.fullmatch(r"qcow2: PciRoot\S*: refused: " + words, said[0])
    assert report.all("start")[number] == {"supported": "SUCCESS", "started": status, "child": "0"}
    assert report.all("opens")[number]["ours"] == "0"
    head = images[number].read_bytes()[:8 * 512]
    assert report.all("read")[number] == {"status": "SUCCESS", "crc": crc(head)}
    assert report.all("reconnect")[number] == {"worst": "SUCCESS"}
    assert part_of(after, images, number + 1) == images[number].read_bytes()
    record_property(REFUSALS, 1)


def test_foreign_partition_is_silent(refused, record_property):
    report, images, after = refused
    assert lines_of(report, FOREIGN_PART) == []
    assert report.all("start")[FOREIGN_PART - 1]["started"] == "UNSUPPORTED"
    assert part_of(after, images, FOREIGN_PART) == images[FOREIGN_PART - 1].read_bytes()
    record_property(REFUSALS, 1)


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(refused, name, record_property):
    """It is read, its line says why it is not written, and nothing is."""
    report, images, after = refused
    number = list(READ_ONLY).index(name)
    part = READ_ONLY_PART + number
    said = lines_of(report, part)
    assert len(said) == 1 and said[0].endswith(f", {READ_ONLY[name][1]}")
    assert report.all("media")[number]["readonly"] == "1"
    assert report.all("write")[number] == {"status": "WRITE_PROTECTED"}
    assert report.all("read")[FOREIGN_PART + number] == {"status": "SUCCESS",
                                                         "crc": crc(b"\5" * 4096)}
    assert part_of(after, images, part) == images[part - 1].read_bytes()
    record_property(REFUSALS, 1)


def test_damage_is_met(refused, record_property):
    """DEVICE_ERROR and a line, then WRITE_PROTECTED and none; nothing is written but the mark, and
    what can be read is."""
    report, images, after = refused
    assert [answer["status"] for answer in report.all("write")[len(READ_ONLY):]] == \
        ["DEVICE_ERROR", "WRITE_PROTECTED", "WRITE_PROTECTED"]
    assert report.one("flush") == {"status": "SUCCESS"}
    assert report.all("read")[-1] == {"status": "SUCCESS", "crc": crc(b"\5" * 4096)}
    assert report.all("media")[-1]["readonly"] == "1"
    _, damage = lines_of(report, DAMAGED_PART)
    assert damage.endswith(": write error: cluster 0x30000 is metadata; no more writes are taken")
    marked = bytearray(images[DAMAGED_PART - 1].read_bytes())
    marked[79] |= 2
    assert part_of(after, images, DAMAGED_PART) == marked
    record_property(REFUSALS, 1)


def test_others_are_taken(rig, refused):
    report, _, _ = refused
    assert [answer["children"] for answer in report.all("handles")] == \
        [str(len(READ_ONLY) + 2), "0"]
    assert report.one("sum")["crc"] == crc(rig.content(rig.image("data-v3-64k")))
    assert report.one("unload") == {"status": "SUCCESS"}
    assert report.one("tpl")["tpl"] == "4"
    # One line an image, one for the damage, and not one more.
    assert len(report.console()) == len(NAMES) + len(READ_ONLY) + 3


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
