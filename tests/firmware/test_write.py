# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is written through the child is what QEMU finds in the image, of many kinds.

Seeded writes and erases of every length and alignment, read back in the firmware; then the disk,
as the machine left it, is judged on the host: qemu-img check finds nothing, every byte is right.

Left to others: every kind of disk (test_disks.py).
"""

import random
import re
import subprocess

import pytest

import vm
from conftest import crc, image_of, judge, judge_disk, seed_of, select
from images import disks

SECTOR = 512
SECTORS_MAX = 2048  # of one request: what the agent's buffer holds
STEPS = 40
SUCCESS = {"status": "SUCCESS"}


class Writer:
    """Seeded orders on one image, and the content that they must leave."""

    def __init__(self, content, *seed):
        self.content, self.dice = bytearray(content), random.Random(seed_of(*seed))
        self.orders, self.reads, self.erases = [], [], 0

    def place(self):
        sectors = len(self.content) // SECTOR
        count = self.dice.choice((1, 3, 8, 64, 128, 129, 700, SECTORS_MAX))
        count = min(count, sectors)
        lba = self.dice.randrange(sectors - count + 1)
        return (lba - lba % 128, count) if self.dice.getrandbits(1) else (lba, count)

    def write(self, lba, count):
        seed = self.dice.randrange(1, 60000)
        self.orders.append(f"write child {lba} {count} {seed} {self.dice.randrange(4)}")
        self.content[lba * SECTOR:(lba + count) * SECTOR] = vm.pattern(seed, lba, count)

    def erase(self, lba, count):
        self.orders.append(f"erase {lba} {count} {self.dice.choice(['event', ''])}".strip())
        self.content[lba * SECTOR:(lba + count) * SECTOR] = bytes(count * SECTOR)
        self.erases += 1

    def read(self, lba, count):
        self.orders.append(f"read child {lba} {count}")
        part = self.content[lba * SECTOR:(lba + count) * SECTOR]
        self.reads.append({"status": "SUCCESS", "crc": crc(part)})

    def step(self):
        kind = self.dice.randrange(8)
        if kind == 0:
            self.orders.append("flush child")
        else:
            (self.erase if kind == 1 else self.read if kind < 4 else self.write)(*self.place())

    def judge(self, report):
        for order in ("write", "flush"):
            assert [answer for answer in report.all(order) if answer != SUCCESS] == []
        assert report.all("read") == self.reads
        assert len(report.all("erase")) == self.erases
        for answer in report.all("erase"):
            assert answer["status"] == "SUCCESS"
            assert (answer["transaction"], answer["signals"]) in (("SUCCESS", "1"),
                                                                  ("NOT_READY", "0"))


def written(rig, disk, content, seed, end, place):
    """Runs the steps, ends as told, and returns what the image must hold."""
    writer = Writer(content, *seed)
    for _ in range(STEPS):
        writer.step()
    orders = [place, *writer.orders, "sum child 1001", *end, "tpl"]
    report = rig.loaded(orders, disk)
    writer.judge(report)
    assert report.one("sum")["crc"] == crc(writer.content)
    assert report.one("tpl")["tpl"] == "4"
    for order in ("disconnect", "unload"):
        assert all(answer == SUCCESS for answer in report.all(order))
    return bytes(writer.content)


@pytest.mark.parametrize("name,device,block_bytes,whole,end", [
    ("data-v3-64k", "virtio", 512, False, "disconnect"),
    ("fragmented-v3-512", "virtio", 512, False, "unload"),
    ("snapshot-v2-64k", "virtio", 4096, False, "disconnect"),
    ("empty-v3-64k", "virtio", 4096, True, "unload"),
    ("zero-v3-64k", "usb", 512, True, "disconnect"),
    ("data-v3-64k", "usb", 4096, False, "unload"),
    ("partial-v3-2m", "ahci", 512, False, "disconnect"),
    ("fragmented-v3-4k", "ahci", 512, True, "unload"),
])
def test_written(rig, name, device, block_bytes, whole, end):
    image = rig.image(name)
    disk = rig.container(f"w-{name}-{device}-{block_bytes}", image, device, block_bytes,
                         room=40 * disks.MIB if "2m" in name else 8 * disks.MIB, whole=whole)
    place = select(device, 0 if whole else 1)
    content = written(rig, disk, rig.content(image), (name, device, block_bytes), [end], place)
    assert judge_disk(disk, whole)[:len(content)] == content


def test_beside_the_image(rig):
    """No byte of the disk outside of the image's partition changes."""
    image = rig.image("data-v3-64k")
    disk = rig.container("beside", image, block_bytes=4096)
    before = disk.path.read_bytes()
    written(rig, disk, rig.content(image), ("beside",), ["unload"], select(part=1))
    after = disk.path.read_bytes()
    assert image_of(before) != image_of(after)
    assert before[:disks.ALIGN] == after[:disks.ALIGN]
    assert before[-disks.ALIGN:] == after[-disks.ALIGN:]


