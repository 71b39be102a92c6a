# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What reading and changing compressed clusters costs, and what damaged ones do.

Damage fails the requests that need the damaged cluster, with one line that says which, and no
others; the file is not touched. That every legal image reads and takes writes right is tested in
test_matrix.py and test_writes.py.
"""

import errno
import json
import random
from dataclasses import dataclass

import pytest

from images.recipe import KIB, MIB, Cell, size_name
from mix import SEED
from serve import READ, client, recorded
from tools import assert_fails, check, connected, copy_of, marked, poke, read_by_qemu

CLUSTER, SIZE = 64 * KIB, 8 * MIB
OFFSET_BITS = 54  # of a descriptor's offset, at 64 KiB
COMPRESSED, COPIED = 1 << 62, 1 << 63
HEADER_READS_MAX = 64
SLICES_MAX = 8
COMPRESSIONS = ("zlib", "zstd")


def image_of(compression, cluster_bytes, size, *steps):
    option = "" if compression == "zlib" else f",compression_type={compression}"
    name = f"{steps[0][0]}-{compression}-{size_name(cluster_bytes)}"
    return Cell(name, "compressed", 3, cluster_bytes, size, steps, option)


def converted(compression):
    return image_of(compression, CLUSTER, SIZE, ("convert", CLUSTER))


def all_packed(compression, cluster_bytes, size):
    """Every cluster compressed, in order."""
    runs = ((start, cluster_bytes) for start in range(0, size, cluster_bytes))
    return image_of(compression, cluster_bytes, size, ("pack", *runs))


@dataclass
class Entry:
    """A compressed cluster: where its descriptor stands, and what it says."""

    guest_off: int
    place: int
    host_off: int
    sectors: int  # behind the first one

    def value(self, host_off=None, sectors=None):
        host_off = self.host_off if host_off is None else host_off
        sectors = self.sectors if sectors is None else sectors
        return (COMPRESSED | sectors << OFFSET_BITS | host_off).to_bytes(8, "big")


def entries_of(image):
    """The compressed clusters that the first L2 table of an image with 64 KiB clusters maps."""
    content = image.read_bytes()
    l1_off = int.from_bytes(content[40:48], "big")
    l2_off = int.from_bytes(content[l1_off:l1_off + 8], "big") & ~(COPIED | 511)
    found = []
    for number in range(CLUSTER // 8):
        place = l2_off + 8 * number
        value = int.from_bytes(content[place:place + 8], "big")
        if value & COMPRESSED:
            found.append(Entry(number * CLUSTER, place, value & (1 << OFFSET_BITS) - 1,
                               (value & COMPRESSED - 1) >> OFFSET_BITS))
    return found


# ---- what it costs ---------------------------------------------------------------------------


def data_reads(log):
    return [call for call in recorded(log) if call.kind == READ]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("cluster_bytes, size", [(4 * KIB, 2 * MIB), (CLUSTER, SIZE),
                                                 (2 * MIB, 16 * MIB)])
def test_sequential_reads(cluster_bytes, size, compression, build, cache, tmp_path):
    """In 4 KiB steps every cluster is unpacked once, and far fewer reads than clusters are made."""
    image = copy_of(all_packed(compression, cluster_bytes, size), cache, tmp_path)
    log = tmp_path / "log"
    with connected(build, tmp_path, image, "readonly=true", record=log) as link:
        opening = len(data_reads(log))
        for guest_off in range(0, size, 4 * KIB):
            link.pread(4 * KIB, guest_off)
    calls = data_reads(log)[opening:]
    packed_bytes, read_bytes = image.stat().st_size, sum(call.length for call in calls)
    print(f"{len(calls)} reads of {read_bytes} bytes for {size // cluster_bytes} clusters in "
          f"{packed_bytes} bytes")
    assert opening <= HEADER_READS_MAX
    # Of each table a slice, then large transfers, which start over where the host order jumps.
    assert len(calls) <= SLICES_MAX + 4 * max(1, size // MIB)
    assert read_bytes <= packed_bytes + packed_bytes // 2 + MIB


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_random_reads_read_little(compression, build, cache, tmp_path):
    """A cluster that is read alone is read alone: nothing ahead of it, and no larger piece."""
    image = copy_of(converted(compression), cache, tmp_path)
    entries, log = entries_of(image), tmp_path / "log"
    random.Random(SEED).shuffle(entries)
    # Not the one that lies behind the one before: that would be a sequence.
    places = [entry for before, entry in zip(entries, entries[1:])
              if not 0 <= entry.host_off - before.host_off <= 2 * CLUSTER]
    assert len(places) >= 32
    with connected(build, tmp_path, image, "readonly=true", record=log) as link:
        link.pread(512, places[0].guest_off)
        opening = len(data_reads(log))
        for entry in places[1:]:
            link.pread(512, entry.guest_off + 512)
    calls = data_reads(log)[opening:]
    print(f"{len(calls)} reads of {sum(call.length for call in calls)} bytes, {len(places)} places")
    assert len(calls) <= len(places)
    assert all(call.length <= CLUSTER + 8 * KIB for call in calls)


def test_space_of_overwritten_clusters_comes_back(build, cache, tmp_path):
    """A host cluster that several share is free when the last of them is written over."""
    image = copy_of(converted("zlib"), cache, tmp_path)
    with connected(build, tmp_path, image) as link:
        for _turn in range(3):
            link.pwrite(random.Random(SEED).randbytes(SIZE), 0)
            link.flush()
    found = json.loads(client("qemu-img", "check", "--output=json", image))
    assert found.get("compressed-clusters", 0) == 0
    assert found["allocated-clusters"] == SIZE // CLUSTER
    assert read_by_qemu(image, 0, SIZE, tmp_path) == random.Random(SEED).randbytes(SIZE)
    with connected(build, tmp_path, image) as link:
        link.trim(SIZE, 0)
    assert image.stat().st_blocks * 512 < MIB
    check(image)


# ---- damage ----------------------------------------------------------------------------------


def flip(image, entry):
    """Every byte of the stream behind its first, which may start in the middle of a sector."""
    end = entry.host_off // 512 * 512 + 512
    content = image.read_bytes()[entry.host_off:end]
    poke(image, entry.host_off, bytes(byte ^ 0xff for byte in content))


def past_the_end(image, entry):
    poke(image, entry.place, entry.value(host_off=1 << 40))


def at_the_header(image, entry):
    poke(image, entry.place, entry.value(host_off=0, sectors=0))


def too_short(image, entry):
    poke(image, entry.place, entry.value(sectors=entry.sectors // 2))


def someone_else(image, entry):
    """The refcount table, as bytes of a stream."""
    poke(image, entry.place, entry.value(host_off=CLUSTER, sectors=1))


DAMAGES = {"flipped": flip, "past-the-end": past_the_end, "at-the-header": at_the_header,
           "too-short": too_short, "someone-else": someone_else}
LINE = "error: bad compressed cluster at guest {:#x}\n"


def damaged(name, compression, cache, folder):
    """The image, one of its compressed clusters, which is damaged, and what was there before."""
    image = copy_of(converted(compression), cache, folder)
    whole, entry = read_by_qemu(image, 0, SIZE, folder), entries_of(image)[7]
    DAMAGES[name](image, entry)
    return image, entry, whole


LEADS_NOWHERE = ("past-the-end", "at-the-header")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_cluster(name, compression, build, cache, tmp_path, capfd):
    """
    Its bytes are lost, as they are to QEMU; reading and writing around it go on. Only an entry that
    leads nowhere is damage to the image, which then takes no writes.
    """
    image, entry, whole = damaged(name, compression, cache, tmp_path)
    end = entry.guest_off + CLUSTER
    with connected(build, tmp_path, image) as link:
        for guest_off in (entry.guest_off, entry.guest_off + 4 * KIB, end - 512):
            assert_fails(lambda start=guest_off: link.pread(512, start), errno.EIO)
        assert_fails(lambda: link.pread(SIZE, 0), errno.EIO)
        assert link.pread(entry.guest_off, 0) == whole[:entry.guest_off]
        assert link.pread(SIZE - end, end) == whole[end:]
        if name in LEADS_NOWHERE:
            assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
        else:
            link.pwrite(b"a" * 512, 0)
            link.flush()
            assert link.pread(entry.guest_off, 0) == b"a" * 512 + whole[512:entry.guest_off]
            assert_fails(lambda: link.pread(512, entry.guest_off), errno.EIO)
    assert LINE.format(entry.guest_off) in capfd.readouterr().err


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_cluster_is_not_half_replaced(name, compression, build, cache, tmp_path, capfd):
    """Part of it cannot be kept, so part of it cannot be written."""
    image, entry, whole = damaged(name, compression, cache, tmp_path)
    before = image.read_bytes() if name != "someone-else" else marked(image.read_bytes())
    with connected(build, tmp_path, image) as link:
        assert_fails(lambda: link.pwrite(b"a" * 512, entry.guest_off), errno.EIO)
        # An entry that names a table is damage to the image, which then takes no writes at all.
        if name == "someone-else":
            assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
        assert link.pread(entry.guest_off, 0) == whole[:entry.guest_off]
    line = "error: cluster 0x10000 is metadata\n" if name == "someone-else" else LINE
    assert line.format(entry.guest_off) in capfd.readouterr().err
    # The file was made to end with a whole cluster, and an entry to a table is marked; no more.
    assert image.read_bytes().rstrip(b"\0") == before.rstrip(b"\0")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_cluster_is_replaced(compression, build, cache, tmp_path):
    """What is written as a whole needs nothing of what was there."""
    image, entry, whole = damaged("flipped", compression, cache, tmp_path)
    whole = bytearray(whole)
    whole[entry.guest_off:entry.guest_off + CLUSTER] = b"new data" * (CLUSTER // 8)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"new data" * (CLUSTER // 8), entry.guest_off)
        assert link.pread(SIZE, 0) == whole
    check(image)
    assert read_by_qemu(image, 0, SIZE, tmp_path) == whole


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_file_cut_short(compression, build, cache, tmp_path):
    """A file that ends inside the last cluster's data: that one is lost, the others are not."""
    image = copy_of(converted(compression), cache, tmp_path)
    whole = read_by_qemu(image, 0, SIZE, tmp_path)
    entries = entries_of(image)
    last = max(entries, key=lambda entry: entry.host_off)
    with open(image, "r+b") as content:
        content.truncate(last.host_off + 20)
    with connected(build, tmp_path, image, "readonly=true") as link:
        assert_fails(lambda: link.pread(512, last.guest_off), errno.EIO)
        for entry in entries:
            if entry is not last:
                assert link.pread(CLUSTER, entry.guest_off) == \
                    whole[entry.guest_off:entry.guest_off + CLUSTER]
