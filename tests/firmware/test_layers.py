# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images over others: read and written through the child, with every layer in its own partition.

The configuration says which partition is the base of which. Bases are never written: each test that
writes compares every byte of theirs, and qemu-img judges the overlay above the bases of the recipe.
"""

import os

import pytest

import machine
import vm
from conftest import DRIVER, ROOM, base, crc, entry, judge, select
from images import disks
from test_write import SUCCESS, Writer

STEPS = 40
BASE_LINE = ": a base in the configuration: only read, and no disk of its own"


class Layered:
    """A writable disk with the layers of a recipe in its partitions, the image itself in part 1."""

    def __init__(self, rig, recipe, device="virtio", block_bytes=512):
        self.rig, self.chain = rig, rig.cells[recipe].chain()
        self.image = rig.image(recipe)
        self.paths = [cell.path(self.image.parent) for cell in self.chain]
        self.name = f"layers-{recipe}-{device}"
        grown = rig.folder / f"{self.name}.grown"
        grown.write_bytes(self.image.read_bytes())
        os.truncate(grown, disks.round_up(grown.stat().st_size + ROOM, disks.MIB))
        self.disk = vm.Kept(disks.write_gpt(rig.folder / f"{self.name}.raw",
                                            [(disks.DATA_TYPE, path)
                                             for path in [grown, *self.paths[1:]]],
                                            block_bytes, self.name),
                            device, block_bytes, slot=vm.SLOTS[device])
        self.config = [line for part in range(1, len(self.chain))
                       for line in entry(f"layer{part}", self.name, part,
                                         base(self.name, part + 1))]

    def part(self, number):
        return disks.partition_bytes(self.disk.path, number, self.disk.block_bytes)

    def bases(self):
        return [self.part(number) for number in range(2, len(self.chain) + 1)]

    def judged(self):
        """The content that qemu-img finds in the overlay over the recipe's own bases."""
        folder = self.rig.folder / f"{self.name}.judged"
        folder.mkdir()
        for path in self.paths[1:]:
            (folder / path.name).symlink_to(path)
        overlay = folder / "overlay.qcow2"
        overlay.write_bytes(self.part(1))
        return judge(overlay)


@pytest.mark.parametrize("recipe,device,block_bytes,end", [
    ("chain-v3-64k-on-zlib-4k-shorter", "virtio", 512, "disconnect"),
    ("chain-v3-512-on-zstd-64k-shorter", "usb", 512, "unload"),
    ("chain-v2-4k-on-raw-longer", "virtio", 4096, "unload"),
    ("chain-v3-512-four", "virtio", 512, "disconnect"),
])
def test_written(rig, recipe, device, block_bytes, end):
    """Seeded writes, erases and reads of an overlay; bases afterwards as they were."""
    layered = Layered(rig, recipe, device, block_bytes)
    before, content = layered.bases(), rig.content(layered.image)
    writer = Writer(content, recipe)
    for _ in range(STEPS):
        writer.step()
    report = rig.configured(layered.config, [select(device, 1), "sum child 999", *writer.orders,
                                             "sum child 1001", "console", end, "tpl"],
                            layered.disk)
    writer.judge(report)
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content), crc(writer.content)]
    assert report.one(end) == SUCCESS and report.one("tpl")["tpl"] == "4"
    attached, *bases = sorted(report.console(), key=lambda line: line.endswith(BASE_LINE))
    assert "refused" not in attached and len(bases) == len(before)
    assert all(line.endswith(BASE_LINE) for line in bases)
    assert layered.judged() == bytes(writer.content)
    assert layered.bases() == before


@pytest.fixture(scope="module")
def pair(rig):
    """An image of 64 KiB clusters with a file on its volume, as a base, and an overlay of it."""
    folder = rig.folder / "pair"
    folder.mkdir()
    inside = folder / "inside"
    inside.write_bytes(bytes(range(251)) * 5000)
    volume = disks.make_fat(folder / "volume.fat", {"FILE.BIN": inside})
    disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", volume, folder / "base")
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "overlay",
              cwd=folder)
    disks.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 3M 64k", "overlay", cwd=folder)
    os.truncate(folder / "overlay", 4 * disks.MIB)
    content = bytearray(volume.read_bytes())
    content[3 * disks.MIB:3 * disks.MIB + 65536] = bytes([7]) * 65536
    return folder, bytes(content), inside.read_bytes()


