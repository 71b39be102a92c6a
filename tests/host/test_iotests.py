# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU's own regression tests guard against, asked of this engine.

Each test restates the recipe of the QEMU test (tests/qemu-iotests) whose number its name bears: the
same state, made by QEMU's tools, the same requests, made through the plugin, and what must then be
seen. `make test ONLY=iotest-214` runs those of one number. Afterwards qemu-img check finds nothing,
leaks included, unless the state itself is damaged, and QEMU reads what was read here.
"""

import errno
import json
import random
import subprocess

import nbd
import pytest

from images.recipe import GIB, KIB, MIB
from mix import SEED
from serve import FLUSH, WRITE, client, recorded
from tools import (assert_fails, check, connected, created, poke, qemu_io, read_by_qemu,
                   state_of)


def data_runs(link, size, guest_off=0):
    """[(guest_off, len)] of what the export calls data; neighbours are joined."""
    found, at = [], guest_off

    def take(_context, start, entries, _error):
        nonlocal at
        for length, kind in zip(entries[::2], entries[1::2]):
            if kind == 0 and found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + length)
            elif kind == 0:
                found.append((start, length))
            start += length
        at = start

    while at < size:
        link.block_status(size - at, at, take)
    return found


# ---- 013: patterns of many sizes, on an empty image and a compressed one ---------------------


def pattern_013(guest_off, cluster):
    """Whole clusters, their ends, their starts, their middles; across clusters; across tables."""
    half, reach = cluster // 2, cluster // 8 * cluster
    runs = []
    for start, length in ((0, cluster), (half, half), (0, half), (cluster // 4, half)):
        runs += [(guest_off + n * cluster + start, length) for n in range(256)]
        guest_off += 256 * cluster
    runs += [(guest_off + half + 3 * n * cluster, 2 * cluster) for n in range(64)]
    guest_off += 3 * 64 * cluster
    guest_off = -(-guest_off // reach) * reach - 3 * half
    return runs + [(guest_off + n * (reach + half), 6 * half) for n in range(8)]


def test_iotest_013_patterns(build, tmp_path):
    cluster, places, size = 4 * KIB, (0, 4 * GIB), 6 * GIB
    image = created(tmp_path / "image.qcow2", size, f"cluster_size={cluster}")
    length = 24 * MIB
    models = {place: bytearray(length) for place in places}
    dice = random.Random(SEED)

    def play(target, odd):
        with connected(build, tmp_path, target, "pool_kib=64") as link:
            for place in places:
                for start, count in pattern_013(odd, cluster):
                    data = bytes([dice.randint(1, 255)]) * count
                    link.pwrite(data, place + start)
                    models[place][start:start + count] = data
            look(link)
        check(target)
        for place in places:
            assert read_by_qemu(target, place, length, tmp_path) == models[place]

    def look(link):
        for place in places:
            for start in range(0, length, 2 * MIB):
                assert link.pread(2 * MIB, place + start) == models[place][start:start + 2 * MIB]

    play(image, 0)
    packed = tmp_path / "packed.qcow2"
    client("qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o",
           f"cluster_size={cluster}", image, packed)
    with connected(build, tmp_path, packed, "pool_kib=64") as link:
        look(link)
    # One sector on: into clusters of which a part is old, compressed data.
    play(packed, 512)


# ---- 046: requests that touch the same clusters at the same time -----------------------------

# Of each group all are under way before the first is answered: (byte, guest_off, length).
GROUPS_046 = [
    ("middle of a cluster, then before and behind it",
     [(10, 0x18000, 0x2000), (11, 0x12000, 0x2000), (12, 0x1c000, 0x2000)]),
    ("into the next cluster", [(20, 0x28000, 0x2000), (21, 0x2a000, 0x10000)]),
    ("with a gap", [(40, 0x48000, 0x2000), (41, 0x4c000, 0x10000)]),
    ("next one is there", [(70, 0x76000, 0x8000)]),
    ("next one is there", [(60, 0x66000, 0x2000), (61, 0x6a000, 0xe000)]),
    ("next one is there, at the right place on the host", [(89, 0x80000, 0x1000)]),
    ("next one is there, at the right place on the host", [(90, 0x96000, 0x8000)]),
    ("next one is there, at the right place on the host", [(None, 0x80000, 0x10000)]),
    ("next one is there, at the right place on the host",
     [(80, 0x86000, 0x2000), (81, 0x8a000, 0xe000)]),
    ("next one is compressed", [(None, 0xa0000, 0x10000)]),
    ("next one is compressed", [(100, 0xa6000, 0x2000), (101, 0xaa000, 0xe000)]),
    ("backwards", [(121, 0xdc000, 0x2000), (120, 0xc4000, 0x18000)]),
    ("backwards with a gap", [(141, 0xfc000, 0x2000), (140, 0xe4000, 0x14000)]),
    ("a larger one over a smaller one", [(161, 0x10c000, 0x8000), (160, 0x104000, 0x18000)]),
]


def send(link, byte, guest_off, length):
    """byte None is a discard. The buffer must live as long as the request."""
    if byte is None:
        return None, link.aio_trim(length, guest_off)
    data = nbd.Buffer.from_bytearray(bytearray([byte]) * length)
    return data, link.aio_pwrite(data, guest_off)


def wait_for(link, requests):
    for _data, cookie in requests:
        while not link.aio_command_completed(cookie):
            assert link.poll(20000) == 1, "no answer"


@pytest.mark.parametrize("version", [2, 3])
def test_iotest_046_overlapping_requests(version, build, tmp_path):
    """They are served one after the other, in the order in which they were sent."""
    cluster, count = 64 * KIB, 32
    base = created(tmp_path / "base.qcow2", 128 * MIB)
    qemu_io(base, *(f"write -q -P {n} {n * cluster} {cluster}" for n in range(count)))
    image = created(tmp_path / "image.qcow2", 6 * GIB,
                    f"compat={'0.10' if version == 2 else '1.1'}", base)
    qemu_io(image, "write -q -P 109 0xa0000 0x1000", "write -q -c -P 110 0xb0000 0x10000")
    before, model = state_of([base]), bytearray(read_by_qemu(image, 0, count * cluster, tmp_path))
    with connected(build, tmp_path, image) as link:
        for what, group in GROUPS_046:
            wait_for(link, [send(link, *request) for request in group])
            for byte, guest_off, length in group:
                # What version 2 gives back over a layer below would show it, so that it stays.
                if byte is not None or version == 3:
                    model[guest_off:guest_off + length] = bytes([byte or 0]) * length
            assert link.pread(len(model), 0) == model, what
    check(image)
    assert read_by_qemu(image, 0, len(model), tmp_path) == model
    assert state_of([base]) == before


# ---- 047: how far an allocation reaches ------------------------------------------------------


def test_iotest_047_run_of_old_and_new_clusters(build, tmp_path):
    """One write covers clusters that are there, some that were given back, and half of one."""
    image = created(tmp_path / "image.qcow2", 128 * MIB)
    steps = [(0x66, 0, 320), (0x44, 320, 128), (0x55, 1024, 128), (0x88, 448, 128), (0, 320, 128),
             (0x77, 0, 480)]
    model = bytearray(2 * MIB)
    with connected(build, tmp_path, image) as link:
        for byte, start, length in steps:
            if byte:
                link.pwrite(bytes([byte]) * length * KIB, start * KIB)
            else:
                link.trim(length * KIB, start * KIB)
                link.flush()
            model[start * KIB:(start + length) * KIB] = bytes([byte]) * length * KIB
        assert link.pread(len(model), 0) == model
    check(image)
    assert read_by_qemu(image, 0, len(model), tmp_path) == model


# ---- 154: parts of clusters zeroed over a layer with small clusters --------------------------

# In KiB; clusters are 4 KiB here and 512 bytes below. (what is below, zeroes, what then is data)
PARTS_154 = {
    "tail": ([], (0, 2), []),
    "head": ([], (10, 2), []),
    "both": ([], (17, 2), []),
    "both-two-clusters": ([], (27, 2), []),
    "data-at-start": ([(32, 1)], (34, 1), [(32, 1)]),
    "data-before": ([(65, 1)], (66, 1), [(65, 1)]),
    "data-behind": ([(34, 1)], (33, 1), [(34, 1)]),
    "data-at-end": ([(43, 1)], (41, 1), [(43, 1)]),
    "covers-front": ([(5, 1)], (5, 2), [(4, 4)]),
    "covers-back": ([(14, 1)], (13, 2), [(12, 4)]),
    "covers-all": ([(21, 2)], (21, 2), [(20, 4)]),
    "covers-more": ([(29.5, 1)], (29, 2), [(28, 4)]),
    "two-clusters-start": ([(32, 1)], (35, 2), [(32, 1)]),
    "two-clusters-gap": ([(49, 1)], (51, 2), [(49, 1)]),
    "two-clusters-before": ([(66, 1)], (67, 2), [(66, 1)]),
    "two-clusters-behind": ([(37, 1)], (35, 2), [(37, 1)]),
    "two-clusters-behind-gap": ([(54, 1)], (51, 2), [(54, 1)]),
    "two-clusters-end": ([(71, 1)], (67, 2), [(71, 1)]),
    "two-clusters-overwritten": ([(2, 4)], (3, 2), [(0, 8)]),
    "three-clusters-first": ([(64, 2)], (66, 7), [(64, 2)]),
    "three-clusters-middle": ([(69, 2)], (66, 7), []),
    "three-clusters-last": ([(74, 2)], (66, 7), [(74, 2)]),
    "three-clusters-overwritten": ([(65, 10)], (66, 7), [(64, 4), (72, 4)]),
}


@pytest.mark.parametrize("name", PARTS_154)
def test_iotest_154_zeroes_over_parts(name, build, tmp_path):
    """Zeros hide what is below and nothing beside it; what reads as zeros already takes nothing."""
    below, zeroes, wanted = PARTS_154[name]
    base = created(tmp_path / "base.qcow2", MIB, "cluster_size=512")
    model = bytearray(128 * KIB)
    for start, length in below:
        start, length = int(start * KIB), int(length * KIB)
        qemu_io(base, f"write -q -P 17 {start} {length}")
        model[start:start + length] = b"\x11" * length
    image = created(tmp_path / "image.qcow2", MIB, "cluster_size=4k", base)
    start, length = (part * KIB for part in zeroes)
    model[start:start + length] = bytes(length)
    with connected(build, tmp_path, image) as link:
        link.zero(length, start)
        assert link.pread(len(model), 0) == model
        link.flush()  # until then the rest of a new cluster is still to be filled
        runs = data_runs(link, MIB)
    assert runs == [(start * KIB, length * KIB) for start, length in wanted]
    check(image)
    assert read_by_qemu(image, 0, len(model), tmp_path) == model


TAILS_154 = {"front": (0, 512), "back": (1536, 512), "middle": (512, 1024), "all": (0, 2048)}


@pytest.mark.parametrize("below", ["nothing", "hole", "zero", "data"])
@pytest.mark.parametrize("name", TAILS_154)
def test_iotest_154_zeroes_in_the_last_cluster(name, below, build, tmp_path):
    """The guest disk ends inside its last cluster, the one below even earlier."""
    size, (start, length) = 128 * MIB, TAILS_154[name]
    base, model = None, bytearray(2048)
    if below != "nothing":
        base = created(tmp_path / "base.qcow2", size + KIB, "cluster_size=2k")
    if below == "zero":
        qemu_io(base, f"write -q -z {size} 512")
    if below == "data":
        qemu_io(base, f"write -q -P 17 {size} 1k")
        model[:KIB] = b"\x11" * KIB
    image = created(tmp_path / "image.qcow2", size + 2048, "cluster_size=4k", base)
    model[start:start + length] = bytes(length)
    before = image.read_bytes()
    with connected(build, tmp_path, image) as link:
        link.zero(length, size + start)
        assert link.pread(2048, size) == model
        link.flush()
        runs = data_runs(link, size + 2048, size - 64 * KIB)
    if below == "data":
        assert runs == {"all": [], "back": [(size, KIB)]}.get(name, [(size, 2048)])
    else:
        assert runs == []
    if name == "back" or below == "nothing":
        assert image.read_bytes().rstrip(b"\0") == before.rstrip(b"\0"), "nothing was to be done"
    check(image)
    assert read_by_qemu(image, size, 2048, tmp_path) == model


# ---- 179: zeroes that let space go, and zeroes that keep it ----------------------------------


def entries_of(image):
    """{start in MiB: (depth, is zero, keeps a place)} of runs in qemu-img's map of the image."""
    found = json.loads(client("qemu-img", "map", "-f", "qcow2", "--output=json", image))
    return {(entry["start"] // MIB, (entry["start"] + entry["length"]) // MIB):
            (entry["depth"], entry["zero"], "offset" in entry) for entry in found}


def zero_at(link, start, may_unmap, length=2 * MIB):
    link.zero(length, start, 0 if may_unmap else nbd.CMD_FLAG_NO_HOLE)


def test_iotest_179_zeroes_and_space(build, tmp_path):
    """Where nothing was, nothing is taken; where data was, the request says whether it goes."""
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    with connected(build, tmp_path, image) as link:
        for start in (2, 6):
            zero_at(link, start * MIB, start == 2)
        for start in (10, 14):  # a sector off at both ends
            zero_at(link, start * MIB + 512, start == 10, 2 * MIB - KIB)
        assert data_runs(link, 64 * MIB) == []
        link.pwrite(b"\xcd" * 14 * MIB, 18 * MIB)
        zero_at(link, 20 * MIB, True)
        for start in (24, 26, 28):
            zero_at(link, start * MIB, False)
        zero_at(link, 26 * MIB, True)
        zero_at(link, 28 * MIB, False)
        for start in (32, 34, 36, 38):
            zero_at(link, start * MIB, start == 34)
        assert data_runs(link, 64 * MIB) == [(18 * MIB, 2 * MIB), (22 * MIB, 2 * MIB),
                                             (30 * MIB, 2 * MIB)]
    check(image)
    entries = entries_of(image)
    data, kept, gone = (0, False, True), (0, True, True), (0, True, False)
    assert [entries[place] for place in ((18, 20), (20, 22), (22, 24), (24, 26), (26, 28), (28, 30),
                                         (30, 32))] == [data, gone, data, kept, gone, kept, data]
    for start, byte in ((18, 0xcd), (20, 0), (22, 0xcd), (24, 0), (26, 0), (28, 0), (30, 0xcd)):
        assert read_by_qemu(image, start * MIB, 2 * MIB, tmp_path) == bytes([byte]) * 2 * MIB


@pytest.mark.parametrize("version", [2, 3])
def test_iotest_179_zeroes_over_a_layer(version, build, tmp_path):
    """Zeros hide what is below, whatever kind of cluster it is."""
    base = created(tmp_path / "base.qcow2", 64 * MIB)
    qemu_io(base, "write -q -z 40M 8M", "write -q -P 0xcd 48M 8M")
    options = f"compat={'0.10' if version == 2 else '1.1'}"
    image = created(tmp_path / "image.qcow2", 64 * MIB, options, base)
    before, hidden = state_of([base]), [(50 * MIB, 2 * MIB), (52 * MIB, 2 * MIB)]
    with connected(build, tmp_path, image) as link:
        for start in (42, 44, 50, 52, 58, 60):
            zero_at(link, start * MIB, start % 8 == 2)
        link.flush()
        shown = [(48 * MIB, 2 * MIB), (54 * MIB, 2 * MIB)]
        # Version 2 has no mark, so that zeros are data.
        assert data_runs(link, 64 * MIB) == (shown if version == 3 else [(48 * MIB, 8 * MIB)])
        assert link.pread(16 * MIB, 44 * MIB) == \
            bytes(4 * MIB) + b"\xcd" * 2 * MIB + bytes(4 * MIB) + b"\xcd" * 2 * MIB + bytes(4 * MIB)
    check(image)
    for start, length in hidden:
        assert read_by_qemu(image, start, length, tmp_path) == bytes(length)
    assert state_of([base]) == before


def test_iotest_179_zeroes_again(build, tmp_path):
    """What reads as zeros, and keeps what it is to keep, costs no write."""
    image, log = created(tmp_path / "image.qcow2", 64 * MIB), tmp_path / "log"
    qemu_io(image, "write -q 18M 14M", "write -q -z -u 20M 2M", "write -q -z 28M 2M")
    before = image.read_bytes()
    with connected(build, tmp_path, image, record=log) as link:
        for start, may_unmap in ((20, True), (20, False), (28, False), (40, True), (44, False)):
            zero_at(link, start * MIB, may_unmap)
        link.flush()
    assert [call.kind for call in recorded(log) if call.kind in (WRITE, FLUSH)] in ([], [FLUSH])
    assert image.read_bytes() == before


# ---- 305: a request of which a part cannot be allocated --------------------------------------


def test_iotest_305_second_refcount_block_bad(build, tmp_path, capfd):
    """The first cluster's count can be had, the second one's block lies nowhere: an error, and
    nothing that was there is harmed."""
    image = created(tmp_path / "image.qcow2", MIB, "refcount_bits=64,cluster_size=1k")
    qemu_io(image, "write -q -P 5 0 124k", "discard -q 121k 1k", "discard -q 123k 1k")
    place = int.from_bytes(image.read_bytes()[48:56], "big") + 14
    good = image.read_bytes()[place:place + 1]
    poke(image, place, b"\6")
    model = bytearray(b"\5" * 124 * KIB)
    model[121 * KIB:122 * KIB] = model[123 * KIB:] = bytes(KIB)
    with connected(build, tmp_path, image) as link:
        assert_fails(lambda: link.pwrite(b"\xcd" * 3 * KIB, 121 * KIB), errno.EIO)
        content = link.pread(124 * KIB, 0)
        assert content[:121 * KIB] == model[:121 * KIB]
        assert content[122 * KIB:123 * KIB] in (b"\5" * KIB, b"\xcd" * KIB)
        assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
    assert "error: bad refcount block at" in capfd.readouterr().err
    poke(image, place, good)
    found = subprocess.run(["qemu-img", "check", "-q", image], check=False, timeout=20)
    assert found.returncode in (0, 3)
    assert read_by_qemu(image, 0, 121 * KIB, tmp_path) == model[:121 * KIB]
    for start in (121, 122, 123):
        assert read_by_qemu(image, start * KIB, KIB, tmp_path) in \
            (model[start * KIB:(start + 1) * KIB], b"\xcd" * KIB)


# ---- 313: giving back more counts than the cache holds ---------------------------------------


@pytest.mark.parametrize("what", ["zero", "trim"])
def test_iotest_313_more_refcount_blocks_than_cached(what, build, tmp_path):
    """Every entry of many tables changes, every count falls, all in one request; then again up."""
    clusters = (512 - 2) * 4 + 1 - 3
    size = clusters * 4 * KIB
    image = created(tmp_path / "image.qcow2", size, "cluster_size=4k,refcount_bits=64")
    qemu_io(image, f"write -q -P 1 0 {size}")
    with connected(build, tmp_path, image, "pool_kib=64") as link:
        if what == "zero":
            link.zero(size, 0)
        else:
            link.trim(size, 0)
        link.flush()
        assert link.pread(size, 0) == bytes(size)
    check(image)
    assert read_by_qemu(image, 0, size, tmp_path) == bytes(size)
    with connected(build, tmp_path, image, "pool_kib=64") as link:
        link.pwrite(b"\2" * size, 0)
    check(image)
    assert read_by_qemu(image, 0, size, tmp_path) == b"\2" * size
