# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots a Debian that lies in a qcow2, root file system and all, and says whether it was whole.

The driver starts its loader, its initramfs attaches the image anew (images/handover), and somebody
logs in on the serial line: on the first boot a file is written, on the second it must be there.

Promises: exit status 0 only if both boots came to the login, with / on the image, ended by
themselves, let go of the image, and left one in which qemu-img finds nothing wrong. Everything else
ends with a line "run: FAILED: ..." and status 1; a machine that hangs is ended. `--break digest`
changes the image's header behind the firmware's back: it must be refused, which is a failure too.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import machine
from demo import ROOT, console, finish

from images import demo, disks
from images.debian import debian

BOOT_TIMEOUT_S = 420
MEMORY_MIB = 768
ROOM = 512 * disks.MIB  # for the image to grow in
SIZE_OFF = 24  # of the guest disk's size in the image's header
PROMPT = r"root@debian:~# $"
LOGIN = r"debian login: $"
DEAD_ENDS = (
    (r"qcow2: \S+: refused: .*\n", "the initramfs does not attach the image"),
    (r"Kernel panic.*\n", "the system died"),
    (r"I/O error.*\n", "the image went too early"),
    (r"ALERT!.*\n", "the root file system was not found"),
    (r"UEFI Interactive Shell|Shell> |BdsDxe: No bootable option|BdsDxe: failed to start .*\n",
     "the firmware found nothing to start"),
)


@dataclass
class Image:
    """Where the qcow2 lies on the machine's disks."""
    disks: list
    layout: str

    def place(self):
        """(file, offset, bytes) of the partition or disk."""
        if self.layout == "disk":
            return self.disks[1], 0, self.disks[1].stat().st_size
        number = 1 if self.layout == "file" else 2
        with open(self.disks[0], "rb") as disk:
            disk.seek(1024 + (number - 1) * disks.ENTRY_BYTES + 32)
            first, last = (int.from_bytes(disk.read(8), "little") for _ in range(2))
        return self.disks[0], first * 512, (last + 1 - first) * 512

    def spoil(self):
        """Another image takes its place, as far as the header tells."""
        path, host_off, _length = self.place()
        with open(path, "r+b") as disk:
            disk.seek(host_off + SIZE_OFF + 6)
            disk.write(b"\x02")

    def check(self):
        """What qemu-img finds wrong, or None."""
        path, host_off, length = self.place()
        if self.layout == "file":
            taken = path.with_name("taken.qcow2")
            disks.run("mcopy", "-n", "-o", "-i", f"{path}@@{host_off}", "::system.qcow2", taken,
                      env=disks.tools_env())
            path, host_off, length = taken, 0, taken.stat().st_size
        options = ("driver=qcow2,file.driver=raw,file.file.driver=file,"
                   f"file.file.filename={path},file.offset={host_off},file.size={length}")
        done = subprocess.run(["qemu-img", "check", "--image-opts", options], text=True,
                              capture_output=True, timeout=120, check=False)
        print(f"run: qemu-img check: {done.stdout.splitlines()[0]}", flush=True)
        return None if done.returncode == 0 else f"qemu-img check: {done.stdout}{done.stderr}"


def file_disk(folder, driver, boot_program, system):
    """One disk whose ESP has the image as a file, which a line of the configuration names."""
    config = folder / "qcow2.conf"
    config.write_text(f"image debian\n  file \\{system.name}\n")
    files = {"EFI/BOOT/BOOTX64.EFI": boot_program, "EFI/BOOT/qcow2x64.efi": driver,
             "EFI/qcow2/qcow2.conf": config}
    size = system.stat().st_size
    esp = disks.make_fat(folder / "esp.fat", files, 32, size + size // 16)
    disks.add_image(esp, system.name, system, 0)
    return [disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp)], name="machine")]