def kept(rig, name, *images, device="virtio"):
    """A writable disk with the images in its partitions."""
    return vm.Kept(rig.partitioned(name, images), device, slot=vm.SLOTS[device])


def test_file_written(rig, pair):
    """The firmware writes a file; qemu-img finds it in the overlay, and the base is unharmed."""
    folder, _, inside = pair
    disk = kept(rig, "fatpair", folder / "overlay", folder / "base")
    before = disks.partition_bytes(disk.path, 2)
    made = vm.pattern(5, 0, 400)[:200000]
    report = rig.configured(entry("a", "fatpair", 1, base("fatpair", 2)),
                            [select(part=1), "file FILE.BIN", "put MADE.BIN 200000 5",
                             "reconnect 1", "file MADE.BIN", "file FILE.BIN", "unload"], disk)
    answers = [{"status": "SUCCESS", "bytes": str(len(content)), "crc": crc(content)}
               for content in (inside, made, inside)]
    assert report.all("file") == answers
    assert report.one("put") == report.one("unload") == SUCCESS
    assert disks.partition_bytes(disk.path, 2) == before
    after = folder / "after"
    after.write_bytes(disks.partition_bytes(disk.path, 1))
    fat = folder / "after.fat"
    fat.write_bytes(judge(after))
    disks.run("mcopy", "-n", "-o", "-i", fat, "::MADE.BIN", folder / "found")
    assert (folder / "found").read_bytes() == made


def test_base_is_no_disk(rig, pair):
    """One child, the overlay's; the base has us for its only owner, and all ends with unload."""
    folder, content, _ = pair
    disk = rig.partitioned("nodisk", [folder / "overlay", folder / "base"])
    report = rig.run(["connect", select(part=2), "opens",
                      *(f"config {line}" for line in entry("a", "nodisk", 1, base("nodisk", 2))),
                      f"load {DRIVER}", "connect", "handles", select(part=2), "opens", "names",
                      "disconnect", "handles", "connect", select(part=0), "watch begin",
                      "reconnect 3", "watch end", "handles", "console", select(part=1),
                      "sum child 64", "unload", "handles", select(part=2), "opens", "tpl"],
                     machine.Disk(disk))
    before, held, after = report.all("opens")
    assert held == {"all": str(int(before["all"]) + 1), "ours": "1", "bydriver": "1"}
    assert after == before
    assert [answer["children"] for answer in report.all("handles")] == ["1", "0", "1", "0"]
    watch = report.one("watch")
    assert (watch["pool"], watch["pages"], watch["lost"]) == ("0", "0", "0")
    assert report.one("reconnect") == {"worst": "SUCCESS"}
    assert len(report.console()) == 2  # each said once
    assert report.all("names")[1] == {"disk": "base of qcow2 disk images"}
    assert report.one("sum")["crc"] == crc(content)
    assert report.one("unload") == SUCCESS and report.one("tpl")["tpl"] == "4"


def test_volume_on_a_raw_base(rig, pair):
    """Nobody mounts what lies on a raw base while an overlay reads from it."""
    folder, content, _ = pair
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "volume.fat", "-F", "raw", "onraw",
              cwd=folder)
    disk = machine.Disk(rig.partitioned("rawbase", [folder / "onraw", folder / "volume.fat"]))
    config = entry("a", "rawbase", 1, base("rawbase", 2))
    # Loaded before the disk is connected: the base is ours before it is the file system's.
    report = rig.run([*(f"config {line}" for line in config), f"load {DRIVER}", "connect",
                      select(part=1), "sum child 64", select(part=2), "opens"], disk)
    assert report.one("sum")["crc"] == crc((folder / "volume.fat").read_bytes())
    assert report.one("opens")["ours"] == "1"
    # Loaded afterwards: the file system's driver has it, until it is told to let go.
    report = rig.configured(config, ["console", select(part=2), "opens", "disconnect", "connect",
                                     select(part=1), "sum child 64", "console"], disk)
    first, *rest = report.console()
    assert first.endswith(": refused: backing name refused: the base is in use by others")
    assert report.one("opens")["ours"] == "0"
    assert report.one("sum")["crc"] == crc((folder / "volume.fat").read_bytes())
    assert len(rest) == 2


