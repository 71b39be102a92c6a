# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU's own regression tests of repairs and of making snapshots guard against.

As test_iotests.py, for the repairs of 060, 108, 112, 138, 261 and 271: before a repair the figures
are those of qemu-img; behind it qemu-img finds nothing, and what could be read reads as before. And
for the snapshots that 062, 080, 112 and 261 make, apply and delete.
"""

import json
import os
import subprocess

import pytest

from images.recipe import KIB, MIB
from serve import client
from test_iotests5 import (CLUSTER, COPIED, DATA, L1, L2, REFBLOCK, REFTABLE, be32, be64,
                           written_060)
from test_iotests_subclusters import Subject, set_entry
from tools import check, connected, created, poke, qemu_io, read_by_qemu

SECONDS_MAX = 120


def our_check(build, image, *options):
    """The figures; "exit" is what qemu-img would exit with."""
    run = subprocess.run([build / "host" / "qc-check", *options, image], capture_output=True,
                         text=True, timeout=SECONDS_MAX, check=True)
    return json.loads(run.stdout)


def assert_agrees(build, image):
    """Corruptions and leaks as qemu-img counts them, and nothing is written."""
    before, ours = image.read_bytes(), our_check(build, image)
    found = json.loads(client("qemu-img", "check", "-f", "qcow2", "--output=json", image,
                              status=ours["exit"]))
    assert [ours[name] for name in ("corruptions", "leaks")] == \
        [found.get(name, 0) for name in ("corruptions", "leaks")]
    assert image.read_bytes() == before
    return ours


def repair(build, image):
    found = our_check(build, image, "-r", "all")
    assert (found["exit"], found["corruptions"], found["leaks"]) == (0, 0, 0), found
    check(image)
    assert int.from_bytes(image.read_bytes()[72:80], "big") & 3 == 0, "marked dirty or corrupt"


def assert_takes_writes(build, folder, image):
    with connected(build, folder, image) as link:
        link.pwrite(b"\x33" * 3 * CLUSTER, 8 * MIB)
        link.pwrite(b"\x33" * 512, 0)
    check(image)
    assert read_by_qemu(image, 8 * MIB, 3 * CLUSTER, folder) == b"\x33" * 3 * CLUSTER


# ---- 060, 108: tables and counts -------------------------------------------------------------

# {name: (what is poked where, what the first cluster then holds, None where nobody can know)}
DAMAGES_060 = {
    "data-is-refcount-block": ([(L2, be64(COPIED | REFBLOCK))], None),
    "data-is-refcount-table": ([(L2, be64(COPIED | REFTABLE))], None),
    "zero-unaligned": ([(L2, be64(COPIED | DATA | 0x2a01))], 0),
    "refcount-table-empty": ([(REFTABLE, be64(0))], 42),
    "refcount-block-empty": ([(REFBLOCK, bytes(16))], 42),
    "refcount-block-outside": ([(REFTABLE, be64(1 << 40))], 42),
    "header-count-0": ([(REFBLOCK, bytes(2))], 42),
    "l2-count-0": ([(REFBLOCK + 8, bytes(2))], 42),
    "dirty-and-corrupt": ([(72, be64(3)), (REFBLOCK + 10, bytes(2))], 42),
}
DAMAGES_108 = {
    "block-behind-the-end": ([(REFTABLE + 8, be64(0x100000))], 42),
    "block-behind-the-end-counted": ([(REFTABLE + 8, be64(0x100000)),
                                      (REFBLOCK + 32, b"\0\1")], 42),
    "block-at-the-signed-end": ([(REFTABLE + 8, be64(2**63 - CLUSTER))], 42),
    "block-at-the-unsigned-end": ([(REFTABLE + 8, be64(2**64 - CLUSTER))], 42),
}


def assert_repairs(build, folder, pokes, byte):
    image = written_060(folder / "image.qcow2")
    for where, what in pokes:
        poke(image, where, what)
    assert assert_agrees(build, image)["corruptions"] > 0
    repair(build, image)
    if byte is not None:
        assert read_by_qemu(image, 0, CLUSTER, folder) == bytes([byte]) * CLUSTER
    assert_takes_writes(build, folder, image)


@pytest.mark.parametrize("name", DAMAGES_060)
def test_iotest_060_repair(name, build, tmp_path):
    assert_repairs(build, tmp_path, *DAMAGES_060[name])


@pytest.mark.parametrize("name", DAMAGES_108)
def test_iotest_108_repair(name, build, tmp_path):
    assert_repairs(build, tmp_path, *DAMAGES_108[name])


def test_iotest_060_data_is_l2_of_a_snapshot(build, tmp_path):
    """A table that only a snapshot needs is known to the check alone, here as in QEMU by default.

    After the repair the disk and its snapshot share nothing that was never meant to be shared.
    """
    image = written_060(tmp_path / "image.qcow2", "write -q -P 1 0 512")
    client("qemu-img", "snapshot", "-c", "foo", image)
    qemu_io(image, "write -q -P 2 0 512")
    now = int.from_bytes(image.read_bytes()[L1:L1 + 8], "big") & ~COPIED
    assert now != L2
    poke(image, now, be64(COPIED | L2))
    assert assert_agrees(build, image)["corruptions"] > 0
    repair(build, image)
    assert_takes_writes(build, tmp_path, image)
    with connected(build, tmp_path, image, "snapshot=foo") as link:
        assert link.pread(CLUSTER, 0) == b"\1" * 512 + bytes(CLUSTER - 512)


def test_iotest_108_no_refcount_table(build, tmp_path):
    """All counts are made anew."""
    image = written_060(tmp_path / "image.qcow2")
    poke(image, 48, bytes(12))
    assert assert_agrees(build, image)["corruptions"] > 0
    repair(build, image)
    assert read_by_qemu(image, 0, CLUSTER, tmp_path) == b"\x2a" * CLUSTER
    assert_takes_writes(build, tmp_path, image)


def test_iotest_108_data_where_a_new_block_would_lie(build, tmp_path):
    """The first block is full; the one that must come does not land on uncounted data."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, "cluster_size=512")
    qemu_io(image, "write -q -P 1 0 0x1b200")
    assert image.stat().st_size == 0x20000
    poke(image, 0x1ccc8, be64(COPIED | 0x20000))
    poke(image, 0x20000, b"\x2a" * 512)
    assert read_by_qemu(image, 0x1b200, 512, tmp_path) == b"\x2a" * 512
    assert_agrees(build, image)
    repair(build, image)
    assert read_by_qemu(image, 0, 0x1b400, tmp_path) == b"\1" * 0x1b200 + b"\x2a" * 512


