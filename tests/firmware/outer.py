# SPDX-License-Identifier: BSD-2-Clause-Patent
"""FAT volumes with images in files, for the tests of the driver's file mode.

Promises: a file that asks for it owns its pages (test_file_pages.py tells what that is for), which
the host's own walk of the volume confirms; what a test reads after a run is what lies on the disk,
and the volume was clean under fsck.vfat.
"""

import json
import os
import subprocess

import logwrites
import vm
from images import disks

SECTOR = 512
TIMEOUT_S = 60
# MiB, sectors of a cluster, bytes of a page that the firmware's driver has
SHAPES = {12: (12, 8, 8 << 10), 16: (20, 4, 64 << 10), 32: (40, 1, 64 << 10)}
# The clock of files: long before any that the machine may set.
ENV = dict(os.environ, MTOOLS_SKIP_CHECK="1", SOURCE_DATE_EPOCH="1700000000", TZ="UTC")


def number(volume, at, size):
    return int.from_bytes(volume[at:at + size], "little")


def page_base(volume):
    """Where pages are counted from: behind the tables."""
    tables = number(volume, 22, 2) or number(volume, 36, 4)
    return SECTOR * (number(volume, 14, 2) + volume[16] * tables)


class Outer:
    """A volume in the making, and the disk that it becomes."""

    def __init__(self, rig, name, width=32, mib=None):
        shape, sectors, self.page = SHAPES[width]
        self.cluster = sectors * SECTOR
        self.folder = rig.folder / f"outer-{name}"
        self.folder.mkdir(exist_ok=True)
        self.tool = rig.build / "host" / "qc-fat"
        self.fat = self.folder / "volume"
        self.fat.write_bytes(b"")
        os.truncate(self.fat, (mib or shape) << 20)
        disks.run("mkfs.vfat", "--invariant", "-F", width, "-s", sectors, self.fat)
        self.pads = 0

    def mkdir(self, name):
        disks.run("mmd", "-i", self.fat, f"::{name}", env=ENV)

    def put(self, name, content):
        source = self.folder / "source"
        source.write_bytes(content)
        disks.run("mcopy", "-o", "-i", self.fat, source, f"::{name}", env=ENV)
        return self.look(name)

    def pad(self, size):
        self.pads += 1
        return self.put(f"PAD{self.pads}", b"p" * size)

    def image(self, name, qcow2, room=disks.MIB):
        """An image in one run that owns its pages, with room to grow in."""
        end = self.pad(self.cluster)["runs"][0][1] + self.cluster
        gap = -(end - page_base(self.fat.read_bytes()[:SECTOR])) % self.page
        if gap:
            self.pad(gap)
        content = qcow2.read_bytes()
        size = disks.round_up(len(content) + room, self.page)
        told = self.put(name, content.ljust(size, b"\0"))
        assert told["owns"] and len(told["runs"]) == 1
        return told

    def look(self, name):
        done = subprocess.run([self.tool, self.fat, self.folder, name], capture_output=True,
                              text=True, timeout=TIMEOUT_S, check=True)
        return json.loads(done.stdout)

    def disk(self, log=False):
        """The disk, which keeps what is written."""
        path = disks.write_gpt(self.folder / "disk.raw", [(disks.ESP_TYPE, self.fat)], name="outer")
        self.kept = vm.Kept(path, slot=vm.SLOTS["virtio"],
                            log=logwrites.create(self.folder / "log") if log else None)
        return self.kept

    def check(self, disk_bytes=None):
        """Takes the volume from its disk; fsck finds it clean."""
        self.fat.write_bytes(disks.partition_bytes(self.kept.path, 1) if disk_bytes is None
                             else disk_bytes[disks.ALIGN:-disks.ALIGN])
        done = subprocess.run(["fsck.vfat", "-n", self.fat], capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, done.stdout

    def content(self, name):
        """A file's bytes, by the host's walk of the volume that check() took."""
        told = self.look(name)
        assert told["status"] == 0, told
        return (self.folder / "0").read_bytes()

    def qcow2(self, name):
        """The same as a file of the host."""
        path = self.folder / f"{name.split('/')[-1]}.after"
        path.write_bytes(self.content(name))
        return path


def chain(volume, cluster):
    """The clusters of a file of a FAT32 volume."""
    found, table = [], number(volume, 14, 2) * SECTOR
    while cluster < 0x0FFFFFF8:
        found.append(cluster)
        cluster = number(volume, table + 4 * cluster, 4) & 0x0FFFFFFF
    return found


def scatter(outer, name, places):
    """
    Moves a file of a FAT32 volume of one-sector clusters: its clusters lie at the offsets of places
    then, which nothing else has.
    """
    volume, told = bytearray(outer.fat.read_bytes()), outer.look(name)
    table = number(volume, 14, 2) * SECTOR
    table_bytes = number(volume, 36, 4) * SECTOR
    first = table + volume[16] * table_bytes
    old = chain(volume, told["cluster"])
    new = [2 + (place - first) // SECTOR for place in places]
    assert len(new) == len(old)
    offs = [first + (at - 2) * SECTOR for at in old]
    content = b"".join(bytes(volume[off:off + SECTOR]) for off in offs)
    for copy in range(volume[16]):
        base = table + copy * table_bytes
        for at in old:
            volume[base + 4 * at:base + 4 * at + 4] = bytes(4)
        for at, to in zip(new, new[1:] + [0x0FFFFFFF]):
            volume[base + 4 * at:base + 4 * at + 4] = to.to_bytes(4, "little")
    for index, off in enumerate(places):
        volume[off:off + SECTOR] = content[index * SECTOR:(index + 1) * SECTOR]
    entry = told["entry"]
    volume[entry + 20:entry + 22] = (new[0] >> 16).to_bytes(2, "little")
    volume[entry + 26:entry + 28] = (new[0] & 0xFFFF).to_bytes(2, "little")
    outer.fat.write_bytes(volume)
    return outer.look(name)
