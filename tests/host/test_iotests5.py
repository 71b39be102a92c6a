# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU's own regression tests of damage, counts, snapshots, data files and subclusters guard
against, asked of this engine.

As test_iotests.py, for the numbers 060, 062, 080, 112, 121, 138, 250, 265 and 290.
"""

import errno
import json

import nbd
import pytest

from images.recipe import KIB, MIB
from serve import client
from test_iotests import data_runs, send, wait_for
from test_refusals import assert_refused, be32, be64
from tools import (assert_fails, check, connected, created, marked, poke, qemu_io, read_by_qemu,
                   state_of)

CLUSTER = 64 * KIB
REFTABLE, REFBLOCK, L1, L2, DATA = (n * CLUSTER for n in range(1, 6))  # as qemu-img places them
COPIED = 1 << 63

# ---- 060: damage that a write would make worse -----------------------------------------------


def written_060(path, *commands, options=""):
    """64 MiB, one cluster of data."""
    image = created(path, 64 * MIB, options)
    qemu_io(image, *(commands or ("write -q -P 42 0 64k",)))
    return image


def assert_spared(image, before):
    """Not a byte of what was there is another; the file may have got longer."""
    after = image.read_bytes()
    assert after[:len(before)] == before
    assert not any(after[len(before):])


def assert_stops(build, folder, image, change, *, line, is_marked, capfd):
    """
    The change fails with that line, everything after it as read-only, and nothing is touched but,
    where QEMU sets it too, the corrupt mark.
    """
    before = marked(image.read_bytes()) if is_marked else image.read_bytes()
    with connected(build, folder, image) as link:
        assert_fails(lambda: change(link), errno.EIO)
        assert_fails(lambda: link.pwrite(b"a" * 512, 32 * MIB), errno.EPERM)
    assert line in capfd.readouterr().err
    assert_spared(image, before)


def write_first(link):
    link.pwrite(b"\x2a" * 512, 0)


def write_new(link):
    link.pwrite(b"\x2a" * CLUSTER, CLUSTER)


def discard_first(link):
    link.trim(CLUSTER, 0)


# {name: (where, what, the change that meets it, what is said)}
DAMAGES_060 = {
    "l2-is-l1": (L1, be64(COPIED | L1), write_first, "bad L1 entry"),
    "data-is-refcount-block": (L2, be64(COPIED | REFBLOCK), write_first, "metadata"),
    "data-is-refcount-table": (L2, be64(COPIED | REFTABLE), write_first, "metadata"),
    "l1-unaligned": (L1, be64(COPIED | L2 | 0x2a00), write_first, "bad L1 entry"),
    "l2-unaligned": (L2, be64(COPIED | DATA | 0x2a00), write_first, "bad L2 entry"),
    "l2-unaligned-discard": (L2, be64(COPIED | DATA | 0x2a00), discard_first, "bad L2 entry"),
    "zero-unaligned": (L2, be64(COPIED | DATA | 0x2a01), write_first, "bad L2 entry"),
    "zero-unaligned-discard": (L2, be64(COPIED | DATA | 0x2a01), discard_first, "bad L2 entry"),
    "refcount-table-unaligned": (REFTABLE, be64(REFBLOCK | 0x2a00), write_new, "refcount block"),
    "refcount-block-outside": (REFTABLE, be64(1 << 40), discard_first, "refcount block"),
    "refcount-table-empty": (REFTABLE, be64(0), write_new, ""),
    "refcount-block-empty": (REFBLOCK, bytes(16), write_new, "refcount out of range"),
    "header-count-0": (REFBLOCK, bytes(2), write_new, ""),
    "l2-count-0": (REFBLOCK + 8, bytes(2), write_new, "refcount out of range"),
}
# Counts that are odd, and what may be behind a lost end: no reason to close the image to others.
UNMARKED_060 = {"refcount-block-outside", "refcount-table-empty", "refcount-block-empty",
                "l2-count-0"}


@pytest.mark.parametrize("name", DAMAGES_060)
def test_iotest_060_damage(name, build, tmp_path, capfd):
    where, what, change, line = DAMAGES_060[name]
    image = written_060(tmp_path / "image.qcow2")
    poke(image, where, what)
    assert_stops(build, tmp_path, image, change, line=line, is_marked=name not in UNMARKED_060,
                 capfd=capfd)


@pytest.mark.parametrize("version", [2, 3])
def test_iotest_060_free_cluster_is_l2(version, build, tmp_path, capfd):
    """The count of a table says that it is free: it is not handed out for data."""
    image = created(tmp_path / "image.qcow2", 1024 * MIB,
                    f"compat={'0.10' if version == 2 else '1.1'}")
    qemu_io(image, "write -q -P 1 0 64k", "write -q -P 2 512M 64k", "discard -q 0 64k")
    second = int.from_bytes(image.read_bytes()[L1 + 8:L1 + 16], "big") & ~COPIED
    poke(image, REFBLOCK + 2 * (second // CLUSTER), bytes(2))
    table = image.read_bytes()[second:second + CLUSTER]
    with connected(build, tmp_path, image) as link:
        with pytest.raises(nbd.Error):
            for number in range(4):
                link.pwrite(b"a" * CLUSTER, number * CLUSTER)
        assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
        assert link.pread(CLUSTER, 512 * MIB) == b"\2" * CLUSTER
    assert image.read_bytes()[second:second + CLUSTER] == table
    assert f"free cluster {second:#x} is metadata" in capfd.readouterr().err


def test_iotest_060_zero_unaligned_reads(build, tmp_path):
    """What it reads as does not depend on its place, which is wrong all the same."""
    image = written_060(tmp_path / "image.qcow2")
    poke(image, L2, be64(COPIED | DATA | 0x2a01))
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        assert_fails(lambda: link.pread(512, 0), errno.EIO)
        assert link.pread(MIB, CLUSTER) == bytes(MIB)
    assert image.read_bytes() == marked(before)


# ---- 062: snapshots over zero clusters -------------------------------------------------------


@pytest.mark.parametrize("keeps", [False, True])
def test_iotest_062_snapshot_over_zeros(keeps, build, tmp_path):
    """With a place or without, they are shared and written anew like any other."""
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\1" * 128 * KIB, 0)
        link.zero(256 * KIB, 0, nbd.CMD_FLAG_NO_HOLE if keeps else 0)
    client("qemu-img", "snapshot", "-c", "foo", image)
    check(image)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\2" * 512, 100 * KIB)
        link.trim(CLUSTER, 0)
        link.zero(CLUSTER, 2 * CLUSTER)
    check(image)
    assert read_by_qemu(image, 0, 256 * KIB, tmp_path) == \
        bytes(100 * KIB) + b"\2" * 512 + bytes(156 * KIB - 512)
    with connected(build, tmp_path, image, "snapshot=foo") as link:
        assert link.pread(MIB, 0) == bytes(MIB)


# ---- 080: fields of the header, tables of snapshots ------------------------------------------

WILD = bytes.fromhex("1234567890abcdef")
FIELDS_080 = {
    "header-4g": ([(100, be32(2**32 - 1))], "header length 4294967295 invalid"),
    "header-2g": ([(100, be32(2**31 - 1))], "header length 2147483647 invalid"),
    "extension-2g-name-far": ([(8, be64(2**64 - 1)), (112, be32(0x12345678) + be32(2**31 - 1))],
                              "backing name field invalid"),
    "extension-2g": ([(112, be32(0x12345678) + be32(2**31 - 1))],
                     "header extension 0x12345678 invalid"),
    "refcount-table-4g": ([(56, be32(2**32 - 1))],
                          "refcount table too large: 4294967295 clusters"),
    "refcount-table-128k": ([(56, be32(0x20001))], "refcount table too large: 131073 clusters"),
    "refcount-table-unaligned": ([(48, WILD)],
                                 "refcount table offset 0x1234567890abcdef invalid"),
    "refcount-table-wraps": ([(48, be64(2**64 - CLUSTER) + be32(0x7f))],
                             "refcount table offset 0xffffffffffff0000 invalid"),
    "snapshots-4g": ([(60, be32(2**32 - 1))],
                     "snapshot table too large: 4294967295 snapshots"),
    "snapshots-2g": ([(60, be32(2**31 - 1))],
                     "snapshot table too large: 2147483647 snapshots"),
    "snapshots-wrap": ([(60, be32(0xffff) + be64(2**64 - CLUSTER))],
                       "snapshot table offset 0xffffffffffff0000 invalid"),
    "snapshots-behind-the-end": ([(60, be32(0x10000) + be64(0x1000000))],
                                 "snapshot table offset 0x1000000 invalid"),
    "l1-4g": ([(36, be32(2**32 - 1))], "L1 table too large: 4294967295 entries"),
    "l1-2g": ([(36, be32(2**31 - 1))], "L1 table too large: 2147483647 entries"),
    "l1-wraps": ([(36, be32(0xffff) + be64(2**63 - CLUSTER))],
                 "L1 table offset 0x7fffffffffff0000 invalid"),
    "l1-unaligned": ([(36, be32(1) + WILD)], "L1 table offset 0x1234567890abcdef invalid"),
    "backing-name-4g": ([(8, be64(0x1000) + be32(2**32 - 1))], "backing name field invalid"),
}


@pytest.mark.parametrize("name", FIELDS_080)
def test_iotest_080_field(name, assert_refused, tmp_path):
    pokes, line = FIELDS_080[name]
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    for where, what in pokes:
        poke(image, where, what)
    assert_refused(image, line)


def test_iotest_080_no_l1_beside_a_snapshot(assert_refused, tmp_path):
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    client("qemu-img", "snapshot", "-c", "foo", image)
    poke(image, 36, be32(0))
    assert_refused(image, "L1 table too small: 0 entries")


@pytest.mark.parametrize("entry", [0xbfffffffffff0000, 0x800000ffffff0000])
def test_iotest_080_l2_entry_far_away(entry, build, tmp_path):
    image = written_060(tmp_path / "image.qcow2")
    poke(image, L2, be64(entry))
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        assert_fails(lambda: link.pread(512, 0), errno.EIO)
        assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
        assert link.pread(MIB, CLUSTER) == bytes(MIB)
    assert image.read_bytes() == before


@pytest.mark.parametrize("field, value", [(0, be64(0x400200)), (0, be64(2**63)),
                                          (8, be32(0x10000000)), (8, be32(0))])
def test_iotest_080_l1_of_a_snapshot(field, value, build, tmp_path, capfd):
    """It cannot be opened; the disk beside it can, and is written to."""
    image = written_060(tmp_path / "image.qcow2")
    client("qemu-img", "snapshot", "-c", "test", image)
    poke(image, int.from_bytes(image.read_bytes()[64:72], "big") + field, value)
    before = image.read_bytes()
    with pytest.raises(AssertionError), connected(build, tmp_path, image, "snapshot=test"):
        pass
    assert "L1 table of snapshot 1 " in capfd.readouterr().err
    assert image.read_bytes() == before
    with connected(build, tmp_path, image) as link:
        assert link.pread(CLUSTER, 0) == b"\x2a" * CLUSTER


# ---- 112: widths of the counts ---------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_iotest_112_width(bits, build, tmp_path):
    image = created(tmp_path / "image.qcow2", 64 * MIB, f"refcount_bits={bits},cluster_size=4k")
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\1" * 16 * MIB, 16 * MIB)
        link.trim(4 * MIB, 20 * MIB)
        link.flush()
        link.pwrite(b"\2" * 8 * MIB, 40 * MIB)
    check(image)
    # And with another width, as QEMU makes it of this one.
    client("qemu-img", "amend", "-f", "qcow2", "-o", f"refcount_bits={64 // bits}", image)
    with connected(build, tmp_path, image) as link:
        assert link.pread(32 * MIB, 16 * MIB) == \
            b"\1" * 4 * MIB + bytes(4 * MIB) + b"\1" * 8 * MIB + bytes(8 * MIB) + b"\2" * 8 * MIB
        link.pwrite(b"\3" * MIB, 0)
    check(image)


def test_iotest_112_compressed_clusters_of_width_1(build, tmp_path):
    """No two of them can share a host cluster."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, "refcount_bits=1")
    qemu_io(image, *(f"write -q -c -P {n} {n * 64}k 64k" for n in range(3)))
    with connected(build, tmp_path, image) as link:
        assert link.pread(3 * CLUSTER, 0) == b"".join(bytes([n]) * CLUSTER for n in range(3))
        link.pwrite(b"\3" * 512, CLUSTER)
        link.trim(CLUSTER, 2 * CLUSTER)
    check(image)
    assert read_by_qemu(image, 0, 3 * CLUSTER, tmp_path) == \
        bytes(CLUSTER) + b"\3" * 512 + b"\1" * (CLUSTER - 512) + bytes(CLUSTER)


