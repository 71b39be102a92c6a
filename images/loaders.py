# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Volumes with the boot loaders of Debian on them, and the qcow2 images that such volumes lie in.

Promises: the loaders are the distribution's own (GRUB as grub-mkimage puts it together); what they
are told to do is written here; a qcow2 has the one volume as partition 1 of a GPT disk. Booting it
is left to others.
"""

from pathlib import Path

from images import disks

SYSTEMD_BOOT = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
GRUB_MODULES = ("normal", "part_gpt", "fat", "configfile", "test", "echo", "ls", "cat", "cmp",
                "hashsum", "gcry_sha256", "loadenv", "sleep", "reboot")


def written(folder, name, text):
    """A file of that content, for volumes to take it from."""
    path = folder / name.replace("/", "_")
    path.write_text(text)
    return path


def grub_files(folder, config, modules=()):
    """
    {name on the volume: path}: GRUB as the loader, what it does, and an empty environment. modules
    are in it beside those that it always has.
    """
    program = folder / "grub.efi"
    disks.run("grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o", program, *GRUB_MODULES,
              *modules)
    disks.run("grub-editenv", folder / "grubenv", "create")
    return {"EFI/BOOT/BOOTX64.EFI": program, "EFI/BOOT/grubenv": folder / "grubenv",
            "EFI/BOOT/grub.cfg": written(folder, "grub.cfg", config)}


def systemd_boot_files(folder, program, loader="EFI/BOOT/BOOTX64.EFI", entry="probe"):
    """The same with systemd-boot, whose one entry starts program without asking."""
    return {loader: SYSTEMD_BOOT, "EFI/probe.efi": program,
            "loader/loader.conf": written(folder, "loader.conf", "timeout 0\n"),
            f"loader/entries/{entry}.conf":
                written(folder, f"{entry}.conf", "title probe\nefi /EFI/probe.efi\n")}


def make_system(folder, name, files, *options):
    """A qcow2 with a disk with a volume with files; options are qemu-img's for its making."""
    volume = disks.make_fat(folder / f"{name}.fat", files)
    raw = disks.write_gpt(folder / f"{name}.disk", [(disks.ESP_TYPE, volume)], name=name)
    qcow2 = folder / f"{name}.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, qcow2)
    return qcow2


def take_file(content, folder, name):
    """The named file of the volume that make_system put into a disk of this content."""
    volume, taken = folder / "taken.fat", folder / "taken"
    volume.write_bytes(content[disks.ALIGN:-disks.ALIGN])
    disks.run("mcopy", "-n", "-o", "-i", volume, f"::{name}", taken)
    return taken.read_bytes()
