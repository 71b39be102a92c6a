# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images of every shape, written to through the plugin in any order, are what QEMU then reads.

Each test of a mix (mix.py) works on a copy of one image of images/matrix.py, or of one with
snapshots. Then what writing costs, what it must leave alone, and where there is no space.
QC_SEED=n chooses another seed, here and in test_fio.py.
"""

import errno
import json
import os
import random
import signal
import subprocess
from contextlib import contextmanager

import nbd
import pytest

from images.matrix import GIB, KIB, MIB, Cell, cells, cluster_count, scattered, size_name
from mix import SEED, write_into
from serve import FLUSH, GROW, READ, WRITE, client, export, recorded
from tools import check, connected, copy_of, poke, read_by_qemu

WRITABLE = [cell for cell in cells() if cell.kind != "bitmap"]


@pytest.mark.parametrize("cell", WRITABLE, ids=[cell.name for cell in WRITABLE])
def test_mix(cell, build, cache, tmp_path):
    image = copy_of(cell, cache, tmp_path)
    write_into(build, cell, image, tmp_path, f"test_mix[{cell.name}]")


def snapshots(version, cluster_bytes, refcount_bits):
    """Two snapshots, between which some clusters changed: counts of 1, 2 and 3."""
    count = cluster_count(cluster_bytes) // 2
    steps = []
    for step in (1, 2):
        clusters = list(range(0, count, step))
        steps += [scattered(cluster_bytes, clusters, step), ("snapshot", f"after-{step}")]
    options = "" if version == 2 else f",refcount_bits={refcount_bits}"
    name = f"snapshots-v{version}-{size_name(cluster_bytes)}-r{refcount_bits}"
    return Cell(name, "snapshots", version, cluster_bytes, count * cluster_bytes, tuple(steps),
                options)


SHARED = [snapshots(3, 4 * KIB, bits) for bits in (2, 4, 8, 16, 32, 64)]
SHARED += [snapshots(2, size, 16) for size in (512, 64 * KIB, 2 * MIB)]
SHARED += [snapshots(3, size, 2) for size in (512, 64 * KIB, 2 * MIB)]


@pytest.mark.parametrize("cell", SHARED, ids=[cell.name for cell in SHARED])
def test_mix_with_snapshots(cell, build, cache, tmp_path):
    image = copy_of(cell, cache, tmp_path)
    write_into(build, cell, image, tmp_path, f"test_mix_with_snapshots[{cell.name}]")


# ---- what it costs ---------------------------------------------------------------------------


def create(path, size, options=""):
    client("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat=1.1{options}", path, size)
    return path


def kinds(calls):
    return [call.kind for call in calls if call.kind not in (READ, GROW)]


def test_flushes_after_snapshot(build, tmp_path):
    """10,000 random overwrites of 4 KiB behind a snapshot, one flush: at most 8 flushes of the
    disk, counted from the opening of the image to its closing."""
    image = create(tmp_path / "image.qcow2", GIB, ",preallocation=metadata")
    client("qemu-img", "snapshot", "-c", "before", image)
    dice, log = random.Random(SEED), tmp_path / "log"
    with connected(build, tmp_path, image, "pool_kib=1280", record=log) as link:
        for _ in range(10000):
            link.pwrite(dice.randbytes(4 * KIB), dice.randrange(GIB // (4 * KIB)) * 4 * KIB)
        link.flush()
    calls = kinds(recorded(log))
    flushes_count = calls.count(FLUSH)
    print(f"{flushes_count} flushes, {calls.count(WRITE)} writes")
    assert 2 <= flushes_count <= 8
    check(image)


def test_flushes_of_new_tables(build, tmp_path):
    """The first writes into three new L2 tables and one flush: two flushes of the disk. Opening
    and closing add none."""
    image = create(tmp_path / "image.qcow2", 2 * GIB)
    log = tmp_path / "log"
    with connected(build, tmp_path, image, record=log) as link:
        for number in range(3):
            link.pwrite(bytes([number + 1]) * 64 * KIB, number * 512 * MIB)
        link.flush()
    calls = kinds(recorded(log))
    print(f"{calls.count(WRITE)} writes")
    assert calls.count(FLUSH) == 2
    assert calls[-1] == FLUSH
    check(image)


def test_write_through(build, tmp_path):
    """Every write is durable when it is answered: the log ends with a flush after each."""
    image, log = create(tmp_path / "image.qcow2", GIB), tmp_path / "log"
    with connected(build, tmp_path, image, "write_through=true", record=log) as link:
        for number in range(3):
            link.pwrite(bytes([number + 1]) * 512, number * MIB)
            calls = kinds(recorded(log))
            assert (calls.count(FLUSH), calls[-1]) == (2 * (number + 1), FLUSH)


def test_reading_flushes_at_most_once(build, tmp_path):
    """A fresh image counts as unflushed (rule R5); nothing but that one flush is asked for."""
    image, log = create(tmp_path / "image.qcow2", GIB), tmp_path / "log"
    for _ in range(2):
        with connected(build, tmp_path, image, record=log) as link:
            link.pread(MIB, 0)
            link.flush()
            link.flush()
        calls = kinds(recorded(log))
        assert set(calls) == {FLUSH} and len(calls) <= 1
        log.unlink()


def test_space_comes_back(build, tmp_path):
    """What was discarded is free in the image and a hole in its file."""
    image = create(tmp_path / "image.qcow2", 64 * MIB)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"a" * 32 * MIB, 0)
        link.flush()
        assert image.stat().st_blocks * 512 >= 32 * MIB
        link.trim(64 * MIB, 0)
        link.flush()
        assert image.stat().st_blocks * 512 < 4 * MIB
        size = image.stat().st_size
        link.pwrite(b"b" * 31 * MIB, 32 * MIB)
        link.flush()
        assert image.stat().st_size == size, "free clusters were not used again"
        link.zero(64 * MIB, 0)
    found = json.loads(client("qemu-img", "check", "-f", "qcow2", "--output=json", image))
    assert found.get("allocated-clusters", 0) == 0
    assert image.stat().st_blocks * 512 < 4 * MIB


def test_killed(build, tmp_path):
    """A server that ends without closing the image leaves leaks at most, and what was flushed."""
    image, end = create(tmp_path / "image.qcow2", 64 * MIB), pytest.raises(AssertionError)
    flushed = random.Random(SEED).randbytes(2 * MIB)
    with end as error, export(build, tmp_path, image) as path:
        link = nbd.NBD()
        link.connect_uri(f"nbd+unix:///?socket={path}")
        link.pwrite(flushed, 0)
        link.flush()
        link.trim(MIB, MIB)
        link.flush()
        link.pwrite(flushed, 8 * MIB)
        os.kill(int((tmp_path / "nbd.pid").read_text()), signal.SIGKILL)
    assert "ended with -9" in str(error.value)
    assert subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=False,
                          timeout=20).returncode in (0, 3)
    assert read_by_qemu(image, 0, 8 * MIB, tmp_path) == flushed[:MIB] + bytes(7 * MIB)


# ---- what writing must leave alone -----------------------------------------------------------


def test_unknown_header_content(build, tmp_path):
    """Header fields, feature bits and extensions that nobody knows stay, byte for byte, also where
    the header is written because the refcount table moves."""
    image = create(tmp_path / "image.qcow2", 8 * MIB, ",cluster_size=512,refcount_bits=64")
    poke(image, 80, (1 << 41 | 1 << 63).to_bytes(8, "big"))  # compatible features
    poke(image, 100, (120).to_bytes(4, "big") + bytes(8) + b"whatever")  # header length, a field
    poke(image, 120, bytes.fromhex("12345678 0000000d") + b"unknown bytes" + bytes(3))
    poke(image, 400, b"behind the last extension")
    before = image.read_bytes()[:512]
    data = random.Random(SEED).randbytes(4 * MIB)
    with connected(build, tmp_path, image) as link:
        link.pwrite(data, 0)
    after = image.read_bytes()[:512]
    assert before[48:60] != after[48:60], "the refcount table did not move"
    assert before[:48] + before[60:] == after[:48] + after[60:]
    check(image)
    assert read_by_qemu(image, 0, len(data), tmp_path) == data


def test_autoclear(build, tmp_path):
    """Bits that nobody here keeps the promise of go before the first change, durably; looking and
    reading leave them."""
    image, log = create(tmp_path / "image.qcow2", 8 * MIB), tmp_path / "log"
    poke(image, 88, (1 << 62).to_bytes(8, "big"))
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        link.pread(MIB, 0)
        link.flush()
    assert image.read_bytes() == before
    with connected(build, tmp_path, image, record=log) as link:
        link.pwrite(b"a" * 512, 0)
        assert image.read_bytes()[88:96] == bytes(8)
    first, second, *_rest = [call for call in recorded(log) if call.kind not in (READ, GROW)]
    assert (first.kind, second.kind) == (WRITE, FLUSH)
    assert first.offset <= 88 and first.offset + first.length >= 96
    assert image.read_bytes()[:88] == before[:88]
    check(image)


def test_bitmap(build, cache, tmp_path):
    """A dirty bitmap goes stale by being written past: its autoclear bit is cleared. QEMU then
    counts the bitmap's own clusters as leaked, and nothing else."""
    cell, = (cell for cell in cells() if cell.kind == "bitmap")
    image = copy_of(cell, cache, tmp_path)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"a" * 512, 0)
    found = json.loads(client("qemu-img", "check", "-f", "qcow2", "--output=json", image, status=3))
    assert found.get("corruptions", 0) == 0 and found["leaks"] <= 3


