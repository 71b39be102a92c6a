# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What tests of the plugin do with images: make, copy, break, serve, check and read them.

Promises: QEMU makes and judges; a connection and its server end well or the test fails.
"""

import hashlib
from contextlib import contextmanager

import nbd
import pytest

from serve import client, export


def created(path, size, options="", base=None):
    below = ["-b", base.name, "-F", "qcow2"] if base else []
    client("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else []), *below,
           path, size)
    return path


def qemu_io(image, *commands):
    client("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)),
           image)


def poke(path, host_off, data):
    with open(path, "r+b") as image:
        image.seek(host_off)
        image.write(data)


def marked(content):
    """An image's bytes as they are with the corrupt mark."""
    return content[:79] + bytes([content[79] | 2]) + content[80:]


def assert_fails(call, wanted):
    with pytest.raises(nbd.Error) as error:
        call()
    assert error.value.errnum == wanted


@contextmanager
def connected(build, folder, image, *parameters, **options):
    """A client of the export that may ask for extents. It ends well, then the server."""
    with export(build, folder, image, *parameters, **options) as path:
        link = nbd.NBD()
        link.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        link.connect_uri(f"nbd+unix:///?socket={path}")
        yield link
        link.shutdown()


def copy_of(cell, cache, folder):
    """The cell's image, to be changed, beside copies of the layers that it names."""
    cell.make(cache / "matrix")
    for layer in cell.chain():
        client("cp", "--sparse=always", layer.path(cache / "matrix"), folder)
    return folder / cell.path("").name


def state_of(files):
    """What nobody may change of files that are only read."""
    return [(file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest())
            for file in files]


def read_by_qemu(image, guest_off, length, folder):
    """Bytes as qemu-img reads them, holes included."""
    raw = folder / "window.raw"
    client("qemu-img", "convert", "-O", "raw", "--image-opts",
           f"driver=raw,offset={guest_off},size={length},file.driver=qcow2,"
           f"file.file.driver=file,file.file.filename={image}", raw)
    content = raw.read_bytes()
    raw.unlink()
    assert len(content) == length
    return content


def check(image):
    """No error and no leak."""
    client("qemu-img", "check", "-q", "-f", "qcow2", image)