# ---- 112, 138: what cannot be put right, or not by counting ----------------------------------


def test_iotest_112_more_references_than_a_count_holds(build, tmp_path):
    """It is told, and not made worse; a wider count would do."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, "refcount_bits=1")
    qemu_io(image, "write -q -P 42 0 64k")
    poke(image, L2 + 8, be64(COPIED | DATA))
    before = assert_agrees(build, image)
    after = our_check(build, image, "-r", "all")
    assert after["exit"] == 2 and after["corruptions"] <= before["corruptions"]
    assert read_by_qemu(image, 0, 2 * CLUSTER, tmp_path) == b"\x2a" * 2 * CLUSTER
    client("qemu-img", "amend", "-f", "qcow2", "-o", "refcount_bits=2", image)
    repair(build, image)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\x33" * CLUSTER, 0)
    # No check: it wants the COPIED flag back that the other reference does not have.
    assert read_by_qemu(image, 0, 2 * CLUSTER, tmp_path) == \
        b"\x33" * CLUSTER + b"\x2a" * CLUSTER


def test_iotest_138_cluster_at_32_pb_checked(build, tmp_path):
    """Memory is bounded wherever the clusters lie; QEMU tells what is wrong as well."""
    image = created(tmp_path / "image.qcow2", 512, "cluster_size=512")
    qemu_io(image, "write -q 0 512")
    poke(image, 2048, be64(COPIED | 1 << 55))
    assert assert_agrees(build, image)["corruptions"] > 0


# ---- 261: tables of snapshots ----------------------------------------------------------------


def entries_of(image):
    """[(fixed part, extra data, id and name)] of the snapshot table, and where it lies."""
    content, found = image.read_bytes(), []
    count, start = (int.from_bytes(content[at:end], "big") for at, end in ((60, 64), (64, 72)))
    at = start
    for _ in range(count):
        id_bytes, name_bytes, extra_bytes = (int.from_bytes(content[at + first:at + last], "big")
                                             for first, last in ((12, 14), (14, 16), (36, 40)))
        names, end = at + 40 + extra_bytes, at + 40 + extra_bytes + id_bytes + name_bytes
        found.append((content[at:at + 40], content[at + 40:names], content[names:end]))
        at = (end + 7) // 8 * 8
    return found, start


def image_261(path):
    """Version 2, three snapshots: with no extra data, with more than is known, with too little for
    version 3."""
    image = created(path, 64 * MIB, "compat=0.10")
    for number in range(3):
        qemu_io(image, f"write -q -P {number + 1} 0 64k")
        client("qemu-img", "snapshot", "-c", f"sn{number}", image)
    entries, start = entries_of(image)
    table = b""
    for (fixed, extra, names), length in zip(entries, (0, 42, 8)):
        extra = (extra[:16].ljust(16, b"\0") + b"very important data").ljust(42, b"\0")[:length]
        entry = fixed[:36] + be32(length) + extra + names
        table += entry.ljust((len(entry) + 7) // 8 * 8, b"\0")
    poke(image, start, table)
    check(image)
    return image


def assert_snapshots(build, folder, image, count=3):
    for number in range(count):
        with connected(build, folder, image, f"snapshot=sn{number}") as link:
            assert link.get_size() == 64 * MIB
            assert link.pread(CLUSTER, 0) == bytes([number + 1]) * CLUSTER


@pytest.mark.parametrize("version", [2, 3])
def test_iotest_261_extra_data(version, build, tmp_path):
    """What an entry lacks is taken from the image; what is unknown stays."""
    image = image_261(tmp_path / "image.qcow2")
    if version == 3:
        client("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", image)
    assert assert_agrees(build, image)["exit"] == 0
    assert_snapshots(build, tmp_path, image)
    before, _start = entries_of(image)
    assert_takes_writes(build, tmp_path, image)
    assert entries_of(image)[0] == before
    assert_snapshots(build, tmp_path, image)


def test_iotest_261_botched_version_3(build, tmp_path):
    """Entries get what they must have there; unknown data is kept."""
    image = image_261(tmp_path / "image.qcow2")
    poke(image, 4, be32(3))
    poke(image, 96, be32(4) + be32(104))
    assert assert_agrees(build, image)["corruptions"] == 2
    repair(build, image)
    extras = [extra for _fixed, extra, _names in entries_of(image)[0]]
    assert all(int.from_bytes(extra[8:16], "big") == 64 * MIB for extra in extras)
    assert extras[1][16:35] == b"very important data"
    assert_snapshots(build, tmp_path, image)
    assert_takes_writes(build, tmp_path, image)


def test_iotest_261_too_much_extra_data(build, tmp_path):
    """64 KiB of it spill over the table's cluster; without them the snapshot is whole."""
    image = image_261(tmp_path / "image.qcow2")
    client("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", image)
    client("qemu-img", "snapshot", "-c", "sn3", image)
    entries, at = entries_of(image)
    for fixed, extra, names in entries[:3]:
        at += (40 + len(extra) + len(names) + 7) // 8 * 8
    poke(image, at + 36, be32(0x10000))
    assert our_check(build, image)["exit"] == 1
    repair(build, image)
    assert len(entries_of(image)[0]) == 4
    assert_snapshots(build, tmp_path, image)