# ---- no space --------------------------------------------------------------------------------

ROOM_KIB = 4096


def assert_no_space(call):
    with pytest.raises(nbd.Error) as error:
        call()
    assert error.value.errnum == errno.ENOSPC


def fill_up(link, dice):
    """Writes until there is no space; how many clusters that were."""
    for number in range(2 * ROOM_KIB // 64):
        try:
            link.pwrite(dice.randbytes(64 * KIB), number * 64 * KIB)
        except nbd.Error as error:
            assert error.errnum == errno.ENOSPC
            return number
    raise AssertionError("it never gets full")


def use_full_disk(link, dice):
    """All that still works; what the guest disk then holds."""
    count = fill_up(link, dice)
    assert count >= ROOM_KIB // 64 // 2
    assert_no_space(lambda: link.pwrite(b"a" * 512, 100 * MIB))
    content = bytearray(link.pread(count * 64 * KIB, 0))
    link.flush()
    content[KIB:5 * KIB] = b"in place" * 512
    link.pwrite(content[KIB:5 * KIB], KIB)
    link.flush()
    link.trim(128 * KIB, 64 * KIB)
    content[64 * KIB:192 * KIB] = bytes(128 * KIB)
    link.flush()
    content[64 * KIB:128 * KIB] = b"again..." * (8 * KIB)
    link.pwrite(content[64 * KIB:128 * KIB], 64 * KIB)
    return content


def test_no_space_in_file(build, tmp_path):
    """The file may not grow beyond a limit: ENOSPC for new clusters, everything else goes on."""
    image = create(tmp_path / "image.qcow2", 128 * MIB)
    dice = random.Random(SEED)
    with connected(build, tmp_path, image, limit_kib=ROOM_KIB) as link:
        content = use_full_disk(link, dice)
    check(image)
    assert read_by_qemu(image, 0, len(content), tmp_path) == content


@contextmanager
def small_host(folder):
    """A file system with little room; who may not mount one skips the test."""
    room = folder / "room"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_KIB}k", "none", str(room)]
    if subprocess.run(mount, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield room
    finally:
        client("umount", room)


def test_no_space_on_host(build, tmp_path):
    """The file system is full: first for growing, later also for clusters that the file has a hole
    for. When there is room again, everything goes on."""
    dice = random.Random(SEED)
    with small_host(tmp_path) as room:
        image, other = create(room / "image.qcow2", 128 * MIB), room / "other"
        with connected(build, tmp_path, image) as link:
            content = use_full_disk(link, dice)
            link.trim(MIB, MIB)
            link.flush()
            other.write_bytes(bytes(MIB - 128 * KIB))
            content[MIB:2 * MIB] = bytes(MIB)
            assert_no_space(lambda: link.pwrite(b"a" * MIB, MIB))
            link.flush()
            assert link.pread(MIB, 0) == content[:MIB]
            other.unlink()
            content[MIB:2 * MIB] = b"b" * MIB
            link.pwrite(content[MIB:2 * MIB], MIB)
        check(image)
        assert read_by_qemu(image, 0, len(content), tmp_path) == content


@contextmanager
def device_of(path):
    """A block device over a file; who may not make one skips the test."""
    found = subprocess.run(["losetup", "--find", "--show", path], check=False, timeout=20,
                           capture_output=True, text=True)
    if found.returncode:
        pytest.skip("a loop device cannot be made here")
    device = found.stdout.strip()
    try:
        yield device
    finally:
        client("losetup", "--detach", device)


def test_no_space_on_device(build, tmp_path):
    """A block device does not grow: its size is the limit."""
    image = create(tmp_path / "image.qcow2", 128 * MIB)
    os.truncate(image, ROOM_KIB * KIB)
    with device_of(image) as device:
        with connected(build, tmp_path, device) as link:
            content = use_full_disk(link, random.Random(SEED))
    check(image)
    assert read_by_qemu(image, 0, len(content), tmp_path) == content
