# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the child reads is what QEMU reads: on every kind of disk and block size, whole or not.

One machine carries several images; each is read as a whole, in requests of an odd length, and at
random places of random length into buffers as misaligned as the disk below allows.
"""

import random

import pytest

import machine
from conftest import crc, seed_of, select
from images import disks
from vm import SLOTS

SECTOR = 512
RANDOM_READS = 12
READ_SECTORS_MAX = 1500
# Requests of this many sectors end inside clusters and inside blocks of every size.
STEP_SECTORS = 1001

# As many as are attached at once: clusters large and small, holes, zeros, an end inside a cluster.
PARTITIONS = ("data-v3-64k", "fragmented-v3-512", "zero-v3-64k", "data-v3-2m",
              "odd-v3-64k-below", "snapshot-v2-64k")
WHOLE_DISKS = (("data-v2-64k", "fragmented-v3-4k", "zero-v3-512"),
               ("partial-v3-2m", "data-v3-512", "fragmented-v2-64k"),
               ("unaligned-v3-64k", "zero-v2-64k", "partial-v2-64k"))
COMPRESSED = {512: ("packed-v3-512-zlib", "packed-v3-512-zstd", "packed-v3-2m-zlib"),
              4096: ("packed-v2-64k-zlib", "packed-v3-64k-zstd", "repacked-v3-4k-zlib",
                     "repacked-v3-64k-zstd", "packed-v3-256k-zstd")}
NVME_PARTITIONS = (("data-v3-64k", "fragmented-v3-512"), ("zero-v3-64k", "odd-v3-64k-below"))
NVME_WHOLE = ("fragmented-v3-4k", "data-v3-2m")


def random_reads(content, *seed):
    """[(lba, count, off)] inside the content, from one sector to many."""
    dice = random.Random(seed_of(*seed))
    sectors = len(content) // SECTOR
    reads = []
    for number in range(RANDOM_READS):
        lba = dice.randrange(sectors)
        longest = min(sectors - lba, READ_SECTORS_MAX if number % 2 else 9)
        reads.append((lba, dice.randint(1, longest), dice.randrange(4)))
    return reads


class Reader:
    """Collects orders for images, and judges the answers in the same sequence."""

    def __init__(self, rig):
        self.rig, self.orders, self.expected = rig, [], []

    def image(self, place, path, block_bytes):
        content = self.rig.content(path)
        self.orders += [place, "media parent", "media child", f"sum child {STEP_SECTORS}"]
        reads = random_reads(content, place, path.name)
        self.orders += [f"read child {lba} {count} {off}" for lba, count, off in reads]
        self.expected.append((path, block_bytes, content, reads))

    def judge(self, report):
        media, sums, reads = report.all("media"), report.all("sum"), iter(report.all("read"))
        for number, (path, block_bytes, content, wanted) in enumerate(self.expected):
            below, child = media[2 * number:2 * number + 2]
            assert below["block"] == str(block_bytes), "the machine has other blocks than wanted"
            assert child["last"] == str(len(content) // SECTOR - 1), path
            assert sums[number] == {"status": "SUCCESS", "blocks": str(len(content) // SECTOR),
                                    "crc": crc(content)}, path
            for lba, count, off in wanted:
                part = content[lba * SECTOR:(lba + count) * SECTOR]
                place = (path, lba, count, off)
                assert next(reads) == {"status": "SUCCESS", "crc": crc(part)}, place
        assert len(sums) == len(self.expected) and next(reads, None) is None


@pytest.mark.parametrize("device,block_bytes", [("virtio", 4096), ("ahci", 512)])
def test_compressed(rig, device, block_bytes):
    """Of both compressions, in small and large clusters, changed since and not."""
    images = [rig.image(name) for name in COMPRESSED[block_bytes]]
    disk = rig.partitioned(f"packed-{device}-{block_bytes}", images, block_bytes)
    reader = Reader(rig)
    for part, image in enumerate(images, 1):
        reader.image(select(device, part), image, block_bytes)
    reader.judge(rig.loaded(reader.orders, machine.Disk(disk, device, block_bytes)))


def test_unpacked_is_forgotten(rig):
    """Of an image that takes another's place, no cluster is the other's."""
    images, contents = [], [bytes([value]) * 65536 for value in (1, 2)]
    for number, content in enumerate(contents):
        raw = rig.folder / f"forgotten-{number}"
        raw.write_bytes(content)
        images.append(raw.with_suffix(".qcow2"))
        disks.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, images[-1])
    orders = [f"select {SLOTS['virtio']} {part}" for part in (1, 2)]
    orders = [*(f"{order}\ndisconnect" for order in orders),
              *(f"{order}\nreconnect 1\nread child 0 128\ndisconnect" for order in orders)]
    report = rig.loaded(orders, machine.Disk(rig.partitioned("forgotten", images)))
    assert report.all("read") == [{"status": "SUCCESS", "crc": crc(content)}
                                  for content in contents]


def whole_disk(rig, name, image, block_bytes):
    """The image as a disk: filled up to whole blocks, as a real disk has no others."""
    disk = rig.folder / f"{name}.raw"
    size = -(-image.stat().st_size // block_bytes) * block_bytes
    disk.write_bytes(image.read_bytes().ljust(size, b"\0"))
    return disk


@pytest.mark.parametrize("device,block_bytes", [("virtio", 512), ("virtio", 4096), ("usb", 512),
                                                ("usb", 4096), ("ahci", 512)])
def test_partitions(rig, device, block_bytes):
    images = [rig.image(name) for name in PARTITIONS]
    disk = rig.partitioned(f"read-{device}-{block_bytes}", images, block_bytes)
    reader = Reader(rig)
    for part, image in enumerate(images, 1):
        reader.image(select(device, part), image, block_bytes)
    reader.judge(rig.loaded(reader.orders, machine.Disk(disk, device, block_bytes)))


@pytest.mark.parametrize("block_bytes", [512, 4096])
@pytest.mark.parametrize("row", range(len(WHOLE_DISKS)))
def test_whole_disks(rig, row, block_bytes):
    """Three disks at once; AHCI has 512-byte blocks only."""
    reader, attached = Reader(rig), []
    for device, name in zip(("virtio", "usb", "ahci"), WHOLE_DISKS[row]):
        image = rig.image(name)
        blocks = 512 if device == "ahci" else block_bytes
        disk = whole_disk(rig, f"whole-{device}", image, blocks)
        attached.append(machine.Disk(disk, device, blocks))
        reader.image(select(device), image, blocks)
    reader.judge(rig.loaded(reader.orders, *attached))


def test_nvme(rig):
    """NVMe cannot be restored: one boot does both block sizes, partitions and whole disks."""
    reader, attached = Reader(rig), []
    slot = SLOTS["nvme"]
    for names, block_bytes in zip(NVME_PARTITIONS, (512, 4096)):
        images = [rig.image(name) for name in names]
        disk = rig.partitioned(f"nvme-{block_bytes}", images, block_bytes)
        attached.append(machine.Disk(disk, "nvme", block_bytes, slot=slot))
        for part, image in enumerate(images, 1):
            reader.image(f"select {slot} {part}", image, block_bytes)
        slot += 1
    for name, block_bytes in zip(NVME_WHOLE, (512, 4096)):
        image = rig.image(name)
        disk = whole_disk(rig, f"nvme-whole-{block_bytes}", image, block_bytes)
        attached.append(machine.Disk(disk, "nvme", block_bytes, slot=slot))
        reader.image(f"select {slot} 0", image, block_bytes)
        slot += 1
    reader.judge(rig.loaded(reader.orders, *attached, cold=True))


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_one_read_below(rig, block_bytes):
    """A warm aligned read of data that lies together costs the disk one read, and no byte more."""
    disk = rig.partitioned(f"cost-{block_bytes}", [rig.image("data-v3-64k")], block_bytes)
    warm_up, orders, expected = [select(part=1)], [], []
    for lba, count in ((0, 8), (128, 8), (0, 128), (1016, 1024), (0, 2048)):
        warm_up.append(f"read child {lba} {count}")
        orders += ["count begin", f"read child {lba} {count}", "count end"]
        expected += [{}, {"reads": "1", "bytes": str(count * SECTOR), "flushes": "0"}]
    report = rig.loaded(warm_up + orders, machine.Disk(disk, "virtio", block_bytes))
    assert all(read["status"] == "SUCCESS" for read in report.all("read"))
    assert report.all("count") == expected


def test_zeros_read_nothing(rig):
    """What is not allocated is not asked of the disk."""
    orders = [select(), "read child 0 8", "count begin", "read child 64 512", "count end"]
    report = rig.loaded(orders, machine.Disk(rig.image("empty-v3-64k")))
    assert report.all("read")[-1] == {"status": "SUCCESS", "crc": crc(bytes(512 * SECTOR))}
    assert report.all("count")[-1] == {"reads": "0", "bytes": "0", "flushes": "0"}
