# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Command lines of the QEMU machines that the rig boots: OVMF on a q35, in software emulation, and
its sibling for 64-bit Arm.

Promises: every disk is attached as raw, so that QEMU never interprets a qcow2 that only the driver
may read; the firmware's variables are a private copy; nothing needs a display, a network, KVM or a
privilege. Starting and watching the machine is left to others.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF")
QEMU_ARM = "qemu-system-aarch64"
FIRMWARE_ARM = Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
# The key that secure_firmware trusts, known to all the world, and what guards it on paper.
SNAKEOIL = Path("/usr/share/ovmf/PkKek-1-snakeoil")
SNAKEOIL_PASSWORD = "snakeoil"
DEVICES = ("virtio", "scsi", "nvme", "ahci", "usb")


@dataclass
class Disk:
    path: Path
    device: str = "virtio"
    block_bytes: int = 512  # logical blocks; AHCI has no others
    snapshot: bool = False  # writes are thrown away
    readonly: bool = False  # the device refuses writes
    log: Path = None  # every write and flush is also kept in this file (logwrites.py reads it)
    # On PCI. AHCI is part of the chipset; USB and SCSI hang on a controller in this slot.
    slot: int = 0x10
    bootindex: int = -1


def started(qemu, *machine):
    """What all machines have in common; each ends with whoever started it, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", qemu, "-machine", *machine, "-accel", "tcg",
            "-nodefaults", "-display", "none", "-no-reboot"]


def flash(scratch, code, variables):
    """The firmware and a fresh copy of its variables in scratch."""
    copy = Path(scratch) / "vars.fd"
    shutil.copyfile(FIRMWARE / variables, copy)
    return ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE / code}",
            "-drive", f"if=pflash,format=raw,file={copy}"]


def firmware(scratch):
    """The machine itself."""
    return started(QEMU, "q35") + flash(scratch, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")


def secure_firmware(scratch):
    """The machine with Secure Boot on, which trusts the key SNAKEOIL alone."""
    # The variables are safe only where nothing but System Management Mode can write the flash.
    return (started(QEMU, "q35,smm=on", "-global",
                    "driver=cfi.pflash01,property=secure,value=on")
            + flash(scratch, "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.snakeoil.fd"))


def arm_firmware():
    """The machine for 64-bit Arm; its variables are gone when it ends."""
    return started(QEMU_ARM, "virt", "-cpu", "cortex-a57") + ["-bios", str(FIRMWARE_ARM)]


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
    elif disk.device == "scsi":
        words += ["-device", f"virtio-scsi-pci,id=scsi{ident},addr={disk.slot:#x}"]
        device = f"scsi-hd,bus=scsi{ident}.0,drive={ident},{blocks}"
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
