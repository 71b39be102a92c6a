# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes machines for the boot program's menu: images whose loader, GRUB, says which one it is.

Promises: an image says "inside NAME" on the console and stays there; a machine's own disk has the
boot program, the driver, a configuration of the lines given, and images as files of FAT32, each
with pages of its own. Starting it is left to others.
"""

from images import disks, loaders

SAYS = 'terminal_output console\n{more}echo "inside {name}"\nsleep 600\n'
ROOM = 8 * disks.MIB


def make_image(folder, name, more="", extra=()):
    """A qcow2; more is what GRUB does before, extra are files {name on the volume: path}."""
    files = loaders.grub_files(folder, SAYS.format(name=name, more=more))
    return loaders.make_system(folder, name, {**files, **dict(extra)})


def make_machine(folder, build, lines, images=()):
    """The disk with the boot program; images go into its folder \\vm by their own names."""
    config = loaders.written(folder, "qcow2.conf", "\n".join(lines) + "\n")
    files = {"EFI/BOOT/BOOTX64.EFI": build / "x64/qcow2.efi",
             "EFI/BOOT/qcow2x64.efi": build / "x64/qcow2x64.efi",
             "EFI/qcow2/qcow2.conf": config, "vm/readme": config}
    room = sum(path.stat().st_size + ROOM for path in images)
    esp = disks.make_fat(folder / "machine.fat", files, 32, 4 * room)
    for path in images:
        disks.add_image(esp, f"vm/{path.name}", path, disks.MIB)
    return disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp)], name="machine")
