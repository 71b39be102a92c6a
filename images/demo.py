# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes the disks of the demo: a machine whose Linux lies in a qcow2, and nowhere else.

    initramfs (busybox, a payload and its checksum, this run's nonce)
    -> unified kernel image -> ESP of a GPT disk -> qcow2 -> partition or disk of the machine

Promises: demo_disks(...) makes everything anew but the kernel, which is cached, and says which
nonce only the system inside the qcow2 can know. The qcow2 holds the only copy of kernel, initramfs
and nonce that the machine can see. Booting it and judging what it says is left to others.
"""

import hashlib
import json
import random
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from images import disks
from images.kernel import kernel

PAYLOAD_BYTES = 4 * disks.MIB
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
BUSYBOX = Path("/bin/busybox")
# earlyprintk makes the kernel's decompressor talk on the serial line too; -1 turns a panic into a
# reboot, which ends the machine.
COMMAND_LINE = "console=ttyS0 earlyprintk=ttyS0 panic=-1"
LAYOUTS = ("partition", "disk")
BREAKS = ("nodriver", "byte")

INIT = """\
#!/bin/busybox sh
/bin/busybox echo "qcow2-efi: Linux $(/bin/busybox uname -r) is up"
cd /
if /bin/busybox sha256sum -c payload.sha256; then verdict=ok; else verdict=BAD; fi
/bin/busybox echo "qcow2-efi: inside, nonce $(/bin/busybox cat nonce), payload $verdict"
/bin/busybox poweroff -f
"""


@dataclass
class Demo:
    nonce: str
    disks: list  # paths, the one with the ESP first


def cpio_entry(number, name, mode, content):
    """One member of a cpio archive, "newc" form as the kernel reads it."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def initramfs(nonce):
    payload = random.Random(0x71636F77).randbytes(PAYLOAD_BYTES)
    checksum = hashlib.sha256(payload).hexdigest()
    members = (("bin", 0o40755, b""),
               ("bin/busybox", 0o100755, BUSYBOX.read_bytes()),
               ("init", 0o100755, INIT.encode()),
               ("payload", 0o100644, payload),
               ("payload.sha256", 0o100644, f"{checksum}  payload\n".encode()),
               ("nonce", 0o100644, f"{nonce}\n".encode()),
               ("TRAILER!!!", 0, b""))
    return b"".join(cpio_entry(number, *member) for number, member in enumerate(members))


def unified_kernel(path, vmlinuz, folder, nonce):
    """Kernel, initramfs and command line as one EFI program, the way systemd's stub wants them."""
    sections = {".osrel": b"ID=qcow2-efi-demo\n", ".cmdline": COMMAND_LINE.encode(),
                ".linux": vmlinuz.read_bytes(), ".initrd": initramfs(nonce)}
    words, vma = [], 0x20000
    for name, content in sections.items():
        source = folder / f"uki{name}"
        source.write_bytes(content)
        words += ["--add-section", f"{name}={source}", "--change-section-vma", f"{name}={vma:#x}"]
        vma = disks.round_up(vma + len(content), 0x10000)
    disks.run("objcopy", *words, STUB, path)
    return path


def compressed_payload(vmlinuz):
    """The first bytes of the kernel proper, still compressed (Linux boot protocol, 2.08)."""
    content = vmlinuz.read_bytes()
    setup_sectors = content[0x1F1] or 4
    start = (setup_sectors + 1) * 512 + struct.unpack_from("<I", content, 0x248)[0]
    return content[start:start + 64]


def break_byte(qcow2, raw, vmlinuz):
    """
    Flips one byte of the qcow2: the first of the compressed kernel. It belongs to the magic number,
    which decompressors of every format look at; not every format has a checksum for the rest.
    """
    wanted = compressed_payload(vmlinuz)
    guest_off = raw.read_bytes().find(wanted)
    extents = json.loads(disks.run("qemu-img", "map", "--output=json", qcow2))
    host_off = next(extent["offset"] + guest_off - extent["start"] for extent in extents
                    if 0 <= guest_off - extent["start"] < extent["length"])
    with open(qcow2, "r+b") as image:
        image.seek(host_off)
        found = image.read(len(wanted))
        if guest_off < 0 or found != wanted:
            raise RuntimeError("the compressed kernel was not found in the qcow2")
        image.seek(host_off)
        image.write(bytes([found[0] ^ 0xFF]))


def system_qcow2(folder, vmlinuz, nonce):
    """The qcow2 with the system in it, and the raw disk it was converted from."""
    uki = unified_kernel(folder / "uki.efi", vmlinuz, folder, nonce)
    volume = disks.make_fat(folder / "system.fat", {"EFI/BOOT/BOOTX64.EFI": uki})
    raw = disks.write_gpt(folder / "system.raw", [(disks.ESP_TYPE, volume)], name="system")
    qcow2 = folder / "system.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    return qcow2, raw


def demo_disks(folder, cache, driver, boot_program, layout, broken=None):
    """Makes the machine's disks in folder. layout is of LAYOUTS; broken is None or of BREAKS."""
    folder.mkdir(parents=True, exist_ok=True)
    vmlinuz = kernel(cache)
    nonce = secrets.token_hex(16)
    qcow2, raw = system_qcow2(folder, vmlinuz, nonce)
    if broken == "byte":
        break_byte(qcow2, raw, vmlinuz)
    esp = disks.make_esp(folder / "esp.fat", None if broken == "nodriver" else driver, boot_program)
    parts = [(disks.ESP_TYPE, esp)]
    if layout == "partition":
        parts.append((disks.DATA_TYPE, qcow2))
    machine = [disks.write_gpt(folder / "machine.raw", parts, name="machine")]
    return Demo(nonce, machine if layout == "partition" else machine + [qcow2])
