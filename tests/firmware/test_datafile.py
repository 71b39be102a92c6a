# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images whose guest data lies in an external data file, which has a partition of its own.

The configuration's key `data` says which. It is claimed as a base is, written by its image alone,
and never found by the name that the image has for it. qemu-img judges what both partitions hold.
"""

import os
import shutil

import pytest

import machine
import vm
from conftest import DRIVER, ROOM, base, crc, entry, select
from images import disks
from test_write import SUCCESS, Writer

STEPS = 30
SIZE = 3 * disks.MIB
DATA_LINE = ": a data file in the configuration: no disk of its own"
REFUSED = ": refused: backing name refused: "


def data(disk, part):
    """The line that names a partition as the data file."""
    return f"data {disks.partition_guid(disk, part)}"


def judge(folder):
    """What qemu-img finds in the image there; it looks for the data file where it runs."""
    disks.run("qemu-img", "check", "-f", "qcow2", "image", cwd=folder)
    disks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "image", "raw", cwd=folder)
    return (folder / "raw").read_bytes()


@pytest.fixture(scope="module")
def parted(rig):
    """An image with its data file, an overlay of it, and the content of either."""
    folder = rig.folder / "datafile"
    folder.mkdir()
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=bytes", "image",
              str(SIZE), cwd=folder)
    for number in range(6):
        disks.run("qemu-io", "-f", "qcow2", "-c",
                  f"write -q -P {number + 1} {number * 500 * 1024} 70k", "image", cwd=folder)
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", "overlay",
              cwd=folder)
    content = judge(folder)
    with open(folder / "bytes", "r+b") as hidden:
        hidden.seek(200 * 1024)
        hidden.write(b"not mapped")  # nobody may show it
    os.truncate(folder / "image", disks.round_up(ROOM, disks.MIB))
    os.truncate(folder / "overlay", disks.round_up(ROOM, disks.MIB))
    return folder, content


def judged(rig, name, image, content):
    """The guest's bytes, as qemu-img finds them in the image and its data file."""
    folder = rig.folder / f"{name}.judged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "image").write_bytes(image)
    (folder / "bytes").write_bytes(content)
    return judge(folder)


@pytest.mark.parametrize("device,other,block_bytes", [
    ("virtio", None, 512), ("virtio", "usb", 4096), ("ahci", "virtio", 512)])
def test_written(rig, parted, device, other, block_bytes):
    """Seeded writes, erases and reads; the data file on the image's disk or on another."""
    folder, content = parted
    name = f"parted-{device}-{other}"
    images = [folder / "image"] + ([] if other else [folder / "bytes"])
    attached = [vm.Kept(rig.partitioned(name, images, block_bytes), device, block_bytes,
                        slot=vm.SLOTS[device])]
    where = data(name, 2)
    if other:
        attached.append(vm.Kept(rig.partitioned(f"{name}-data", [folder / "bytes"]), other,
                                slot=vm.SLOTS[other]))
        where = data(f"{name}-data", 1)
    writer = Writer(content, name)
    for _ in range(STEPS):
        writer.step()
    report = rig.configured(entry("a", name, 1, where),
                            [select(device, 1), "handles", "sum child 999", *writer.orders,
                             "sum child 1001", "console", "unload", "tpl"], *attached)
    writer.judge(report)
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content), crc(writer.content)]
    assert report.one("handles")["children"] == "1"
    assert report.one("unload") == SUCCESS and report.one("tpl")["tpl"] == "4"
    line, claimed = sorted(report.console(), key=lambda said: said.endswith(DATA_LINE))
    assert claimed.endswith(DATA_LINE) and "refused" not in line
    assert ("no flush" in line) == ("usb" in (device, other) or "ahci" in (device, other))
    bytes_part = disks.partition_bytes(attached[-1].path, 1 if other else 2)
    image_part = disks.partition_bytes(attached[0].path, 1, block_bytes)
    assert judged(rig, name, image_part, bytes_part) == writer.content


def test_below(rig, parted):
    """A base with a data file of its own: read through it, and neither is written."""
    folder, content = parted
    disk = vm.Kept(rig.partitioned("lower", [folder / part for part in
                                             ("overlay", "image", "bytes")]),
                   slot=vm.SLOTS["virtio"])
    before = [disks.partition_bytes(disk.path, part) for part in (2, 3)]
    config = entry("a", "lower", 1, base("lower", 2)) + entry("b", "lower", 2, data("lower", 3))
    report = rig.configured(config, [select(part=1), "handles", "sum child 64",
                                     "write child 10 500 3", "sum child 64", "disconnect"], disk)
    changed = content[:10 * 512] + vm.pattern(3, 10, 500) + content[510 * 512:]
    assert report.one("handles")["children"] == "1"
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content), crc(changed)]
    assert report.one("disconnect") == SUCCESS
    assert [disks.partition_bytes(disk.path, part) for part in (2, 3)] == before


