# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the conformance client (tests/firmware/conformance) in OVMF on disks made for it.

Two targets: "image", an image through the driver, on a disk of the wanted kind, and beside it one
on a disk that takes no writes; and "parent", the handle of OVMF's own driver for a blank disk of
that kind. The client writes all over them.

Promises: exit status 0 only if nothing failed and qemu-img finds the images whole afterwards; or,
for a driver of OVMF that is known to break one rule, if exactly the assertions on that rule failed.
The machine ends in time or is ended.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from images import disks  # noqa: E402  (the path comes first)

BOOT_TIMEOUT_S = 240
EXIT_GOOD = 0x10 << 1 | 1
TARGETS_BYTES = 64  # as the client reads them
ESP_SLOT, FIRST_SLOT = 0x0F, 0x10
DISK_BYTES = 64 * disks.MIB
IMAGE_BYTES = 16 * disks.MIB
MEMORY_MIB = 256
# What drivers of OVMF are known to get wrong, by the disks they drive: the kind of the assertions
# that fail for it, as the client names them, and the sentence.
KNOWN_FAULTS = {
    "virtio": ("MediaId", "VirtioBlkDxe: MediaId is not looked at"),
    "nvme": ("wrap", "NvmExpressDxe: LBAs of a request may wrap past 2^64"),
}
DEVICES = ("virtio", "nvme")


class ConformanceError(Exception):
    pass


@dataclass
class Handle:
    """What the client said of one handle."""
    kind: str
    lines: list = field(default_factory=list)  # as they came
    failures: list = field(default_factory=list)  # those of assertions that failed
    kinds: dict = field(default_factory=dict)  # kind: (assertions, those that failed)
    assertions: int = 0
    failed: int = -1  # the client did not get to the end of it

    def has_only(self, kind):
        """Whether all assertions of the kind failed, and nothing else."""
        of_kind, failed = self.kinds.get(kind, (0, 0))
        return 0 < of_kind == failed == self.failed


def make_disk(folder, kind, slot, device, readonly=False):
    """A disk to be written all over, with some noise, or with a fresh image of it."""
    path = folder / f"{kind}-{slot:x}.raw"
    # Content of its own, so that reads have something to tell apart.
    path.write_bytes(os.urandom(disks.MIB))
    os.truncate(path, IMAGE_BYTES if kind == "image" else DISK_BYTES)
    if kind == "image":
        content = path.rename(folder / "content.raw")
        disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, path)
        os.truncate(path, DISK_BYTES)
    return machine.Disk(path, device, readonly=readonly, slot=slot)


def disks_for(folder, device, target):
    """[(kind, disk)] of one target; disks of one machine need different slots."""
    if target == "parent":
        return [("parent", make_disk(folder, "parent", FIRST_SLOT, device))]
    return [("image", make_disk(folder, "image", FIRST_SLOT, device)),
            ("image", make_disk(folder, "image", FIRST_SLOT + 1, "virtio", readonly=True))]


def command_line(folder, build, wanted):
    esp = disks.make_esp(folder / "esp.fat", build / "x64/qcow2x64.efi",
                         build / "x64/conformance.efi")
    system = disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, esp)], name="conformance")
    targets = " ".join(f"{kind} {disk.slot}" for kind, disk in wanted)
    (folder / "targets").write_text(targets.ljust(TARGETS_BYTES))
    words = machine.firmware(folder) + [
        "-m", str(MEMORY_MIB), "-serial", f"file:{folder}/serial",
        "-debugcon", f"file:{folder}/debug", "-global", "isa-debugcon.iobase=0x402",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-fw_cfg", f"name=opt/qcow2/targets,file={folder}/targets"]
    # Only the client's disk is bootable: the firmware leaves the others alone.
    everything = [machine.Disk(system, slot=ESP_SLOT, bootindex=0)]
    for disk in everything + [disk for _, disk in wanted]:
        words += machine.attach(disk)
    return words


def parse(text):
    """The handles that the client reports on, in order."""
    handles = []
    for line in text.splitlines():
        if line.startswith("handle "):
            handles.append(Handle(line.split()[1]))
        if not handles:
            continue
        handle = handles[-1]
        handle.lines.append(line)
        numbers = [int(number) for number in re.findall(r"\d+", line)]
        if line.startswith("FAIL "):
            handle.failures.append(line)
        elif line.startswith("kind "):
            handle.kinds[line.split()[1].rstrip(":")] = tuple(numbers)
        elif line.startswith("sum: "):
            handle.assertions, _passed, handle.failed = numbers
    return handles


def execute(folder, build, wanted):
    """Boots the client on these disks; (what it said, the handles it reports on)."""
    command = command_line(folder, build, wanted)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=BOOT_TIMEOUT_S, check=False)
        ending = f"ended with {done.returncode}: {done.stderr}"
    except subprocess.TimeoutExpired:
        done, ending = None, f"did not end within {BOOT_TIMEOUT_S} s"
    debug = folder / "debug"
    text = debug.read_text(errors="replace") if debug.exists() else ""
    handles = parse(text)
    if done is None or done.returncode != EXIT_GOOD or len(handles) != len(wanted) or \
            any(handle.failed < 0 for handle in handles):
        raise ConformanceError(f"the machine {ending}; the client said:\n{text}")
    return text, handles


def run(folder, build, wanted):
    """The same, and the images are whole afterwards."""
    text, handles = execute(folder, build, wanted)
    for kind, disk in wanted:
        if kind == "image":
            disks.run("qemu-img", "check", "-f", "qcow2", disk.path)
    return text, handles


def verdict(handles, device, target):
    """(exit status, closing line or None)"""
    if all(handle.failed == 0 for handle in handles):
        return 0, None
    kind, sentence = KNOWN_FAULTS.get(device, (None, "")) if target == "parent" else (None, "")
    if kind and all(handle.has_only(kind) for handle in handles):
        count = sum(handle.failed for handle in handles)
        return 0, f"known fault of {sentence}: {count} assertions"
    return 1, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--disk", choices=DEVICES, default=DEVICES[0])
    parser.add_argument("--target", choices=("image", "parent"), default="image")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qcow2-conformance-") as scratch:
        folder = Path(scratch)
        try:
            text, handles = run(folder, options.build.resolve(),
                                disks_for(folder, options.disk, options.target))
        except (ConformanceError, OSError, RuntimeError) as error:
            print(f"conformance: {error}", file=sys.stderr)
            return 1
    status, closing = verdict(handles, options.disk, options.target)
    print(text, end="")
    if closing:
        print(closing)
    return status


if __name__ == "__main__":
    sys.exit(main())
