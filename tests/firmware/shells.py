# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A machine with the EFI shell, and a volume with the command and images on it.

Promises: one boot serves a whole file of tests; what the shell says to a line comes without the
line and the prompt.
"""

import os
import re
import shutil
from pathlib import Path

import machine
from console import PROMPT, Console
from images import disks

MEMORY_MIB = 256
VOLUME_BYTES = 128 << 20
CLUSTER_SECTORS = 2  # so many clusters make it FAT32
FOLDER = "EFI/qcow2"
PROGRAMS = ("qcow2.efi", "qcow2x64.efi", "qcow2.man")


def make_volume(path, files):
    """
    A FAT32 volume with room, in which old bytes lie. files: {"images/A.QCOW2": its content's path}.
    """
    path.write_bytes(b"\xee" * VOLUME_BYTES)
    disks.run("mkfs.vfat", "--invariant", "-F", "32", "-s", CLUSTER_SECTORS, path)
    folders = {folder for name in files for folder in list(Path(name).parents)[:-1]}
    if folders:
        disks.run("mmd", "-i", path, *sorted((f"::{name}" for name in folders), key=len))
    for name, source in files.items():
        disks.run("mcopy", "-i", path, source, f"::{name}")
    return path


def programs(build):
    """What `make install` brings to a volume."""
    return {f"{FOLDER}/{name}": build / "x64" / name for name in PROGRAMS}


def take(disk, folder, *names):
    """Copies of files on the volume in partition 1 of the disk."""
    volume = folder / "taken.fat"
    volume.write_bytes(disks.partition_bytes(disk, 1))
    copies = [folder / f"taken-{Path(name).name}" for name in names]
    for name, copy in zip(names, copies):
        copy.unlink(missing_ok=True)
        disks.run("mcopy", "-n", "-i", volume, f"::{name}", copy)
    return copies


def dense(source, copy):
    """The same content without holes, as it is on a volume."""
    shutil.copyfile(source, copy)
    with open(copy, "r+b") as file:
        content = file.read()
        file.seek(0)
        file.write(content)
        os.fsync(file.fileno())
    return copy


class Shell:
    """What is typed, and what is said."""

    def __init__(self, console, disk, folder):
        self.console, self.disk, self.folder = console, disk, folder

    def run(self, line, wait=PROMPT):
        """The lines that are said to a line."""
        self.console.type(line + "\r")
        said = self.console.wait(re.escape(line) + r"\s*\n")
        said = self.console.wait(wait)
        if wait != PROMPT:
            said += self.console.wait(PROMPT)
        return said.splitlines()[:-1]

    def status(self):
        """%lasterror% of the last line."""
        return int(self.run("echo %lasterror%")[0], 16)

    def fresh(self, line):
        """The same as run, of a line that succeeds."""
        said = self.run(line)
        assert self.status() == 0, said
        return said


def started(scratch, *attached):
    """A machine that boots into the shell."""
    command = machine.firmware(scratch) + ["-m", str(MEMORY_MIB)]
    for disk in attached:
        command += machine.attach(disk)
    return Console(command, scratch)
