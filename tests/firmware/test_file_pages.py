# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Why a file on a FAT volume is written only where it has whole pages of the volume to itself.

The firmware's file system driver keeps 64 KiB pages (8 KiB on FAT12), counted from behind the
tables, and writes them back whole. Who writes a file's clusters on the disk itself gets old bytes
back when a neighbour in a page is written: in the shared pages, on this firmware, and nowhere else.
With pages of its own, any work on the rest of the volume leaves the file as it was written.
"""

import json
import random
import struct
import subprocess

import pytest

import vm
from conftest import seed_of, select
from images import disks

SECTOR = 512
SHIFT = 5 * SECTOR  # how far the image begins before a page where it does not own its pages
STEPS = 60
TIMEOUT_S = 60
SIZES = {12: (1, 8 << 10), 16: (8, 64 << 10), 32: (40, 64 << 10)}  # MiB, bytes of a page
IMAGE_PAGES = 3
AFTER = 10 * SECTOR


def page_base(volume):
    """Where pages are counted from: behind the tables."""
    boot = volume.read_bytes()[:SECTOR]
    reserved, tables, sectors = boot[14], boot[16], struct.unpack_from("<H", boot, 22)[0]
    return SECTOR * (reserved + tables * (sectors or struct.unpack_from("<I", boot, 36)[0]))


class Volume:
    """A disk with a volume of one-sector clusters: FIRST, BEFORE, IMAGE, AFTER, in this order."""

    def __init__(self, rig, width, owns):
        mib, self.page = SIZES[width]
        self.folder = rig.folder / f"pages-{width}-{owns}"
        self.folder.mkdir(exist_ok=True)
        self.tool = rig.build / "host" / "qc-fat"
        self.fat = self.folder / "volume"
        self.fat.write_bytes(bytes(mib << 20))
        disks.run("mkfs.vfat", "--invariant", "-F", width, "-s", 1, self.fat)
        first = self.put("FIRST", SECTOR)["runs"][0][1] + SECTOR - page_base(self.fat)
        self.before = -first % self.page + self.page - (0 if owns else SHIFT)
        self.put("BEFORE", self.before)
        told = self.put("IMAGE", self.page * IMAGE_PAGES)
        self.off = told["runs"][0][1]
        assert len(told["runs"]) == 1 and told["owns"] == owns
        self.image = bytearray(b"o" * told["size"])
        self.put("AFTER", AFTER)
        path = disks.write_gpt(self.folder / "disk.raw", [(disks.ESP_TYPE, self.fat)])
        self.disk = vm.Kept(path, slot=vm.SLOTS["virtio"])

    def put(self, name, size):
        source = self.folder / "source"
        source.write_bytes(b"o" * size)
        disks.run("mcopy", "-o", "-i", self.fat, source, f"::{name}")
        return self.look(name)

    def look(self, name):
        done = subprocess.run([self.tool, self.fat, self.folder, name], capture_output=True,
                              text=True, timeout=TIMEOUT_S, check=True)
        return json.loads(done.stdout)

    def write(self, at, size, seed):
        """The order that writes the image's sectors on the disk itself."""
        lba = (self.off + at) // SECTOR
        self.image[at:at + size] = vm.pattern(seed, lba, size // SECTOR)
        return f"write parent {lba} {size // SECTOR} {seed}"

    def stale(self):
        """The image's sectors that are not as they were written last, in the machine's end."""
        self.fat.write_bytes(disks.partition_bytes(self.disk.path, 1))
        check = subprocess.run(["fsck.vfat", "-n", self.fat], capture_output=True, text=True,
                               timeout=TIMEOUT_S, check=False)
        assert check.returncode == 0, check.stdout
        assert self.look("IMAGE")["status"] == 0
        found = (self.folder / "0").read_bytes()
        assert len(found) == len(self.image)
        return [at for at in range(0, len(found), SECTOR)
                if found[at:at + SECTOR] != self.image[at:at + SECTOR]]


def run(rig, volume, orders):
    report = rig.run(["connect", select(part=1), *orders], volume.disk)
    for order in ("write", "edit", "peek", "remove", "settle", "sync"):
        assert all(answer["status"] == "SUCCESS" for answer in report.all(order)), report.lines
    return report


@pytest.mark.parametrize("width", SIZES)
def test_shared_pages(rig, width):
    """The pages at both ends come back as the neighbours' reader had them; the rest stays."""
    volume = Volume(rig, width, owns=False)
    size = len(volume.image)
    run(rig, volume, [f"peek BEFORE {volume.before - SECTOR} 512", "peek AFTER 0 512",
                      volume.write(0, size, 7), f"edit BEFORE {volume.before - SECTOR} 512 9",
                      "edit AFTER 0 512 9"])
    last = size - (volume.page - SHIFT)
    assert volume.stale() == [*range(0, SHIFT, SECTOR), *range(last, size, SECTOR)]


def work(volume, seed):
    """Orders on the whole volume, the image's sectors written on the disk among them."""
    chance, orders, made = random.Random(seed), [], []
    for step in range(STEPS):
        kind = chance.choice(["write", "write", "edit", "edit", "peek", "new", "remove"])
        if kind == "write":
            at = chance.randrange(len(volume.image) // SECTOR) * SECTOR
            size = min(chance.choice([1, 8, 100, 200]) * SECTOR, len(volume.image) - at)
            orders.append(volume.write(at, size, step + 1))
        elif kind == "edit":
            name, size = chance.choice([("BEFORE", volume.before), ("AFTER", AFTER)])
            at = chance.randrange(size)
            orders.append(f"edit {name} {at} {chance.randrange(1, size - at + 1)} {step}")
        elif kind == "peek":
            name, size = chance.choice([("BEFORE", volume.before), ("AFTER", AFTER),
                                        ("IMAGE", len(volume.image))])
            orders.append(f"peek {name} {chance.randrange(size)} {chance.randrange(1, size)}")
        elif kind == "new":
            made.append(f"N{step}")
            orders.append(f"edit {made[-1]} 0 {chance.randrange(1, 40 * SECTOR)} {step}")
        elif made:
            orders.append(f"remove {made.pop(chance.randrange(len(made)))}")
    return orders


@pytest.mark.parametrize("owns", [True, False])
@pytest.mark.parametrize("width", SIZES)
def test_work_around(rig, width, owns):
    """Neighbours, new files and the image itself are read and written by the firmware's driver."""
    volume = Volume(rig, width, owns)
    run(rig, volume, work(volume, seed_of("pages", width)))
    stale = volume.stale()
    last = len(volume.image) - (volume.page - SHIFT)
    assert all(at < SHIFT or at >= last for at in stale)
    assert bool(stale) != owns


@pytest.mark.parametrize("settled", [True, False])
def test_written_before(rig, settled):
    """What the firmware's driver still has of the file lands later, unless it is flushed first."""
    volume = Volume(rig, 32, owns=True)
    volume.image[:2 * SECTOR] = vm.pattern(3, 0, 2)
    orders = ["edit IMAGE 0 1024 3 held", *(["settle"] if settled else []),
              volume.write(SECTOR, 4 * SECTOR, 9), "sync"]
    run(rig, volume, orders)
    assert volume.stale() == ([] if settled else [at * SECTOR for at in range(1, 5)])


def test_removed(rig):
    """A removal is on the disk when it is answered, so that who looks sees it."""
    volume = Volume(rig, 32, owns=True)
    run(rig, volume, ["peek IMAGE 0 512", "remove IMAGE"])
    volume.fat.write_bytes(disks.partition_bytes(volume.disk.path, 1))
    assert volume.look("IMAGE") == {"status": 6}
