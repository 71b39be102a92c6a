# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A Debian whose root file system lies in a qcow2, made by debootstrap from the machine's mirror.

    debootstrap -> tree -> ext4, kernel and initramfs (images/handover) -> GPT disk -> qcow2

Promises: debian(cache) returns the path of a qcow2 below cache; the tree is fetched once, and the
disk is made anew where this file or images/handover has changed. The mirror and the release are
those of the machine's own apt. root logs in on the serial line without a password. Needs root, for
the owners of files and for chroot.
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
# Where initramfs-tools and the hook look for them.
PLACES = {"hook": "etc/initramfs-tools/hooks/qcow2",
          "local-top": "etc/initramfs-tools/scripts/local-top/qcow2",
          "init-bottom": "etc/initramfs-tools/scripts/init-bottom/qcow2",
          "reader.sh": "usr/lib/qcow2/reader.sh",
          "shutdown.sh": "usr/lib/qcow2/shutdown.sh"}
NAME = "debian"  # of the host, and of the disk in the qcow2
ROOT_BYTES = 1024 * disks.MIB
ROOT_UUID = disks.partition_guid(NAME, 2)
# initramfs-tools and the kernel reboot instead of waiting for somebody, which ends the machine.
COMMAND_LINE = f"root=PARTUUID={ROOT_UUID} ro console=ttyS0 panic=3"


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


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def prepare(tree):
    """What makes these files this system; its initramfs is made last."""
    write(tree / "etc/hostname", f"{NAME}\n")
    write(tree / "etc/fstab", f"PARTUUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n")
    for name, place in PLACES.items():
        write(tree / place, (HANDOVER / name).read_text(), 0o755)
    run("chroot", tree, "passwd", "-d", "root")
    for old in (tree / "boot").glob("initrd.img-*"):
        old.unlink()
    inside = f"mount -t proc proc '{tree}/proc' && chroot '{tree}' update-initramfs -c -k all"
    run("unshare", "--mount", "sh", "-c", inside)


def boot_volume(folder, tree):
    """The ESP in the qcow2: systemd-boot, which starts the one kernel there is."""
    files = {"EFI/BOOT/BOOTX64.EFI": loaders.SYSTEMD_BOOT,
             "vmlinuz": next((tree / "boot").glob("vmlinuz-*")),
             "initrd.img": next((tree / "boot").glob("initrd.img-*"))}
    entry = f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {COMMAND_LINE}\n"
    files["loader/loader.conf"] = loaders.written(folder, "loader.conf", "timeout 0\n")
    files["loader/entries/debian.conf"] = loaders.written(folder, "debian.conf", entry)
    return disks.make_fat(folder / "boot.fat", files)


def make_disk(final, tree):
    """The qcow2 with a disk with both file systems."""
    scratch = final.with_name("disk.making")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    prepare(tree)
    root = scratch / "root.ext4"
    with open(root, "wb") as made:
        made.truncate(ROOT_BYTES)
    run("mkfs.ext4", "-q", "-F", "-L", NAME, "-d", tree, root)
    parts = [(disks.ESP_TYPE, boot_volume(scratch, tree)), (disks.DATA_TYPE, root)]
    raw = disks.write_gpt(scratch / "disk.raw", parts, name=NAME)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, scratch / "debian.qcow2")
    (scratch / "debian.qcow2").rename(final)
    shutil.rmtree(scratch)


def key():
    """Of all that the disk is made from, beside the tree."""
    sources = [Path(__file__), *(HANDOVER / name for name in sorted(PLACES))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def debian(cache):
    """The path of the qcow2; made on the first call."""
    if os.geteuid() != 0:
        raise RuntimeError("debootstrap needs root")
    folder = Path(cache).resolve() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{key()}.qcow2"
    with alone(folder / "debian"):
        if not (folder / "tree").exists():
            fetch_tree(folder / "tree")
        if not final.exists():
            for old in folder.glob("*.qcow2"):
                old.unlink()
            make_disk(final, folder / "tree")
    return final
