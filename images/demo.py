# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes the disks of the demo: a machine whose Linux lies in a qcow2, and nowhere else.

    initramfs (busybox, a payload and its checksum, this run's nonce)
    -> unified kernel image -> ESP of a GPT disk -> qcow2 -> partition or disk of the machine

Promises: demo_disks(...) makes everything anew but the kernel, which is cached, and says which
nonce only the system inside the qcow2 can know. The qcow2, or the overlay with its base, holds the
only copy of kernel, initramfs and nonce that the machine can see. Of the two, one has this run's
nonce and the other nearly all the rest, so that neither alone will do. Booting it and judging what
it says is left to others.
"""

import hashlib
import random
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from images import disks
from images.kernel import kernel

SECTOR = 512
OFFSET_MASK = 0x00FFFFFFFFFFFE00  # of L1 and L2 entries
COMPRESSED = 1 << 62
PAYLOAD_BYTES = 4 * disks.MIB
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
BUSYBOX = Path("/bin/busybox")
# earlyprintk makes the kernel's decompressor talk on the serial line too; -1 turns a panic into a
# reboot, which ends the machine.
COMMAND_LINE = "console=ttyS0 earlyprintk=ttyS0 panic=-1"
LAYOUTS = ("partition", "disk", "file")
# The qcow2 as qemu-img makes it, compressed in one of two ways, or an overlay on a compressed base.
IMAGES = ("plain", "zlib", "zstd", "overlay")
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
    base: tuple = None  # the overlay's base: its disk and the partition's number
    base_sum: str = None

    def sum_of_base(self):
        """A checksum of all that lies on the base's partition."""
        return hashlib.sha256(disks.partition_bytes(*self.base)).hexdigest()


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


def cluster_place(qcow2, guest_off):
    """Where guest_off's byte lies in the image, or its cluster if that is compressed; and if so."""
    with open(qcow2, "rb") as image:
        def number(host_off, form=">Q"):
            image.seek(host_off)
            return struct.unpack(form, image.read(struct.calcsize(form)))[0]

        bits = number(20, ">I")
        cluster = guest_off >> bits
        l2_off = number(number(40) + (cluster >> bits - 3) * 8) & OFFSET_MASK
        entry = number(l2_off + (cluster & (1 << bits - 3) - 1) * 8)
    if entry & COMPRESSED:
        return entry & (1 << 70 - bits) - 1, True
    return (entry & OFFSET_MASK) + guest_off % (1 << bits), False


def break_byte(qcow2, raw, vmlinuz):
    """
    Flips one byte of the qcow2: the first of the compressed kernel. It belongs to the magic number,
    which decompressors of every format look at; not every format has a checksum for the rest. Where
    that lies in a compressed cluster, it is the first byte of the cluster's stream.
    """
    wanted = compressed_payload(vmlinuz)
    guest_off = raw.read_bytes().find(wanted)
    host_off, is_packed = cluster_place(qcow2, guest_off)
    with open(qcow2, "r+b") as image:
        image.seek(host_off)
        found = image.read(len(wanted))
        if guest_off < 0 or (not is_packed and found != wanted):
            raise RuntimeError("the compressed kernel was not found in the qcow2")
        image.seek(host_off)
        image.write(bytes([found[0] ^ 0xFF]))


def system_disk(folder, vmlinuz, nonce, width):
    """A raw disk with the system in it; width as make_fat has it, of its volume."""
    uki = unified_kernel(folder / "uki.efi", vmlinuz, folder, nonce)
    volume = disks.make_fat(folder / "system.fat", {"EFI/BOOT/BOOTX64.EFI": uki}, width)
    return disks.write_gpt(folder / "system.raw", [(disks.ESP_TYPE, volume)], name="system")


def convert(raw, compression=None):
    qcow2 = raw.with_suffix(".qcow2")
    options = ("-c", "-o", f"compression_type={compression}") if compression else ()
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, qcow2)
    return qcow2