@pytest.mark.parametrize("above,below", [("virtio", "ahci"), ("ahci", "virtio"),
                                         ("usb", "virtio")])
def test_base_on_another_disk(rig, pair, above, below):
    """The overlay goes with its base, keeping what was written, and comes back with it."""
    folder, content, _ = pair
    overlay = kept(rig, f"over-{above}", folder / "overlay", device=above)
    disk = machine.Disk(rig.partitioned(f"under-{below}", [folder / "base"]), below)
    config = entry("a", f"over-{above}", 1, base(f"under-{below}", 1))
    report = rig.run([*(f"config {line}" for line in config), f"load {DRIVER}", "connect",
                      "handles", select(above, 1), "sum child 64", "write child 64 30 9",
                      select(below), "disconnect", "handles", "reconnect 1", "handles",
                      select(above, 1), "sum child 64", "disconnect", "tpl"], overlay, disk)
    assert [answer["children"] for answer in report.all("handles")] == ["1", "0", "1"]
    changed = content[:64 * 512] + vm.pattern(9, 64, 30) + content[94 * 512:]
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content), crc(changed)]
    assert report.all("disconnect") == [SUCCESS] * 2 and report.one("tpl")["tpl"] == "4"


def test_base_comes_later(rig, pair):
    """An image whose base is not there is refused, and attached when the base comes."""
    folder, content, _ = pair
    overlay = machine.Disk(rig.partitioned("early", [folder / "overlay"]))
    disk = machine.Disk(rig.partitioned("late", [folder / "base"]), "ahci")
    report = rig.configured(entry("a", "early", 1, base("late", 1)),
                            [select("ahci"), "disconnect", select(), "disconnect", "console",
                             "reconnect 1", "console", "handles", select("ahci"), "reconnect 1",
                             "handles", select(part=1), "sum child 64"], overlay, disk)
    assert [answer["children"] for answer in report.all("handles")] == ["0", "1"]
    assert report.one("sum")["crc"] == crc(content)
    assert report.console()[-1].endswith(": refused: backing name refused: the base is not found")


def test_base_stopped_while_it_is_read(rig, pair):
    """The base's disk tells its users to go in the middle of a read: that read comes first."""
    folder, content, _ = pair
    disk = machine.Disk(rig.partitioned("stopped", [folder / "overlay", folder / "base"]))
    report = rig.configured(entry("a", "stopped", 1, base("stopped", 2)),
                            [select(part=2), "interrupt 1", select(part=1), "sum child 64",
                             "answered", "sum child 64", "handles", "tpl"], disk)
    assert report.one("answered")["status"] != "SUCCESS"
    assert [answer["crc"] for answer in report.all("sum")] == [crc(content)] * 2
    assert report.one("handles")["children"] == "1" and report.one("tpl")["tpl"] == "4"


def test_base_medium(rig, pair):
    """A base that cannot be read fails what lies in it, with one line; the rest goes on."""
    folder, content, _ = pair
    disk = kept(rig, "medium", folder / "overlay", folder / "base")
    report = rig.configured(
        entry("a", "medium", 1, base("medium", 2)),
        [select(part=1), "console", "read child 6144 128", select(part=2), "fault read",
         select(part=1), "read child 1024 8", "read child 6144 128", "write child 6144 128 3",
         "write child 1024 8 3", "flush child", "console", select(part=2), "fault none",
         select(part=1), "read child 1024 8", "write child 1024 8 3", "disconnect"], disk)
    own = {"status": "SUCCESS", "crc": crc(bytes([7]) * 65536)}
    gone = {"status": "DEVICE_ERROR", "crc": "0"}
    below = {"status": "SUCCESS", "crc": crc(content[1024 * 512:1032 * 512])}
    assert report.all("read") == [own, gone, own, below]
    failed = {"status": "DEVICE_ERROR"}
    assert report.all("write") == [SUCCESS, failed, SUCCESS]
    assert report.one("flush") == report.one("disconnect") == SUCCESS
    errors = [line for line in report.console() if " error: " in line]
    assert len(errors) == 2, errors  # one of reads, one of writes