@pytest.mark.parametrize("count", [2**63, 2**64 - 1])
def test_iotest_112_large_64_bit_count(count, build, tmp_path):
    """A count is an unsigned number: the cluster is shared by many, and is left to them."""
    image = written_060(tmp_path / "image.qcow2", "write -q -P 42 0 512",
                        options="refcount_bits=64")
    place = REFBLOCK + 8 * (DATA // CLUSTER)
    poke(image, place, be64(count))
    poke(image, L2, be64(DATA))
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\x2b" * 512, 0)
        assert link.pread(CLUSTER, 0) == b"\x2b" * 512 + bytes(CLUSTER - 512)
    content = image.read_bytes()
    assert content[DATA:DATA + 512] == b"\x2a" * 512
    assert content[place:place + 8] == be64(count - 1)
    found = json.loads(client("qemu-img", "check", "--output=json", image, status=3))
    assert found.get("corruptions", 0) == 0 and found["leaks"] == 1


# ---- 121: the refcount table grows -----------------------------------------------------------

GROWTHS_121 = {"beside-the-new-block": (64512, [(62 * 1024, 1025), (64 * 1024, 1024)]),
               "block-in-a-gap": (64513, [(63 * 1024, 600)])}


@pytest.mark.parametrize("name", GROWTHS_121)
def test_iotest_121_refcount_table_grows(name, build, tmp_path):
    """The new table and blocks lie beside the block that needed them, or far from it."""
    size, writes = GROWTHS_121[name]
    image = created(tmp_path / "image.qcow2", size * KIB, "cluster_size=1k,preallocation=metadata")
    client("qemu-img", "resize", "-q", "-f", "qcow2", image, "65M")
    before = image.read_bytes()[48:60]
    with connected(build, tmp_path, image) as link:
        for number, (start, length) in enumerate(writes, 1):
            link.pwrite(bytes([number]) * length * KIB, start * KIB)
    assert image.read_bytes()[48:60] != before
    check(image)
    for number, (start, length) in enumerate(writes, 1):
        assert read_by_qemu(image, start * KIB, length * KIB, tmp_path) == \
            bytes([number]) * length * KIB


# ---- 138: a cluster so far away that counting up to it takes too much memory -----------------


def test_iotest_138_cluster_at_32_pb(build, tmp_path, capfd):
    image = created(tmp_path / "image.qcow2", 512, "cluster_size=512")
    qemu_io(image, "write -q 0 512")
    poke(image, 2048, be64(COPIED | 1 << 55))
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        assert_fails(lambda: link.pread(512, 0), errno.EIO)
    assert "bad L2 entry 0x8080000000000000 at guest 0x0" in capfd.readouterr().err
    assert image.read_bytes() == before


# ---- 250: more than 2 GiB given back at once -------------------------------------------------


def test_iotest_250_large_discard(build, tmp_path):
    """Host clusters that lie in one run of more than 31 bits of length."""
    size, part = 2100 * MIB, 10 * MIB
    image = created(tmp_path / "image.qcow2", size, "cluster_size=1M,preallocation=metadata")
    qemu_io(image, f"discard -q 0 {part}", f"discard -q {size - part} {part}",
            f"write -q -P 1 {size - part} {part}", f"write -q -P 2 0 {part}")
    with connected(build, tmp_path, image) as link:
        link.trim(size - part, part)
        link.flush()
        assert data_runs(link, size) == [(0, part)]
        assert link.pread(part, 0) == b"\2" * part
        assert link.pread(part, size - part) == bytes(part)
    assert image.stat().st_blocks * 512 < 2 * part
    check(image)
    assert json.loads(client("qemu-img", "check", "--output=json", image))["allocated-clusters"] \
        == part // MIB


# ---- 265: writes in reverse order, smaller than a cluster ------------------------------------


def test_iotest_265_reverse_writes(build, tmp_path):
    image = created(tmp_path / "image.qcow2", MIB, "cluster_size=4k")
    with connected(build, tmp_path, image) as link:
        wait_for(link, [send(link, 42, start * KIB + KIB, 2 * KIB)
                        for start in range(1020, -1, -4)])
    check(image)
    assert read_by_qemu(image, 0, MIB, tmp_path) == \
        (bytes(KIB) + b"\x2a" * 2 * KIB + bytes(KIB)) * 256


# ---- 290: discards in both versions ----------------------------------------------------------


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_iotest_290_discard(version, is_over, build, tmp_path):
    """Over a layer version 2 has no way to give space back without showing what is below."""
    size, base = 128 * KIB, None
    if is_over:
        base = created(tmp_path / "base.qcow2", size)
        qemu_io(base, f"write -q -P 0xff 0 {size}")
    image = created(tmp_path / "image.qcow2", size,
                    f"compat={'0.10' if version == 2 else '1.1'}", base)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\1" * size, 0)
        link.trim(size, 0)
        is_kept = version == 2 and is_over
        assert link.pread(size, 0) == bytes([is_kept]) * size
        assert data_runs(link, size) == [(0, size)] * is_kept
    check(image)
    found = json.loads(client("qemu-img", "check", "--output=json", image))
    assert found.get("allocated-clusters", 0) == 2 * is_kept
    assert read_by_qemu(image, 0, size, tmp_path) == bytes([is_kept]) * size
