# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes disks: FAT volumes with files in them, and GPT disks with partitions of given content.

Promises: what is made depends on the arguments alone (GUIDs and volume numbers are derived, the
clock is not read), every file is sparse where it is zero, and nothing but the named path is
written. Logical blocks of 512 and 4096 bytes are known to write_gpt; FAT volumes have 512.
"""

import os
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

MIB = 1 << 20
TOOL_TIMEOUT_S = 60
FAT_BYTES_MIN = 4 * MIB
FAT32_BYTES_MIN = 40 * MIB  # in clusters of a sector
# What the firmware's FAT driver reads and writes back as a whole, counted from the first cluster.
FAT_PAGE_BYTES = 64 * 1024
# Whole MiB, so that partitions suit every block size and firmware.
ALIGN = MIB
ENTRY_COUNT = 128
ENTRY_BYTES = 128
ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
DATA_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def run(*command, **options):
    """Runs a tool; its complaint becomes the exception's text."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=TOOL_TIMEOUT_S, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def round_up(count, unit):
    return -(-count // unit) * unit


def copy_into(target, at, source):
    """Copies the file source to offset at of the open file target, leaving out zeros."""
    with open(source, "rb") as content:
        while chunk := content.read(64 * 1024):
            if chunk.count(0) != len(chunk):
                target.seek(at)
                target.write(chunk)
            at += len(chunk)


def make_fat(path, files, width=None, room=0):
    """
    A FAT volume with files, {"EFI/BOOT/NAME": path of its content}, larger by room and a little.
    width: 32 for FAT32 with clusters of a sector; otherwise mkfs.vfat chooses.
    """
    path = Path(path)
    path.unlink(missing_ok=True)
    content = sum(round_up(Path(source).stat().st_size, 4096) for source in files.values())
    least = FAT32_BYTES_MIN if width == 32 else FAT_BYTES_MIN
    size = round_up(max(least, content + content // 64 + MIB + room), MIB)
    with open(path, "wb") as made:
        made.truncate(size)
    # --invariant keeps the clock out of the volume's number.
    run("mkfs.vfat", "--invariant", *(("-F", 32, "-s", 1) if width == 32 else ()), path)
    folders = {folder for name in files for folder in list(Path(name).parents)[:-1]}
    if folders:
        # A parent is always shorter than what it holds.
        names = sorted((f"::{folder}" for folder in folders), key=len)
        run("mmd", "-i", path, *names, env=tools_env())
    for name, source in files.items():
        run("mcopy", "-i", path, source, f"::{name}", env=tools_env())
    return path


def tools_env():
    return dict(os.environ, MTOOLS_SKIP_CHECK="1", SOURCE_DATE_EPOCH="1700000000", TZ="UTC")


def add_image(path, name, qcow2, room):
    """
    Adds an image to a volume of make_fat(width=32) from which no file was removed, in pages of its
    own, so that the driver writes it: with room in it, behind a file that fills the page before.
    """
    volume, filler, padded = Path(path).read_bytes(), Path(f"{path}.fill"), Path(f"{path}.pad")
    reserved, = struct.unpack_from("<H", volume, 14)
    sectors, = struct.unpack_from("<I", volume, 36)
    table = volume[reserved * 512:(reserved + sectors) * 512].rstrip(b"\0")
    free_off = (len(table) + 3) // 4 * 512 - 2 * 512
    if gap := -free_off % FAT_PAGE_BYTES:
        filler.write_bytes(bytes(gap))
        run("mcopy", "-i", path, filler, f"::{Path(name).stem}.pad", env=tools_env())
    padded.write_bytes(Path(qcow2).read_bytes())
    os.truncate(padded, round_up(padded.stat().st_size + room, FAT_PAGE_BYTES))
    run("mcopy", "-i", path, padded, f"::{name}", env=tools_env())


def gpt_header(own_block, other_block, table_block, last_usable, first_usable, table, name):
    """One of the two GPT headers (UEFI 2.10, section 5.3.2)."""
    def packed(crc):
        return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, own_block,
                           other_block, first_usable, last_usable,
                           uuid.uuid5(uuid.NAMESPACE_URL, name).bytes_le, table_block,
                           ENTRY_COUNT, ENTRY_BYTES, zlib.crc32(table))
    return packed(zlib.crc32(packed(0)))


def partition_guid(name, number):
    """The own GUID of partition number, from 1, of the disk that write_gpt made by this name."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}")


def gpt_table(partitions, block_bytes, name):
    """The partition entries, and where each begins in bytes."""
    table, starts, at = b"", [], ALIGN
    for number, (kind, size) in enumerate(partitions, 1):
        starts.append(at)
        end = at + round_up(size, ALIGN)
        unique = partition_guid(name, number)
        table += struct.pack("<16s16sQQQ72s", kind.bytes_le, unique.bytes_le, at // block_bytes,
                             end // block_bytes - 1, 0, f"part{number}".encode("utf-16-le"))
        at = end
    return table.ljust(ENTRY_COUNT * ENTRY_BYTES, b"\0"), starts, at


def write_gpt(path, partitions, block_bytes=512, name="qcow2-efi", room=0):
    """
    A GPT disk at path. partitions: [(type GUID, path of its content), ...]; each is as large as its
    content, the last one with room bytes behind it, rounded up to ALIGN. name seeds the GUIDs:
    disks of one machine need different names.
    """
    path = Path(path)
    sizes = [(kind, Path(source).stat().st_size) for kind, source in partitions]
    sizes[-1] = (sizes[-1][0], sizes[-1][1] + room)
    table, starts, end = gpt_table(sizes, block_bytes, name)
    table_blocks = len(table) // block_bytes
    disk_bytes = end + ALIGN
    last = disk_bytes // block_bytes - 1
    limits = (last - table_blocks - 1, 2 + table_blocks, table, name)
    path.unlink(missing_ok=True)
    with open(path, "wb") as disk:
        disk.truncate(disk_bytes)
        disk.seek(446)
        disk.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xee, b"\xff\xff\xff", 1,
                               min(last, 0xffffffff)))
        disk.seek(510)
        disk.write(b"\x55\xaa")
        disk.seek(block_bytes)
        disk.write(gpt_header(1, last, 2, *limits))
        disk.seek(2 * block_bytes)
        disk.write(table)
        disk.seek((last - table_blocks) * block_bytes)
        disk.write(table)
        disk.seek(last * block_bytes)
        disk.write(gpt_header(last, 1, last - table_blocks, *limits))
        for start, (_, source) in zip(starts, partitions):
            copy_into(disk, start, source)
    return path


def partition_bytes(path, number, block_bytes=512):
    """What lies in partition number, from 1, of a GPT disk."""
    with open(path, "rb") as disk:
        disk.seek(2 * block_bytes + (number - 1) * ENTRY_BYTES + 32)
        first, last = struct.unpack("<QQ", disk.read(16))
        disk.seek(first * block_bytes)
        return disk.read((last + 1 - first) * block_bytes)


def make_esp(path, driver, loader, config=None):
    """An EFI system partition that starts loader, with driver and configuration unless None."""
    files = {"EFI/BOOT/BOOTX64.EFI": loader}
    if driver:
        files["EFI/BOOT/qcow2x64.efi"] = driver
    if config:
        files["EFI/qcow2/qcow2.conf"] = config
    return make_fat(path, files)