def test_iotest_261_too_many_snapshots(build, tmp_path):
    """Of 131,072, which version 2 can have without one byte of theirs, half stay.

    The figure is qemu-img's: each that is dropped, and 40 clusters of the table that had no count.
    qemu-img would look at what is left for ten seconds, so it only reads the table.
    """
    image = created(tmp_path / "image.qcow2", 64 * MIB, "compat=0.10")
    poke(image, 60, be32(0x20000) + be64(MIB))
    os.truncate(image, MIB + 40 * 0x20000)
    before = image.read_bytes()
    for fix in ((), ("-r", "leaks")):
        found = our_check(build, image, *fix)
        assert (found["exit"], found["check-errors"]) == (1, 1)
        assert image.read_bytes() == before
    assert our_check(build, image, "-r", "all")["corruptions-fixed"] == 0x10000 + 40
    assert image.read_bytes()[60:72] == be32(0x10000) + be64(MIB)
    assert our_check(build, image)["exit"] == 0
    client("qemu-img", "info", image)


# ---- 271: entries of subclusters -------------------------------------------------------------


@pytest.mark.parametrize("is_over", [False, True])
def test_iotest_271_repair_unaligned(is_over, build, tmp_path):
    """Where no subcluster is allocated, the place does not matter and can go."""
    subject = Subject(build, tmp_path, 128 * KIB, is_over)
    subject.run("write", 4 * KIB, 2 * KIB)
    subject.run("zero", 4 * KIB, 2 * KIB)
    set_entry(subject.image, 0, 6, b"\2")
    assert assert_agrees(build, subject.image)["corruptions"] > 0
    repair(build, subject.image)
    subject.assert_whole()


