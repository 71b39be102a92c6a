# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU's own regression tests of compressed clusters guard against, asked of this engine.

As test_iotests.py, for the numbers 214 and 287.
"""

import errno
import json
import random

import pytest

from images.recipe import KIB, MIB
from mix import SEED
from serve import client
from test_refusals import assert_refused, assert_served
from tools import assert_fails, check, connected, created, poke, qemu_io, read_by_qemu

# ---- 214: descriptors whose size is wrong ----------------------------------------------------

L2_214 = 0x800000
ENTRIES_214 = (0x4008000000a00000, 0x4008000000a00802)


def image_214(path):
    """Two compressed clusters of 2 MiB, one behind the other on the host, five sectors each."""
    created(path, 8 * MIB, "cluster_size=2M")
    qemu_io(path, "write -q -c -P 0x11 0 2M", "write -q -c -P 0x11 2M 2M")
    content = path.read_bytes()
    for number, entry in enumerate(ENTRIES_214):
        assert int.from_bytes(content[L2_214 + 8 * number:][:8], "big") == entry
    return path


def lengthen_214(image):
    """8192 sectors: past the end of the file, across three host clusters."""
    for number in range(2):
        poke(image, L2_214 + 8 * number, b"\x7f\xfe")


def test_iotest_214_size_too_small(build, tmp_path, capfd):
    image = image_214(tmp_path / "image.qcow2")
    poke(image, L2_214, b"\x40\x06")
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        for start, length in ((0, 512), (0, 4 * MIB), (2 * MIB - 512, 1024)):
            assert_fails(lambda part=(length, start): link.pread(*part), errno.EIO)
        assert link.pread(2 * MIB, 2 * MIB) == b"\x11" * 2 * MIB
    assert "error: bad compressed cluster at guest 0x0\n" in capfd.readouterr().err
    assert image.read_bytes() == before


def test_iotest_214_size_too_large(build, tmp_path):
    """What is behind a cluster's data does not matter, nor whether it is there."""
    image = image_214(tmp_path / "image.qcow2")
    lengthen_214(image)
    with connected(build, tmp_path, image) as link:
        assert link.pread(4 * MIB, 0) == b"\x11" * 4 * MIB
        link.pwrite(b"\x22" * 4 * MIB, 4 * MIB)
    with connected(build, tmp_path, image) as link:
        assert link.pread(8 * MIB, 0) == b"\x11" * 4 * MIB + b"\x22" * 4 * MIB
    # The counts are now wrong, as they were, which QEMU can put right.
    client("qemu-img", "check", "-q", "-r", "all", image)
    with connected(build, tmp_path, image) as link:
        assert link.pread(8 * MIB, 0) == b"\x11" * 4 * MIB + b"\x22" * 4 * MIB
        link.pwrite(b"\x33" * 4 * MIB, 0)
    # No check: it wants the COPIED flags back that the repair took from the other two clusters.
    assert read_by_qemu(image, 0, 8 * MIB, tmp_path) == b"\x33" * 4 * MIB + b"\x22" * 4 * MIB


@pytest.mark.parametrize("what", ["whole", "part", "zero", "trim"])
def test_iotest_214_writing_over_size_too_large(what, build, tmp_path, capfd):
    """Its host clusters were never counted: letting go of them is refused, and so is all else."""
    image = image_214(tmp_path / "image.qcow2")
    lengthen_214(image)
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        change = {"whole": lambda: link.pwrite(b"a" * 2 * MIB, 0),
                  "part": lambda: link.pwrite(b"a" * 512, MIB),
                  "zero": lambda: link.zero(2 * MIB, 0), "trim": lambda: link.trim(2 * MIB, 0)}
        assert_fails(change[what], errno.EIO)
        assert_fails(lambda: link.pwrite(b"a" * 512, 6 * MIB), errno.EPERM)
        assert link.pread(8 * MIB, 0) == b"\x11" * 4 * MIB + bytes(4 * MIB)
    assert "refcount" in capfd.readouterr().err
    after = image.read_bytes()
    assert after[:len(before)] == before and not any(after[len(before):])


def test_iotest_214_several_clusters_at_once(build, tmp_path):
    """Compressed by a filter that cuts requests into clusters, the ends filled up."""
    image, cluster = created(tmp_path / "image.qcow2", 2 * MIB), 64 * KIB
    model, length = bytearray(2 * MIB), 3 * cluster + cluster // 2
    filtered = f"driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename={image}"
    for byte, start in ((0xbb, 0), (0xcc, 4 * cluster + cluster // 4)):
        client("qemu-io", "-c", f"write -q -P {byte} {start} {length}", "--image-opts", filtered)
        model[start:start + length] = bytes([byte]) * length
    with connected(build, tmp_path, image) as link:
        assert link.pread(2 * MIB, 0) == model
    found = json.loads(client("qemu-img", "check", "--output=json", image))
    assert found["compressed-clusters"] == 8


# ---- 287: zstd -------------------------------------------------------------------------------

HEADERS_287 = {"zlib": ("zlib", 0, None), "zstd": ("zstd", 8, None),
               "zlib-with-bit": ("zlib", 8, "compression type 0 against its feature bit"),
               "zstd-without-bit": ("zstd", 0, "compression type 1 against its feature bit")}


@pytest.mark.parametrize("name", HEADERS_287)
def test_iotest_287_header(name, build, assert_refused, tmp_path):
    """Type and feature bit must say the same."""
    compression, bits, line = HEADERS_287[name]
    image = created(tmp_path / "image.qcow2", 64 * MIB, f"compression_type={compression}")
    content = image.read_bytes()
    assert (content[104], content[79]) == {"zlib": (0, 0), "zstd": (1, 8)}[compression]
    poke(image, 79, bytes([bits]))
    if line:
        assert_refused(image, line)
    else:
        assert_served(build, image, 64 * MIB)


def test_iotest_287_adjacent_clusters(build, tmp_path):
    """Also a few bytes across where one ends and the next begins."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, "compression_type=zstd")
    qemu_io(image, *(f"write -q -c -P {0xab + n} {n * 64}k 64k" for n in range(3)))
    with connected(build, tmp_path, image) as link:
        assert link.pread(256 * KIB, 0) == b"".join(
            bytes([byte]) * 64 * KIB for byte in (0xab, 0xac, 0xad, 0))
        for guest_off, wanted in ((65534, b"\xab\xab" + b"\xac" * 6),
                                  (131070, b"\xac\xac" + b"\xad" * 6), (196604, b"\xad" * 4)):
            assert link.pread(8, guest_off) == wanted.ljust(8, b"\0")
    check(image)


def test_iotest_287_incompressible_clusters(build, tmp_path):
    """Half compresses and half does not; converted once with zlib, from there with zstd."""
    content = b"\xfa" * MIB + random.Random(SEED).randbytes(MIB)
    raw = tmp_path / "source.raw"
    raw.write_bytes(content)
    source, form = raw, "raw"
    for compression in ("zlib", "zstd"):
        image = tmp_path / f"{compression}.qcow2"
        client("qemu-img", "convert", "-c", "-f", form, "-O", "qcow2", "-o",
               f"compression_type={compression}", source, image)
        with connected(build, tmp_path, image) as link:
            assert link.pread(2 * MIB, 0) == content
        source, form = image, "qcow2"