def poked(rig, name, image, pokes):
    """A copy of the image with some bytes changed: {host_off: bytes}."""
    path = rig.folder / f"{name}.qcow2"
    content = bytearray(image.read_bytes())
    for host_off, new in pokes.items():
        content[host_off:host_off + len(new)] = new
    path.write_bytes(content)
    return path


def test_subclusters(rig):
    """Extended L2 entries, some of whose subclusters hold data, some zeros, and some nothing."""
    image = rig.folder / "subclusters.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", image, "4M")
    parts = [f"write -q -P {n + 1} {n * 150 * 1024} {2048 * (n % 5 + 1)}" for n in range(20)]
    parts += [f"write -q -z {n * 300 * 1024 + 65536} 4k" for n in range(8)]
    disks.run("qemu-io", "-f", "qcow2", *(word for part in parts for word in ("-c", part)), image)
    disk = rig.container("w-subclusters", image)
    content = written(rig, disk, rig.content(image), ("subclusters",), ["unload"], select(part=1))
    after = judge_disk(disk)
    assert after == content and image_of(disk.path.read_bytes())[79] & 0x10


@pytest.mark.parametrize("orders", [[], ["write child 100 300 7", "erase 0 128"]],
                         ids=["attached", "written"])
def test_dirty(rig, orders):
    """What a crash left with lazy counts is right as soon as it is attached, and takes writes."""
    image = rig.image("dirty-v3-64k")
    content = bytearray(rig.content(image))
    disk = rig.container("dirty", image)
    assert image_of(disk.path.read_bytes())[79] & 1
    report = rig.loaded([select(part=1), "media child", "console", "sum child 64", *orders,
                         *(["flush child"] if orders else [])], disk)
    assert report.one("media")["readonly"] == "0"
    assert len(report.console()) == 1 and report.console()[0].endswith(" 64 KiB clusters")
    assert report.one("sum")["crc"] == crc(content)
    if orders:
        assert report.one("write") == report.one("flush") == SUCCESS
        content[100 * SECTOR:400 * SECTOR] = vm.pattern(7, 100, 300)
        content[:128 * SECTOR] = bytes(128 * SECTOR)
    # The machine was stopped without a settle: all that may be left is counts that are too high.
    assert judge_disk(disk, leaks=bool(orders)) == content
    assert not image_of(disk.path.read_bytes())[79] & 1


@pytest.mark.parametrize("name,words,block_bytes", [
    ("corrupt", "image is marked corrupt: read-only", 512),
    ("blocks", "clusters of 512 on 4096-byte blocks: read-only", 4096),
])
def test_read_only(rig, name, words, block_bytes):
    """An image that takes no writes says why, says so in its medium, and is not written."""
    image = rig.image("fragmented-v3-512")
    if name == "corrupt":
        image = poked(rig, name, image, {79: b"\x02"})
    disk = rig.container(f"ro-{name}", image, block_bytes=block_bytes)
    before = disk.path.read_bytes()
    report = rig.loaded([select(part=1), "console", "media child", "checks", "checkwrites",
                         "flush child", "unload"], disk)
    assert [line for line in report.lines if line.startswith("check ")
            and not line.endswith(" PASS")] == []
    media = report.one("media")
    assert (media["readonly"], media["caching"]) == ("1", "0")
    assert report.console()[0].endswith(f" 512 B clusters, {words}")
    assert report.one("unload") == SUCCESS
    assert disk.path.read_bytes() == before


