# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots OVMF with the driver and a disk or image of one's own; the console is this terminal.

Promises: the disk is attached as it is (raw: only the driver sees the qcow2 in it). An image gets a
small disk beside it, whose EFI system partition holds the driver, and the boot program or the files
of a folder of one's own. Any other disk is a machine's own and gets that only with such a folder.
What the machine writes to the disk stays there. Ctrl-A X ends the machine.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from images import disks  # noqa: E402  (the path comes first)

MEMORY_MIB = 1024
DRIVER = "qcow2x64.efi"
MAGIC = b"QFI\xfb"


def esp_files(build, folder):
    """{name on the ESP: path}: folder's files, or the boot program's; the driver in either case."""
    files = {"EFI/BOOT/BOOTX64.EFI": build / "x64/qcow2.efi"}
    if folder:
        files = {str(path.relative_to(folder)): path
                 for path in sorted(folder.rglob("*")) if path.is_file()}
    if not any(Path(name).name.lower() == DRIVER for name in files):
        files[f"EFI/BOOT/{DRIVER}"] = build / "x64" / DRIVER
    return files


def complaint(disk, folder):
    """What is wrong with the arguments, or None."""
    usage = "usage: make boot DISK=path [ESP=folder] [DEVICE=virtio|scsi|nvme|ahci|usb]"
    if not disk:
        return f"DISK is not set; {usage}"
    if not disk.is_file() and not disk.is_block_device():
        return f"DISK={disk}: no such file or block device; {usage}"
    if folder and not folder.is_dir():
        return f"ESP={folder}: no such folder; {usage}"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--disk", default="")
    parser.add_argument("--esp", type=Path)
    parser.add_argument("--device", choices=machine.DEVICES, default=machine.DEVICES[0])
    options = parser.parse_args()
    disk = Path(options.disk) if options.disk else None
    if wrong := complaint(disk, options.esp):
        print(f"boot: {wrong}", file=sys.stderr)
        return 2
    folder = options.build / "boot"
    try:
        with open(disk, "rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        print(f"boot: DISK={disk}: {error.strerror}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    command = machine.firmware(folder) + ["-m", str(MEMORY_MIB), "-serial", "mon:stdio"]
    if options.esp or magic == MAGIC:
        esp = disks.make_fat(folder / "esp.fat", esp_files(options.build, options.esp))
        system = disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, esp)], name="boot")
        command += machine.attach(machine.Disk(system, slot=0x0F))
    print("boot: Ctrl-A X ends the machine", flush=True)
    command += machine.attach(machine.Disk(disk, device=options.device, slot=0x10))
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
