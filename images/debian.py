# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A Debian whose root file system lies in a qcow2, made by debootstrap from the machine's mirror.

    debootstrap -> tree -> images/handover/install.sh -> ext4, ESP -> GPT disk -> qcow2

Promises: debian(cache) returns the path of a qcow2 below cache; the tree is fetched once, and the
disk is made anew where this file or images/handover has changed. The mirror and the release are
those of the machine's own apt. root logs in on the serial line without a password. cloud(cache) is
the same system as those for clouds are made: compressed, and GRUB takes the kernel from the root
file system's /boot. Needs root, for the owners of files and for chroot.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from images import disks, loaders
from images.lock import alone

DEBOOTSTRAP_TIMEOUT_S = 1200
MAKE_TIMEOUT_S = 600
PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "busybox", "qemu-utils", "nbd-client",
            "systemd-sysv", "udev")
HANDOVER = Path(__file__).resolve().parent / "handover"
NAME = "debian"  # of the host, and of the disk in the qcow2
ROOT_BYTES = 1024 * disks.MIB
ROOT_UUID = disks.partition_guid(NAME, 2)
# initramfs-tools and the kernel reboot instead of waiting for somebody, which ends the machine.
COMMAND_LINE = f"root=PARTUUID={ROOT_UUID} ro console=ttyS0 panic=3"
# On the ESP; the second one lies beside the kernel.
GRUB_CONFIG = f"search --label --set=root {NAME}\nconfigfile /boot/grub/grub.cfg\n"
GRUB_MENU = f"linux /vmlinuz {COMMAND_LINE}\ninitrd /initrd.img\nboot\n"
GRUB_MODULES = ("search", "search_label", "ext2", "linux", "gzio", "boot")


def run(*command, timeout=MAKE_TIMEOUT_S, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                          check=False, **options)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-5:])
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {tail}")
    return done.stdout


def release():
    """The machine's own."""
    lines = Path("/etc/os-release").read_text().splitlines()
    words = dict(line.split("=", 1) for line in lines if "=" in line)
    return words["VERSION_CODENAME"].strip('"')


def mirror(codename):
    """Where apt gets that release from."""
    for line in run("apt-get", "indextargets", "--format",
                    "$(REPO_URI) $(CODENAME) $(COMPONENT)").splitlines():
        uri, *what = line.split()
        if what == [codename, "main"]:
            return uri
    raise RuntimeError(f"apt's sources have no {codename} main")


def fetch_tree(final):
    """Debian's files, as debootstrap leaves them."""
    scratch = final.with_name("tree.making")
    shutil.rmtree(scratch, ignore_errors=True)
    codename = release()
    run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", codename, scratch,
        mirror(codename), timeout=DEBOOTSTRAP_TIMEOUT_S)
    for package in (scratch / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    scratch.rename(final)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def prepare(tree):
    """What makes these files this system; its initramfs is made last."""
    write(tree / "etc/hostname", f"{NAME}\n")
    write(tree / "etc/fstab", f"PARTUUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n")
    write(tree / "boot/grub/grub.cfg", GRUB_MENU)
    run("chroot", tree, "passwd", "-d", "root")
    run("sh", HANDOVER / "install.sh", tree)


def boot_volume(folder, tree):
    """An ESP with systemd-boot, which starts the one kernel there is."""
    files = {"EFI/BOOT/BOOTX64.EFI": loaders.SYSTEMD_BOOT,
             "vmlinuz": next((tree / "boot").glob("vmlinuz-*")),
             "initrd.img": next((tree / "boot").glob("initrd.img-*"))}
    entry = f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {COMMAND_LINE}\n"
    files["loader/loader.conf"] = loaders.written(folder, "loader.conf", "timeout 0\n")
    files["loader/entries/debian.conf"] = loaders.written(folder, "debian.conf", entry)
    return disks.make_fat(folder / "boot.fat", files)


def cloud_volume(folder):
    """An ESP with GRUB."""
    return disks.make_fat(folder / "grub.fat",
                          loaders.grub_files(folder, GRUB_CONFIG, GRUB_MODULES))


def make_disk(final, volume, root, *options):
    """The qcow2 with a disk with both file systems; options are qemu-img's."""
    parts = [(disks.ESP_TYPE, volume), (disks.DATA_TYPE, root)]
    raw = disks.write_gpt(root.with_name("disk.raw"), parts, name=NAME)
    scratch = root.with_name(final.name)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, scratch)
    scratch.rename(final)


def make_disks(folder, tree):
    """Both qcow2s around the one root file system."""
    scratch = folder / "disk.making"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    root = scratch / "root.ext4"
    with open(root, "wb") as made:
        made.truncate(ROOT_BYTES)
    run("mkfs.ext4", "-q", "-F", "-L", NAME, "-d", tree, root)
    make_disk(place(folder, "cloud"), cloud_volume(scratch), root, "-c")
    make_disk(place(folder, "debian"), boot_volume(scratch, tree), root)
    shutil.rmtree(scratch)


def key():
    """Of all that the disks are made from, beside the tree."""
    scripts = sorted(path for path in HANDOVER.iterdir() if path.suffix != ".md")
    sources = [Path(__file__), Path(loaders.__file__), *scripts]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def place(folder, name):
    return folder / f"{name}-{key()}.qcow2"


def made(cache, name):
    """The path of one of the qcow2s; both are made on the first call."""
    if os.geteuid() != 0:
        raise RuntimeError("debootstrap needs root")
    folder = Path(cache).resolve() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / "tree"
    with alone(folder / "debian"):
        if not tree.exists():
            fetch_tree(tree)
        if not place(folder, "debian").exists():
            for old in folder.glob("*.qcow2"):
                old.unlink()
            prepare(tree)
            make_disks(folder, tree)
    return place(folder, name)


def debian(cache):
    return made(cache, "debian")


def cloud(cache):
    return made(cache, "cloud")