def test_erase_checks(rig):
    disk = rig.container("erase", rig.image("data-v3-64k"))
    report = rig.loaded([select(part=1), "checkwrites", "sum child 64", "erase 3 200",
                         "sum child 64", "unload"], disk)
    checks = [line for line in report.lines if line.startswith("check ")]
    assert len(checks) == 9 and all(line.endswith(" PASS") for line in checks), checks
    content = bytearray(rig.content(rig.image("data-v3-64k")))
    assert report.all("sum")[0]["crc"] == crc(content)
    content[3 * SECTOR:203 * SECTOR] = bytes(200 * SECTOR)
    assert report.all("sum")[1]["crc"] == crc(content)
    assert report.one("erase")["granularity"] == "128"
    assert judge_disk(disk) == content


def test_no_space(rig):
    """The disk is full: one line, an error, and what is there can still be read and written."""
    image = rig.image("empty-v3-64k")
    disk = rig.container("full", image, room=0)
    orders = [select(part=1), "console", "write child 0 8 1", "flush child"]
    orders += [f"write child {number * 2048} 2048 7" for number in range(1, 4)] * 2
    orders += ["write child 0 8 2", "flush child", "read child 0 8", "console", "disconnect"]
    report = rig.loaded(orders, disk)
    answers = [answer["status"] for answer in report.all("write")]
    assert answers[0] == answers[-1] == "SUCCESS"
    assert "DEVICE_ERROR" in answers
    assert report.all("flush") == [SUCCESS] * 2
    assert report.one("read") == {"status": "SUCCESS", "crc": crc(vm.pattern(2, 0, 8))}
    errors = report.console()[1:]
    assert len(errors) == 1 and re.search(r": write error: .*no space", errors[0])
    assert judge_disk(disk, leaks=True)[:8 * SECTOR] == vm.pattern(2, 0, 8)


@pytest.fixture
def volume(rig):
    """A container whose image holds a volume with one file."""
    first = rig.folder / "first"
    first.write_bytes(bytes(range(251)) * 2000)
    fat = disks.make_fat(rig.folder / "files.fat", {"DIR/FIRST.BIN": first})
    raw = disks.write_gpt(rig.folder / "files.raw", [(disks.ESP_TYPE, fat)], name="files")
    qcow2 = rig.folder / "files.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    return rig.container("files", qcow2), first.read_bytes()


def test_files(rig, volume):
    """Files made, copied, renamed and deleted by the firmware's FAT driver."""
    disk, first = volume
    made = vm.pattern(5, 0, 600)[:300000]
    orders = [select(part=1), "put DIR\\MADE.BIN 300000 5", "copy DIR\\FIRST.BIN COPY.BIN",
              "put GONE.BIN 70000 6", "rename DIR\\MADE.BIN KEPT.BIN", "delete GONE.BIN",
              "file DIR\\KEPT.BIN", "file COPY.BIN", "reconnect 1", "file DIR\\KEPT.BIN",
              "file COPY.BIN", "file GONE.BIN", "tpl", "unload"]
    report = rig.loaded(orders, disk)
    for order in ("put", "copy", "rename", "delete", "unload"):
        assert all(answer == SUCCESS for answer in report.all(order)), order
    read = [{"status": "SUCCESS", "bytes": str(len(content)), "crc": crc(content)}
            for content in (made, first)]
    assert report.all("file")[:4] == read * 2
    assert report.all("file")[4]["status"] == "NOT_FOUND"
    assert report.one("tpl")["tpl"] == "4"

    content = image_of(judge_disk(disk))
    fat = rig.folder / "files.after.fat"
    fat.write_bytes(content)
    check = subprocess.run(["fsck.vfat", "-n", fat], capture_output=True, text=True, timeout=60,
                           check=False)
    assert check.returncode == 0, check.stdout
    for name, wanted in (("DIR/KEPT.BIN", made), ("COPY.BIN", first), ("DIR/FIRST.BIN", first)):
        found = rig.folder / "found"
        disks.run("mcopy", "-n", "-o", "-i", fat, f"::{name}", found)
        assert found.read_bytes() == wanted, name
    listed = disks.run("mdir", "-b", "-/", "-i", fat, "::")
    assert "GONE" not in listed and "MADE" not in listed


def test_judge_can_fail(rig, tmp_path):
    """An image with a count that is too low does not pass."""
    image = rig.image("data-v3-64k")
    broken = bytearray(image.read_bytes())
    table = int.from_bytes(broken[48:56], "big")
    block = int.from_bytes(broken[table:table + 8], "big")
    broken[block + 8:block + 10] = bytes(2)
    path = tmp_path / "broken.qcow2"
    path.write_bytes(broken)
    with pytest.raises(AssertionError):
        judge(path, leaks=True)
