# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the firmware tests share: images with their true content, and a way into the machine."""

import hashlib
import os
import subprocess
import zlib
from pathlib import Path

import pytest

import logwrites
import machine
import vm
from images import disks, matrix

ROOM = 8 * disks.MIB  # for an image to grow in
DRIVER = "EFI\\BOOT\\qcow2x64.efi"


class Rig:
    """Builds disks in a folder of its own and runs the agent's orders on them."""

    def __init__(self, build, cache, folder):
        self.build, self.cache, self.folder = build, cache, folder
        self.cells = {cell.name: cell for cell in matrix.cells()}

    def image(self, name):
        """A legal image, by its name in images/matrix.py."""
        return self.cells[name].make(self.cache / "matrix")

    def content(self, qcow2):
        """The bytes that QEMU reads from it, whole sectors only."""
        raw = self.folder / f"{Path(qcow2).stem}.raw"
        if not raw.exists():
            disks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, raw)
        content = raw.read_bytes()
        return content[:len(content) // 512 * 512]

    def partitioned(self, name, images, block_bytes=512):
        """A GPT disk with one partition an image, numbered from 1."""
        parts = [(disks.DATA_TYPE, image) for image in images]
        return disks.write_gpt(self.folder / f"{name}.raw", parts, block_bytes, name)

    def container(self, name, image, device="virtio", block_bytes=512, room=ROOM, log=False,
                  whole=False, slot=None):
        """A writable disk of its own with the image on its one partition, or on the whole disk."""
        grown = self.folder / f"{name}.grown"
        grown.write_bytes(Path(image).read_bytes())
        size = grown.stat().st_size + room
        os.truncate(grown, -(-size // disks.MIB) * disks.MIB)
        path = grown if whole else disks.write_gpt(self.folder / f"{name}.raw",
                                                   [(disks.DATA_TYPE, grown)], block_bytes, name)
        return vm.Kept(path, device, block_bytes, slot=slot or vm.SLOTS[device],
                       log=logwrites.create(self.folder / f"{name}.log") if log else None)

    def run(self, orders, *attached, cold=False):
        return vm.run(self.build, self.cache, orders, attached, cold)

    def loaded(self, orders, *attached, cold=False):
        """The same, behind the driver's load and connect."""
        return self.run(["connect", f"load {DRIVER}", "connect"] + orders, *attached, cold=cold)

    def configured(self, lines, orders, *attached):
        """The same, with these lines as the driver's configuration."""
        config = [f"config {line}" for line in lines]
        return self.run(["connect", *config, f"load {DRIVER}", "connect"] + orders, *attached)


def image_of(disk_bytes, whole=False):
    """The bytes of the partition on a container: behind the first MiB, before the last."""
    return disk_bytes if whole else disk_bytes[disks.ALIGN:-disks.ALIGN]


def judge(qcow2, leaks=False):
    """qemu-img finds nothing wrong, but for leaks where they are allowed; the guest's bytes."""
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", qcow2], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode in ((0, 3) if leaks else (0,)), done.stdout + done.stderr
    raw = Path(f"{qcow2}.judged")
    disks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, raw)
    content = raw.read_bytes()
    raw.unlink()
    return content


def judge_disk(disk, whole=False, leaks=False):
    """The same for the image on a container after the machine has ended."""
    qcow2 = disk.path.with_suffix(".after")
    qcow2.write_bytes(image_of(disk.path.read_bytes(), whole))
    return judge(qcow2, leaks)


@pytest.fixture(scope="session")
def rig(build, cache, tmp_path_factory):
    return Rig(build, cache, tmp_path_factory.mktemp("firmware"))


def entry(name, disk, part, *keys):
    """The configuration's lines for the image in a partition of the disk of that name."""
    return [f"image {name}", f"partition {disks.partition_guid(disk, part)}", *keys]


def base(disk, part):
    """The line that names a partition as the base."""
    return f"base {disks.partition_guid(disk, part)}"


def crc(content):
    """As the agent prints it."""
    return f"{zlib.crc32(content):x}"


def select(device="virtio", part=0):
    return f"select {vm.SLOTS[device]} {part}"


def virtio(path, block_bytes=512):
    return machine.Disk(path, block_bytes=block_bytes)


def seed_of(*words):
    """A number that depends on the words alone."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big")