# ---- 062, 080, 112, 261: snapshots made, applied and deleted ---------------------------------


def our_snapshot(build, image, option, name):
    """Whether it was done."""
    run = subprocess.run([build / "host" / "qc-snapshot", image, "1280", option, name],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode == 0) == (run.stderr == "")
    return run.returncode == 0


@pytest.mark.parametrize("zeros", ["write -q -z 0 256k", "write -q -z -u 0 256k"])
def test_iotest_062_snapshot_of_zeros(zeros, build, tmp_path):
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    qemu_io(image, "write -q -P 1 0 128k", zeros)
    assert our_snapshot(build, image, "-c", "foo")
    check(image)
    assert_takes_writes(build, tmp_path, image)
    assert our_snapshot(build, image, "-a", "foo")
    check(image)
    assert read_by_qemu(image, 0, 512 * KIB, tmp_path) == bytes(512 * KIB)


@pytest.mark.parametrize("field, value", [(0, be64(0x400200)), (8, be32(0x10000000))])
@pytest.mark.parametrize("option", ["-a", "-d"])
def test_iotest_080_snapshot_whose_l1_is_nowhere(option, field, value, build, tmp_path):
    """It can neither be applied nor deleted, and nothing happens to the disk."""
    image = written_060(tmp_path / "image.qcow2")
    client("qemu-img", "snapshot", "-c", "test", image)
    poke(image, int.from_bytes(image.read_bytes()[64:72], "big") + field, value)
    before = image.read_bytes()
    assert not our_snapshot(build, image, option, "test")
    after = image.read_bytes()
    assert after[:len(before)] == before and not any(after[len(before):])


@pytest.mark.parametrize("bits, count", [(1, 0), (2, 2), (4, 14)])
def test_iotest_112_as_many_snapshots_as_a_count_holds(bits, count, build, tmp_path):
    """The one that is too many changes nothing: not even a table is leaked."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, f"refcount_bits={bits}")
    qemu_io(image, "write -q -P 42 0 512")
    for number in range(count):
        assert our_snapshot(build, image, "-c", f"snapshot-{number}")
    before = image.read_bytes()
    assert not our_snapshot(build, image, "-c", "too many")
    after = image.read_bytes()
    assert after[:len(before)] == before and not any(after[len(before):])
    check(image)
    assert_takes_writes(build, tmp_path, image)


def test_iotest_112_snapshot_at_the_largest_count(build, tmp_path):
    image = written_060(tmp_path / "image.qcow2", options="refcount_bits=64")
    poke(image, REFBLOCK + 8 * (DATA // CLUSTER), be64(2**64 - 1))
    poke(image, L2, be64(DATA))
    before = image.read_bytes()
    assert not our_snapshot(build, image, "-c", "foo")
    assert image.read_bytes()[:len(before)] == before


@pytest.mark.parametrize("version", [2, 3])
def test_iotest_261_table_with_extra_data_changes(version, build, tmp_path):
    """A new entry, and each of the others gone: what the rest has of unknown data stays."""
    image = image_261(tmp_path / "image.qcow2")
    if version == 3:
        client("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", image)
    original = image.read_bytes()
    assert our_snapshot(build, image, "-c", "sn3")
    check(image)
    assert len(entries_of(image)[0]) == 4
    assert entries_of(image)[0][1][1][16:35] == b"very important data"
    assert_snapshots(build, tmp_path, image)
    for gone in range(3):
        image.write_bytes(original)
        assert our_snapshot(build, image, "-d", f"sn{gone}")
        check(image)
        entries, _start = entries_of(image)
        assert [names[1:] for _fixed, _extra, names in entries] == \
            [b"sn%d" % n for n in range(3) if n != gone]
        if gone != 1:
            assert any(extra[16:35] == b"very important data" for _f, extra, _n in entries)
