# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The firmware's variables as they lie in its flash: boot and driver options, written and read.

Promises: write() adds variables to a store that is fresh; read() gives what the firmware holds for
valid after any number of runs. Device paths are those of OVMF's q35: a disk on a PCI slot, a
partition as its GPT has it, the driver's node, a file (UEFI 2.10, 10.3 and 3.1.3).
"""

import struct
import uuid

from images import disks

STORE = 0x48  # behind the firmware volume's header
STORE_HEADER_BYTES = 28
VARIABLE = struct.Struct("<HBBIQ16sIII16s")
STARTED, VALID, BEING_DELETED = 0x55AA, 0x3F, 0x3E
KEPT = 7  # non-volatile, boot services, run time
GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_NODE = uuid.UUID("89f74f3b-8085-416e-a53a-6e61f7ffc4ac").bytes_le + b"\1\0"
ACTIVE, FORCE_RECONNECT = 1, 2


def write(path, variables):
    """variables: {name: bytes}, the global ones, which must not be there yet."""
    store = bytearray(path.read_bytes())
    at = STORE + STORE_HEADER_BYTES
    while store[at:at + 2] != b"\xff\xff":
        *_, name_bytes, data_bytes, _ = VARIABLE.unpack_from(store, at)
        at = disks.round_up(at + VARIABLE.size + name_bytes + data_bytes, 4)
    for name, data in variables.items():
        wide = name.encode("utf-16-le") + b"\0\0"
        variable = VARIABLE.pack(STARTED, VALID, 0, KEPT, 0, bytes(16), 0, len(wide), len(data),
                                 GLOBAL.bytes_le) + wide + data
        store[at:at + len(variable)] = variable
        at = disks.round_up(at + len(variable), 4)
    path.write_bytes(store)


def read(path):
    """{name: bytes} of the global ones."""
    store, found = path.read_bytes(), {}
    at = STORE + STORE_HEADER_BYTES
    while store[at:at + 2] == struct.pack("<H", STARTED):
        _, state, *_, name_bytes, data_bytes, vendor = VARIABLE.unpack_from(store, at)
        name_at = at + VARIABLE.size
        data_at = name_at + name_bytes
        if state in (VALID, BEING_DELETED) and vendor == GLOBAL.bytes_le:
            name = store[name_at:data_at].decode("utf-16-le").rstrip("\0")
            found[name] = store[data_at:data_at + data_bytes]
        at = disks.round_up(data_at + data_bytes, 4)
    return found


def node(kind, subtype, content):
    return struct.pack("<BBH", kind, subtype, 4 + len(content)) + content


def disk_nodes(slot):
    root = struct.pack("<II", 0x0A0341D0, 0)  # PNP0A03, number 0
    return node(2, 1, root) + node(1, 1, bytes([0, slot]))


def partition_node(disk, number):
    """Of a GPT disk in a file with blocks of 512 bytes."""
    with open(disk, "rb") as content:
        content.seek(1024 + (number - 1) * disks.ENTRY_BYTES)
        entry = content.read(disks.ENTRY_BYTES)
    guid = entry[16:32]
    first, last = struct.unpack_from("<QQ", entry, 32)
    return node(4, 1, struct.pack("<IQQ16sBB", number, first, last + 1 - first, guid, 2, 2))


def image_node():
    return node(4, 3, IMAGE_NODE)


def file_node(name):
    return node(4, 4, name.encode("utf-16-le") + b"\0\0")


def option(description, path, attributes=ACTIVE):
    """A load option without optional data; path is its nodes."""
    path += node(0x7F, 0xFF, b"")
    return struct.pack("<IH", attributes, len(path)) + description.encode("utf-16-le") \
        + b"\0\0" + path


def order(*numbers):
    return struct.pack(f"<{len(numbers)}H", *numbers)
