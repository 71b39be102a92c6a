# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every image of images/matrix.py, read through the plugin, is what QEMU says it is.

For each one: the size, the map and every byte agree with qemu-img on the same file. Images whose
tables do not fit into the smallest pool are read with that pool as well, in order and at random.
"""

import filecmp
import json
import random
import socket
import struct

import pytest

from images.matrix import MIB, TIB, cells
from serve import SERVER_SECONDS_MAX, client, export

COPY_BYTES_MAX = 64 * MIB  # larger ones are compared by qemu-img only, which skips holes
WHOLE_BYTES_MAX = 8 * TIB  # of larger ones it compares what lies around their data: it walks holes
POOL_KIB_MIN = 64
RANDOM_READS = 400
CELLS = cells()


def merged(runs):
    """(start, length, is data) of neighbours that say the same, joined."""
    found = []
    for start, length, is_data in runs:
        if found and found[-1][2] == is_data:
            assert found[-1][0] + found[-1][1] == start, "the map has a gap"
            found[-1][1] += length
        else:
            found.append([start, length, is_data])
    return found


def map_of_qemu(image):
    """Of data QEMU also tells where the file below has a hole; that is no property of the image."""
    entries = json.loads(client("qemu-img", "map", "-f", "qcow2", "--output=json", image))
    assert all(entry["data"] or entry["zero"] for entry in entries)
    return merged((entry["start"], entry["length"], entry["data"]) for entry in entries)


def map_of_export(uri):
    entries = json.loads(client("nbdinfo", "--map", "--json", uri))
    assert all(entry["type"] in (0, 3) for entry in entries)  # data, or a hole that reads as zeros
    return merged((entry["offset"], entry["length"], entry["type"] == 0) for entry in entries)


def compare(*images):
    """QEMU reads both and finds no difference."""
    assert client("qemu-img", "compare", *images) == "Images are identical.\n"


def compare_window(image, path, start, length):
    """Not for an image with layers below: through a window QEMU 7.2 takes what they hold for zeros.
    """
    window = f"driver=raw,offset={start},size={length},file.driver="
    compare("--image-opts", f"{window}qcow2,file.file.driver=file,file.file.filename={image}",
            f"{window}nbd,file.server.type=unix,file.server.path={path}")


def check_cell(build, folder, cell, image, *parameters):
    info = json.loads(client("qemu-img", "info", "-f", "qcow2", "--output=json", image))
    size = info["virtual-size"]
    with export(build, folder, image, "readonly=true", *parameters) as path:
        uri = f"nbd+unix:///?socket={path}"
        assert int(client("nbdinfo", "--size", uri)) == size
        runs = map_of_qemu(image)
        assert map_of_export(uri) == runs
        if size <= COPY_BYTES_MAX:
            client("nbdcopy", uri, folder / "copy.raw")
            client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, folder / "qemu.raw")
            assert filecmp.cmp(folder / "copy.raw", folder / "qemu.raw", shallow=False)
        if size <= WHOLE_BYTES_MAX:
            compare("-f", "qcow2", "-F", "raw", image, uri)
            return
        windows = [(max(0, start - cell.cluster_bytes), start + length + cell.cluster_bytes)
                   for start, length, is_data in runs if is_data]
        assert windows, "nothing to compare"
        for start, end in windows:
            compare_window(image, path, start, min(end, size) - start)


@pytest.mark.parametrize("cell", CELLS, ids=[cell.name for cell in CELLS])
def test_matrix(cell, build, cache, tmp_path):
    check_cell(build, tmp_path, cell, cell.make(cache / "matrix"))


LARGE = [cell for cell in CELLS if cell.tables_exceed_cache]


@pytest.mark.parametrize("cell", LARGE, ids=[cell.name for cell in LARGE])
def test_small_pool(cell, build, cache, tmp_path):
    check_cell(build, tmp_path, cell, cell.make(cache / "matrix"), f"pool_kib={POOL_KIB_MIN}")


# ---- reads of any bytes in any order ---------------------------------------------------------


def connect(path):
    """An NBD connection of the plainest kind, which unlike QEMU's may ask for single bytes."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(SERVER_SECONDS_MAX)
    link.connect(str(path))
    assert receive(link, 18)[:16] == b"NBDMAGICIHAVEOPT"
    link.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))  # no zeroes; option: the export ""
    receive(link, 10)
    return link


def receive(link, length):
    parts = bytearray()
    while len(parts) < length:
        part = link.recv(length - len(parts))
        assert part, "the server closed the connection"
        parts += part
    return bytes(parts)


def read_at(link, guest_off, length):
    link.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, guest_off, length))
    _magic, error, _handle = struct.unpack(">IIQ", receive(link, 16))
    assert error == 0, f"read of {length} bytes at {guest_off}: error {error}"
    return receive(link, length)


SCATTERED = [cell for cell in CELLS if cell.guest_bytes <= COPY_BYTES_MAX and
             (cell.kind in ("fragmented", "zero", "snapshot", "partial", "tables", "unaligned",
                            "repacked") or len(cell.chain()) > 2)]


@pytest.mark.parametrize("cell", SCATTERED, ids=[cell.name for cell in SCATTERED])
def test_random_reads(cell, build, cache, tmp_path):
    """Unaligned on purpose: first byte, last byte, and ends of clusters inside the request."""
    image = cell.make(cache / "matrix")
    client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, tmp_path / "qemu.raw")
    size = (tmp_path / "qemu.raw").stat().st_size
    dice = random.Random(cell.name)
    length_max = min(size, 3 * cell.cluster_bytes, MIB)
    with open(tmp_path / "qemu.raw", "rb") as truth, \
            export(build, tmp_path, image, "readonly=true", f"pool_kib={POOL_KIB_MIN}") as path, \
            connect(path) as link:
        for _ in range(RANDOM_READS):
            length = dice.randint(1, length_max)
            guest_off = dice.randint(0, size - length)
            truth.seek(guest_off)
            assert read_at(link, guest_off, length) == truth.read(length), \
                f"{length} bytes at {guest_off}"
