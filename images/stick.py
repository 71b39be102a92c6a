# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes the disk of a machine that boots a qcow2: an ESP with the boot program, and the image.

    stick.py --build BUILD --image IMAGE [--room SIZE]   ->   BUILD/stick.raw

Promises: the image lies on the disk's second partition byte for byte, and is only read; behind it
is room for all that its guest can ever write, or SIZE. Every disk has GUIDs of its own. An image
that the driver would refuse, or that has to be mended first, is refused with one line and status 1,
and nothing is made. The disk is a sparse file, there only when it is whole; no device is written.
"""

import argparse
import json
import re
import secrets
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from images import disks

CHECK_TIMEOUT_S = 1800  # all of the image's tables, from a slow disk
LEAKS = 3  # what a check ends with where clusters are lost, and no more
NAME_BYTES_MAX = 32  # of an entry in the configuration
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
USAGE = "usage: make stick IMAGE=path [ROOM=size, as 2G]"

MAGIC = b"QFI\xfb"
HEADER_BYTES = 104
DIRTY, CORRUPT, DATA_FILE, EXTENDED_L2 = 1, 2, 4, 16  # incompatible features
MEND = "qemu-img check -r all mends it"

CONFIG = """\
# What the boot program's menu shows. README.md tells what else may stand here.
image     {name}
  partition {guid}
# autosnapshot 5   # a snapshot before each boot, the 5 newest are kept; they need room as well
"""


class Refused(Exception):
    """One line that says why no disk is made."""


def read_header(image):
    """The fields of the header that matter here; version 2 ends before the features."""
    with open(image, "rb") as file:
        head = file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0")
    if head[:4] != MAGIC:
        raise Refused("it is no qcow2 image")
    version, backing_off, _, bits, virtual, crypt = struct.unpack_from(">IQIIQI", head, 4)
    features, = struct.unpack_from(">Q", head, 72)
    refcount_order, = struct.unpack_from(">I", head, 96)
    if version < 3:
        features, refcount_order = 0, 4
    return {"backing": backing_off, "cluster_bits": bits, "virtual": virtual, "crypt": crypt,
            "features": features, "refcount_bits": 1 << (refcount_order & 7)}


def examine(image, checker):
    """The header of an image that boots from one partition."""
    header = read_header(image)
    features = header["features"]
    for is_so, why in (
            (header["backing"], "it has a backing file; qemu-img convert -c -O qcow2 makes one "
                                "image of both"),
            (features & DATA_FILE, "it has an external data file; qemu-img convert -O qcow2 makes "
                                   "one image of both"),
            (header["crypt"], "it is encrypted"),
            (features & DIRTY, f"it is marked dirty; {MEND}"),
            (features & CORRUPT, f"it is marked corrupt; {MEND}")):
        if is_so:
            raise Refused(why)
    done = subprocess.run([checker, "check", image], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=CHECK_TIMEOUT_S, check=False)
    if done.returncode not in (0, LEAKS):
        reason = done.stderr.partition(": ")[2].strip()
        raise Refused(reason or f"it is damaged; {MEND}")
    return header


def room_of(header):
    """
    How far the file can grow: by as much as a new image takes that is written all over. So the room
    never ends, though nothing that the image has today, compressed or a snapshot's, were ever free.
    """
    options = [f"cluster_size={1 << header['cluster_bits']}",
               f"refcount_bits={header['refcount_bits']}"]
    if header["features"] & EXTENDED_L2:
        options.append("extended_l2=on")
    said = disks.run("qemu-img", "measure", "--output=json", "-O", "qcow2", "-o",
                     ",".join(options), "--size", header["virtual"])
    return json.loads(said)["fully-allocated"]


def parse_size(text):
    found = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not found:
        raise Refused(f"ROOM={text} is no size; {USAGE}")
    return int(found[1]) * UNITS[found[2]]


def entry_name(image):
    """The file's name as a word of the configuration."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", image.stem).strip("-.")
    return word[:NAME_BYTES_MAX] or "image"


def make_volume(folder, build, image, guid):
    """The ESP."""
    config = folder / "qcow2.conf"
    config.write_text(CONFIG.format(name=entry_name(image), guid=guid))
    programs = build / "x64"
    files = {"EFI/BOOT/BOOTX64.EFI": programs / "qcow2.efi", "EFI/qcow2/qcow2.conf": config}
    files |= {f"EFI/qcow2/{name}": programs / name
              for name in ("qcow2x64.efi", "qcow2.efi", "qcow2.man")}
    return disks.make_fat(folder / "esp.fat", files, 32)


def stick(build, image, room):
    """The path of the disk, or Refused; room as on the command line, or None."""
    if not image.is_file():
        raise Refused(f"there is no such file; {USAGE}")
    header = examine(image, build / "host/qc-img")
    room = room_of(header) if room is None else parse_size(room)
    name, final = secrets.token_hex(16), build / "stick.raw"
    guid = disks.partition_guid(name, 2)
    with tempfile.TemporaryDirectory(dir=build) as scratch:
        folder = Path(scratch)
        parts = [(disks.ESP_TYPE, make_volume(folder, build, image, guid)),
                 (disks.DATA_TYPE, image)]
        disks.write_gpt(folder / final.name, parts, name=name, room=room).rename(final)
    print(f"stick: {image.name}: {image.stat().st_size / disks.MIB:,.0f} MiB on partition 2, "
          f"PARTUUID {guid}, with room for {room / disks.MIB:,.0f} MiB more")
    return final


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--room")
    options = parser.parse_args()
    try:
        made = stick(options.build, Path(options.image), options.room)
    except (Refused, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"stick: IMAGE={options.image}: {error}", file=sys.stderr)
        return 1
    print(f"stick: {made}: {made.stat().st_size / disks.MIB:,.0f} MiB\n"
          f"try it:      make boot DISK={made}\n"
          f"write it:    sudo dd if={made} of=/dev/sdX bs=4M conv=fsync")
    return 0


if __name__ == "__main__":
    sys.exit(main())
