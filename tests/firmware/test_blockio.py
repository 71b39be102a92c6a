# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The protocols the driver installs: what single calls answer, the media fields, path and names."""

import re

import pytest

import machine
from conftest import base, crc, entry, select, virtio

CHECKS = 53  # without those on alignment, whose number is the disk's to say


def child_checks(report):
    return [line for line in report.lines if line.startswith("check ")]


@pytest.mark.parametrize("device,block_bytes,part", [("virtio", 512, 1), ("virtio", 4096, 1),
                                                     ("usb", 512, 0), ("ahci", 512, 0)])
def test_argument_checks(rig, device, block_bytes, part):
    disk = image = rig.image("data-v3-64k")
    if part:
        disk = rig.partitioned(f"checks-{block_bytes}", [image], block_bytes)
    report = rig.loaded([select(device, part), "media child", "checks", "media child", "tpl"],
                        machine.Disk(disk, device, block_bytes))
    checks = child_checks(report)
    assert [line for line in checks if not line.endswith(" PASS")] == []
    align = int(report.all("media")[0]["align"])
    assert len(checks) == CHECKS + (3 * (align.bit_length() - 1) if align > 1 else 0)
    # Of these disks AHCI alone wants aligned buffers, and only as a whole.
    assert (align > 1) == (device == "ahci")
    assert report.one("tpl")["tpl"] == "4"
    # Refused calls change nothing that callers see.
    assert report.all("media")[0] == report.all("media")[1]


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_medium_below(rig, how):
    """The medium below goes or changes; reconnecting the disk brings the image back."""
    image = rig.image("data-v3-64k")
    report = rig.loaded([select(), f"medium {how}", "reconnect 1", "sum child 64", "tpl"],
                        virtio(image))
    checks = child_checks(report)
    assert len(checks) == 8 and all(line.endswith(" PASS") for line in checks), checks
    assert report.one("sum")["crc"] == crc(rig.content(image))
    assert report.one("tpl")["tpl"] == "4"


def test_bad_cluster(rig):
    """A table entry that cannot be: that read fails, one line says why, the rest stays readable."""
    whole = rig.image("data-v3-64k")
    content = rig.content(whole)
    broken = bytearray(whole.read_bytes())
    l1 = int.from_bytes(broken[40:48], "big")
    l2 = int.from_bytes(broken[l1:l1 + 8], "big") & 0x00FFFFFFFFFFFE00
    broken[l2 + 3 * 8 + 6] |= 0x02  # cluster 3 lies at no cluster's start
    disk = rig.folder / "badcluster.raw"
    disk.write_bytes(broken)
    report = rig.loaded([select(), "console", "read child 384 8", "read child 380 8",
                         "read child 256 128", "read child 512 8", "console", "media child", "tpl"],
                        virtio(disk))
    failed = {"status": "DEVICE_ERROR", "crc": "0"}
    assert report.all("read") == [
        failed, failed,
        {"status": "SUCCESS", "crc": crc(content[256 * 512:384 * 512])},
        {"status": "SUCCESS", "crc": crc(content[512 * 512:520 * 512])}]
    attached, error = report.console()
    assert attached.endswith("64 KiB clusters")
    assert re.fullmatch(r"qcow2: PciRoot\S+: read error: bad L2 entry \S+ at guest \S+"
                        "; no more writes are taken", error)
    assert report.one("media")["present"] == "1"
    assert report.one("tpl")["tpl"] == "4"


def test_called_back(rig):
    """The disk below calls another image in the middle of a read: that fails, and harms nothing."""
    images = [rig.image("data-v3-64k"), rig.image("fragmented-v3-4k")]
    disk = rig.partitioned("callback", images, 4096)
    report = rig.loaded([select(part=1), "read child 1 1", "reenter 16 2", "read child 3 1",
                         "answered", select(part=2), "sum child 64"], virtio(disk, 4096))
    contents = [rig.content(image) for image in images]
    assert report.one("answered") == {"status": "DEVICE_ERROR"}
    assert report.all("read") == [{"status": "SUCCESS",
                                   "crc": crc(contents[0][lba * 512:(lba + 1) * 512])}
                                  for lba in (1, 3)]
    assert report.one("sum")["crc"] == crc(contents[1])


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_media(rig, block_bytes):
    disk = rig.partitioned(f"media-{block_bytes}", [rig.image("data-v3-64k")], block_bytes)
    report = rig.loaded([select(part=1), "media parent", "media child"], virtio(disk, block_bytes))
    below, child = report.all("media")
    assert child.pop("id") != "0"
    assert child == {"revision": "2001f", "removable": below["removable"], "present": "1",
                     "logical": "0", "readonly": "0", "caching": "1", "block": "512",
                     "align": below["align"], "last": str(4 * 2 ** 20 // 512 - 1), "lowest": "0",
                     "perphysical": str(block_bytes // 512), "granularity": "128"}


def test_path_and_names(rig):
    disk = rig.partitioned("path", [rig.image("data-v3-64k")])
    report = rig.loaded([select(part=1), "path", "reconnect 1", "path", "names"], virtio(disk))
    first, again = report.all("path")
    assert first == again
    assert first["text"].startswith("PciRoot(0x0)/Pci(0x10,0x0)/HD(1,GPT,")
    assert first["text"].endswith("/VenMedia(89F74F3B-8085-416E-A53A-6E61F7FFC4AC,0100)")
    names = {key: text for answer in report.all("names") for key, text in answer.items()}
    assert names.pop("driver") == "qcow2 disk image driver"
    assert names.pop("disk") == "container of qcow2 image"
    assert names.pop("child") == "qcow2 image, 4.0 MiB"
    assert names == {"nolanguage": "INVALID_PARAMETER", "nobuffer": "INVALID_PARAMETER",
                     "klingon": "UNSUPPORTED", "nodisk": "INVALID_PARAMETER",
                     "foreign": "UNSUPPORTED", "notchild": "UNSUPPORTED"}


def test_names_of_entries(rig):
    """What the configuration calls an image, and what is special about it, is in its names."""
    image = rig.image("data-v3-64k")
    disk = rig.partitioned("names", [image, image])
    report = rig.configured(entry("debian", "names", 1, "readonly yes", base("names", 2)),
                            [select(part=1), "names", "below gone", "read child 0 1", "names",
                             "below back", select(part=2), "names"], virtio(disk))
    names = [{key: text for answer in report.all("names")[start:start + 9]
              for key, text in answer.items()} for start in (0, 9, 18)]
    assert names[0]["disk"] == names[1]["disk"] == "container of qcow2 image debian"
    assert [answer["child"] for answer in names] == [
        "qcow2 image debian, 4.0 MiB, read-only", "qcow2 image debian, 4.0 MiB, medium gone",
        "base of qcow2 disk images"]
    assert names[2]["disk"] == "base of qcow2 disk images"
