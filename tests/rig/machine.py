# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Command lines of the QEMU machines that the rig boots: OVMF on a q35, software emulation.

Promises: every disk is attached as raw, so that QEMU never interprets a qcow2 that only the driver
may read; the firmware's variables are a private copy; nothing needs a display, a network, KVM or a
privilege. Starting and watching the machine is left to demo.py, boot.py and vm.py.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF")
DEVICES = ("virtio", "nvme", "ahci", "usb")


@dataclass
class Disk:
    path: Path
    device: str = "virtio"
    block_bytes: int = 512  # logical blocks; AHCI has no others
    snapshot: bool = False  # writes are thrown away
    readonly: bool = False  # the device refuses writes
    log: Path = None  # every write and flush is also kept in this file (logwrites.py reads it)
    # Slot numbers on PCI. AHCI is part of the chipset, USB hangs on the controller of this slot.
    slot: int = 0x10
    bootindex: int = -1


def firmware(scratch):
    """The machine itself, with a fresh copy of the firmware's variables in scratch."""
    variables = Path(scratch) / "vars.fd"
    shutil.copyfile(FIRMWARE / "OVMF_VARS_4M.fd", variables)
    # The machine ends with whoever started it, however that ends.
    return ["setpriv", "--pdeathsig", "KILL", QEMU, "-machine", "q35", "-accel", "tcg",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd",
            "-drive", f"if=pflash,format=raw,file={variables}"]


def attach(disk):
    """The options that attach one disk."""
    # A comma would end the file's name in QEMU's syntax; doubled it is one.
    path = str(disk.path).replace(",", ",,")
    ident = f"d{disk.slot:x}"
    drive = f"if=none,id={ident},format=raw,file={path}"
    if disk.readonly:
        drive += ",readonly=on"
    elif disk.snapshot:
        drive += ",snapshot=on"
    words = ["-drive", drive]
    if disk.log:
        # The superblock is updated at every entry: the machine may end at any moment.
        words = ["-blockdev", f"driver=blklogwrites,node-name={ident},log-sector-size=512,"
                 f"log-super-update-interval=1,file.driver=file,file.filename={path},"
                 f"log.driver=file,log.filename={str(disk.log).replace(',', ',,')}"]
    blocks = f"logical_block_size={disk.block_bytes},physical_block_size={disk.block_bytes}"
    boot = "" if disk.bootindex < 0 else f",bootindex={disk.bootindex}"
    if disk.device == "virtio":
        device = f"virtio-blk-pci,addr={disk.slot:#x},drive={ident},{blocks}"
    elif disk.device == "nvme":
        device = f"nvme,addr={disk.slot:#x},drive={ident},serial={ident},{blocks}"
    elif disk.device == "ahci":
        device = f"ide-hd,bus=ide.0,drive={ident}"
    elif disk.device == "usb":
        # usb-storage would be one device less, but takes no block size.
        words += ["-device", f"qemu-xhci,id=usb{ident},addr={disk.slot:#x}",
                  "-device", f"usb-bot,id=bot{ident},bus=usb{ident}.0"]
        device = f"scsi-hd,bus=bot{ident}.0,drive={ident},{blocks}"
    else:
        raise ValueError(f"device {disk.device!r} is none of {', '.join(DEVICES)}")
    return words + ["-device", device + boot]