def test_life(rig, parted):
    """The image goes with its data file's disk, keeping what was written, and comes back."""
    folder, content = parted
    disk = vm.Kept(rig.partitioned("going", [folder / "image"]), slot=vm.SLOTS["virtio"])
    other = vm.Kept(rig.partitioned("coming", [folder / "bytes"]), "usb", slot=vm.SLOTS["usb"])
    config = entry("a", "going", 1, data("coming", 1))
    report = rig.run([*(f"config {line}" for line in config), f"load {DRIVER}", "connect",
                      select(part=1), "write child 64 30 9", select("usb"), "disconnect",
                      "handles", "reconnect 1", "handles", select("usb", 1), "opens", "names",
                      select(part=1), "sum child 64", "disconnect", "unload", "console"],
                     disk, other)
    changed = content[:64 * 512] + vm.pattern(9, 64, 30) + content[94 * 512:]
    assert [answer["children"] for answer in report.all("handles")] == ["0", "1"]
    assert report.one("opens")["ours"] == "1"
    assert report.all("names")[1] == {"disk": "data file of a qcow2 disk image"}
    assert report.one("write") == SUCCESS and report.one("sum")["crc"] == crc(changed)
    assert report.all("disconnect") == [SUCCESS] * 2 and report.one("unload") == SUCCESS
    assert judged(rig, "life", disks.partition_bytes(disk.path, 1),
                  disks.partition_bytes(other.path, 1)) == changed


def test_attached_anew(rig, parted):
    """By the command, with its data file, also when it was let go; a failure changes nothing."""
    folder, content = parted
    disk = vm.Kept(rig.partitioned("anew", [folder / "image", folder / "bytes"]),
                   slot=vm.SLOTS["virtio"])
    report = rig.configured(entry("a", "anew", 1, data("anew", 2)),
                            [select(part=1), "reattach", "sum child 64", "disconnect", "reattach",
                             "sum child 64", "reattach nosuch", "sum child 64",
                             "write child 10 500 3", "unload"], disk)
    assert [answer["status"] for answer in report.all("reattach")] == \
        ["SUCCESS", "SUCCESS", "UNSUPPORTED"]
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content)] * 3
    assert report.one("write") == SUCCESS and report.one("unload") == SUCCESS


# What the configuration says of a disk "d" with two images and a data file, and why part 1 or 2
# is refused.
CASES = {
    "none": (entry("a", "d", 1), 1, "no data file in the configuration"),
    "base": (entry("a", "d", 1, base("d", 3)), 1, "no data file in the configuration"),
    "missing": (entry("a", "d", 1, "data 0fc63daf-8483-4772-8e79-000000000000"), 1,
                "the data file is not found"),
    "second": (entry("a", "d", 1, data("d", 3)) + entry("b", "d", 2, data("d", 3)), 2,
               "the data file is another image's or a base"),
    "image": (entry("a", "d", 1, data("d", 2)) + entry("b", "d", 2, data("d", 3)), 1,
              "the data file is another image's or a base"),
    "both": (entry("a", "d", 1, data("d", 3)) + entry("c", "e", 1, base("d", 3)), 1,
             "the data file is another image's or a base"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(rig, parted, name):
    """One line that says why, and no byte written."""
    config, part, reason = CASES[name]
    disk = vm.Kept(rig.partitioned("d", [parted[0] / "image"] * 2 + [parted[0] / "bytes"]),
                   slot=vm.SLOTS["virtio"])
    before = disk.path.read_bytes()
    report = rig.configured(config, [select(part=part), "start", "console", "unload"], disk)
    lines = [line for line in report.console() if f"/HD({part},GPT," in line]
    assert len(lines) == 1 and lines[0].endswith(REFUSED + reason)
    assert report.one("start") == {"supported": "SUCCESS", "started": "ACCESS_DENIED",
                                   "child": "0"}
    assert report.one("unload") == SUCCESS
    assert disk.path.read_bytes() == before


def test_copy_of_the_image(rig, parted):
    """A copy of the image's disk has the same GUIDs; only one of the two gets the data file."""
    folder, content = parted
    copies = [machine.Disk(rig.partitioned("copied", [folder / "image"]), device)
              for device in ("virtio", "ahci")]
    single = machine.Disk(rig.partitioned("single", [folder / "bytes"]), "usb")
    report = rig.configured(entry("a", "copied", 1, data("single", 1)),
                            ["handles", "console"], *copies, single)
    assert report.one("handles")["children"] == "1"
    refusals = [line for line in report.console() if REFUSED in line]
    assert len(refusals) == 1
    assert refusals[0].endswith("the data file is in use by another image")


@pytest.mark.parametrize("key", ["readonly yes", "backing no"])
def test_with_other_keys(rig, parted, key):
    """Read-only means the data file too; it is no layer, so that leaving these out keeps it."""
    folder, content = parted
    disk = vm.Kept(rig.partitioned("keys", [folder / "image", folder / "bytes"]),
                   slot=vm.SLOTS["virtio"])
    before = disk.path.read_bytes()
    report = rig.configured(entry("a", "keys", 1, data("keys", 2), key),
                            [select(part=1), "media child", "sum child 64", "unload"], disk)
    assert report.one("media")["readonly"] == ("1" if key == "readonly yes" else "0")
    assert report.one("sum")["crc"] == crc(content)
    assert disk.path.read_bytes() == before