def overlay_on(base, raw, golden, nonce):
    """An overlay with nothing but the sectors in which the nonce takes the place of the base's."""
    overlay, piece = base.with_name("overlay.qcow2"), base.with_name("piece")
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", "qcow2",
              overlay.name, cwd=base.parent)
    content = raw.read_bytes()
    at = content.find(golden.encode())
    if at < 0 or content.find(golden.encode(), at + 1) >= 0:
        raise RuntimeError("the nonce is not once in the system's disk")
    start, end = at // SECTOR * SECTOR, disks.round_up(at + len(golden), SECTOR)
    piece.write_bytes(content[start:end].replace(golden.encode(), nonce.encode()))
    disks.run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {piece.name} {start} {end - start}",
              overlay.name, cwd=base.parent)
    return overlay


def place_of(layout, part):
    """(the disk's name, the partition's number) of the image, part 2, or its base, part 3."""
    if layout == "file":
        return ("machine", 1)
    return ("machine", part) if layout == "partition" else (f"part{part}", 1)


def write_config(path, layout):
    """The configuration that tells the driver which partition is the base of which."""
    path.write_text("image demo\n"
                    f"  partition {disks.partition_guid(*place_of(layout, 2))}\n"
                    f"  base      {disks.partition_guid(*place_of(layout, 3))}\n")
    return path


def write_disks(folder, layout, esp, images):
    """The machine's disks: all in partitions of one, or each on its own, partitioned for a base."""
    parts = [(disks.DATA_TYPE, path) for path in images]
    if layout == "partition":
        return [disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp), *parts],
                                name="machine")]
    first = disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp)], name="machine")
    if len(images) == 1:
        return [first, images[0]]
    return [first] + [disks.write_gpt(folder / f"part{number}.raw", [part], name=f"part{number}")
                      for number, part in enumerate(parts, 2)]


def file_disk(folder, driver, boot_program, images):
    """One disk whose ESP, FAT32, has the images as files, and a configuration that names the first.
    """
    config, name = folder / "qcow2.conf", images[0].name
    config.write_text(f"image demo\n  file \\{name}\n")
    files = {"EFI/BOOT/BOOTX64.EFI": boot_program, "EFI/qcow2/qcow2.conf": config}
    if driver:
        files["EFI/BOOT/qcow2x64.efi"] = driver
    files.update({path.name: path for path in images[1:]})
    size = images[0].stat().st_size + 4 * disks.MIB
    esp = disks.make_fat(folder / "esp.fat", files, 32, size)
    disks.add_image(esp, name, images[0], disks.MIB)
    return [disks.write_gpt(folder / "machine.raw", [(disks.ESP_TYPE, esp)], name="machine")]


def demo_disks(folder, cache, driver, boot_program, layout, broken=None, image=IMAGES[0]):
    """
    Makes the machine's disks in folder. layout is of LAYOUTS, image of IMAGES; broken is None or of
    BREAKS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vmlinuz = kernel(cache)
    nonce, golden = secrets.token_hex(16), secrets.token_hex(16)
    is_overlay = image == "overlay"
    raw = system_disk(folder, vmlinuz, golden if is_overlay else nonce,
                      32 if layout == "file" else None)
    system = convert(raw, {"plain": None, "overlay": "zlib"}.get(image, image))
    images = [overlay_on(system, raw, golden, nonce), system] if is_overlay else [system]
    if broken == "byte":
        break_byte(system, raw, vmlinuz)
    driver = None if broken == "nodriver" else driver
    if layout == "file":
        machine = file_disk(folder, driver, boot_program, images)
    else:
        config = write_config(folder / "qcow2.conf", layout) if is_overlay else None
        esp = disks.make_esp(folder / "esp.fat", driver, boot_program, config)
        machine = write_disks(folder, layout, esp, images)
    made = Demo(nonce, machine)
    if is_overlay:
        made.base = (machine[2 if layout == "disk" else 0], place_of(layout, 3)[1])
        made.base_sum = made.sum_of_base()
    return made