def make(options):
    """The machine's disks, made anew around a copy of the cached image."""
    folder = options.build / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    system = folder / "system.qcow2"
    disks.run("cp", "--sparse=always", debian(ROOT / "build/cache"), system)
    os.truncate(system, disks.round_up(system.stat().st_size, disks.MIB) + ROOM)
    programs = (options.build / "x64/qcow2x64.efi", options.build / "x64/qcow2.efi")
    if options.layout == "file":
        return Image(file_disk(folder, *programs, system), options.layout)
    esp = disks.make_esp(folder / "esp.fat", *programs)
    return Image(demo.write_disks(folder, options.layout, esp, [system]), options.layout)


class Dialog:
    """Answers the console: each step waits for its pattern and types what belongs to it."""

    def __init__(self, qemu, steps, on_linux):
        self.qemu, self.steps, self.on_linux = qemu, list(steps), on_linux
        self.text, self.seen = "", 0  # seen: up to where it was answered

    def hear(self, piece):
        """The dead end met, or None."""
        sys.stdout.write(piece)
        sys.stdout.flush()
        self.text += piece
        if self.on_linux and "Linux version" in self.text:
            self.on_linux()
            self.on_linux = None
        for pattern, meaning in DEAD_ENDS:
            if found := re.search(pattern, self.text):
                return f"{meaning}: {found.group().strip()}"
        if self.steps and re.search(self.steps[0][0], self.text[self.seen:]):
            self.seen = len(self.text)
            self.qemu.stdin.write(f"{self.steps.pop(0)[1]}\n".encode())
            self.qemu.stdin.flush()
        return None

    def run(self, deadline):
        """To the machine's end; the reason of the failure or None."""
        for piece in console(self.qemu, deadline):
            if end := self.hear(piece):
                return end
        if self.steps:
            return f"the console never said {self.steps[0][0]!r}"
        return None if time.monotonic() < deadline else "the machine did not end in time"


def boot(image, folder, steps, wanted, on_linux=None):
    """Boots to the end; the reason of the failure or None. wanted: what the console must have said.
    """
    command = machine.firmware(folder) + ["-m", str(MEMORY_MIB), "-serial", "stdio"]
    for number, path in enumerate(image.disks):
        command += machine.attach(machine.Disk(path, slot=0x10 + number))
    started = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as qemu:
        try:
            dialog = Dialog(qemu, steps, on_linux)
            failure = dialog.run(started + BOOT_TIMEOUT_S)
            if failure:
                qemu.kill()
            ended = finish(qemu)
        finally:
            qemu.kill()
    print(f"\nrun: {time.monotonic() - started:.0f} s", flush=True)
    missing = [words for words in wanted if not re.search(words, dialog.text, re.MULTILINE)]
    if failure or not missing:
        return failure or (None if ended else "the machine did not power off")
    return f"the console never said {missing[0]!r}"


def boot_twice(image, folder, on_linux=None):
    """A file is written, read at the next boot, and the image checked; why not, or None."""
    nonce = secrets.token_hex(16)
    wanted = [r"^/dev/nbd0p2$", r"^qcow2: nbd0 is let go$"]
    for say, more in ((f"echo {nonce} >kept", []), ("cat kept", [f"^{nonce}$"])):
        print(f"run: booting, layout {image.layout}, at most {BOOT_TIMEOUT_S} s", flush=True)
        steps = [(LOGIN, "root"), (PROMPT, "findmnt -no SOURCE /"), (PROMPT, say),
                 (PROMPT, "poweroff")]
        failure = boot(image, folder, steps, wanted + more, on_linux)
        failure = failure or image.check()
        if failure:
            return failure
    return None


def run(options):
    """Both boots and the check; the reason of the failure or None."""
    print("run: making the disks (the first time with debootstrap)", flush=True)
    try:
        image = make(options)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"the disks could not be made: {error}"
    return boot_twice(image, options.build / "debian", image.spoil if options.broken else None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--layout", choices=demo.LAYOUTS, default=demo.LAYOUTS[0])
    parser.add_argument("--image", choices=["debian"])
    parser.add_argument("--break", dest="broken", choices=["digest"])
    failure = run(parser.parse_args())
    print(f"\nrun: FAILED: {failure}" if failure else
          "\nrun: Debian reached twice, its root in the image, and the image is clean", flush=True)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
