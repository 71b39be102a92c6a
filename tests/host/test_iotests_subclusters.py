# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU's own regression tests of data files and of extended L2 entries guard against.

As test_iotests.py, for the numbers 244 and 271. Of the states that 271 goes through, the bits of
every entry are compared, too: what they say of subclusters that nobody wrote may differ from QEMU's
only where the test says so.
"""

import errno
import json

import nbd
import pytest

from images.recipe import KIB, MIB
from serve import client
from test_iotests import data_runs, send, wait_for
from tools import assert_fails, check, connected, created, marked, poke, qemu_io, read_by_qemu

CLUSTER, SUB = 64 * KIB, 2 * KIB
COPIED, COMPRESSED = 1 << 63, 1 << 62

# ---- 271: states of an entry -----------------------------------------------------------------


def entry_of(image, cluster):
    """(its first word, allocated subclusters, zero subclusters)"""
    content, l2_off = image.read_bytes(), l2_of(image)
    if l2_off == 0:
        return 0, set(), set()
    word, bits = (int.from_bytes(content[l2_off + 16 * cluster + at:][:8], "big") for at in (0, 8))
    return (word, *({sub for sub in range(32) if bits >> (start + sub) & 1} for start in (0, 32)))


def l2_of(image):
    """Where the only L2 table lies, or 0."""
    content = image.read_bytes()
    l1_off = int.from_bytes(content[40:48], "big")
    return int.from_bytes(content[l1_off:l1_off + 8], "big") & ~COPIED


def set_entry(image, cluster, at, data):
    poke(image, l2_of(image) + 16 * cluster + at, data)


def subs(text):
    """"0-3 7" as a set."""
    found = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


class Subject:
    """An image, what it must hold, and the requests, of which each is one session."""

    def __init__(self, build, folder, size, is_over):
        self.build, self.folder, self.byte = build, folder, 0
        self.model = bytearray((b"\xff" if is_over else b"\0") * size)
        self.image = folder / "image.qcow2"
        below = []
        if is_over:
            (folder / "base.raw").write_bytes(self.model)
            below = ["-b", "base.raw", "-F", "raw"]
        client("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", *below,
               self.image, size)

    def run(self, kind, guest_off, length):
        self.byte += 1
        data = bytes([self.byte % 254 + 1]) * length
        if kind == "compress":
            qemu_io(self.image, f"write -q -c -P {data[0]} {guest_off} {length}")
        else:
            with connected(self.build, self.folder, self.image) as link:
                if kind == "write":
                    link.pwrite(data, guest_off)
                elif kind == "discard":
                    link.trim(length, guest_off)
                else:
                    link.zero(length, guest_off, nbd.CMD_FLAG_NO_HOLE if kind == "zero" else 0)
                if kind not in ("write", "compress"):
                    data = bytes(length)
        self.model[guest_off:guest_off + length] = data

    def assert_entry(self, cluster, allocated, zero):
        """zero None: it does not matter, because holes and what is behind the disk are zeros."""
        _word, *found = entry_of(self.image, cluster)
        wanted = [subs(allocated), found[1] if zero is None else subs(zero)]
        assert found == wanted, f"cluster {cluster}"

    def assert_whole(self):
        check(self.image)
        assert read_by_qemu(self.image, 0, len(self.model), self.folder) == self.model


# (request, subcluster, offset in it, length, allocated, zero), all in the first cluster.
WRITES_271 = [
    ("write", 0, 0, KIB, "0", ""),
    ("write", 1, KIB, 512, "0-1", ""),
    ("write", 2, KIB, KIB, "0-2", ""),
    ("write", 3, 0, 2 * KIB, "0-3", ""),
    ("write", 4, 0, 6 * KIB, "0-6", ""),
    ("write", 7, KIB, 4 * KIB, "0-9", ""),
    ("write", 16, 0, KIB, "0-9 16", ""),
    ("write", 31, KIB, 4 * KIB, "0-9 16 31", ""),
    ("zero", 1, 0, 2 * KIB, "0 2-9 16 31", "1"),
    ("zero", 0, 0, 64 * KIB, "", "0-31"),
    ("write", 0, 0, 64 * KIB, "0-31", ""),
    ("unmap", 0, 0, 32 * KIB, "16-31", "0-15"),
    ("unmap", 0, 0, 64 * KIB, "", "0-31"),
    ("write", 1, KIB, 512, "1", "0 2-31"),
    ("write", 0, 0, 64 * KIB, "0-31", ""),
    ("discard", 0, 0, 64 * KIB, "", "0-31"),
    ("compress", 0, 0, 64 * KIB, "", ""),
    ("write", 1, KIB, 512, "0-31", ""),
]


@pytest.mark.parametrize("is_over", [False, True])
def test_iotest_271_writes(is_over, build, tmp_path):
    subject = Subject(build, tmp_path, MIB, is_over)
    for kind, sub, start, length, allocated, zero in WRITES_271:
        subject.run(kind, sub * SUB + start, length)
        subject.assert_entry(0, allocated, None if kind == "discard" and not is_over else zero)
        subject.assert_whole()
        if sub == 31:
            subject.assert_entry(1, "0-1", "")


def test_iotest_271_overwriting_several_clusters(build, tmp_path):
    """Of four clusters only the two in the middle need other entries."""
    subject = Subject(build, tmp_path, MIB, False)
    for kind, cluster, sub, length in (("write", 0, 12, 40 * KIB), ("write", 1, 13, SUB),
                                       ("write", 2, 14, SUB), ("zero", 2, 14, SUB),
                                       ("write", 3, 0, 34 * KIB)):
        subject.run(kind, cluster * CLUSTER + sub * SUB, length)
    subject.run("write", 12 * SUB, 192 * KIB)
    for cluster, allocated in enumerate(("12-31", "0-31", "0-31", "0-16")):
        subject.assert_entry(cluster, allocated, "")
    subject.assert_whole()


# {name: (request, cluster, subcluster, offset in it, length, [(allocated, zero) over a layer],
#         the same without one)}; the first cluster's entry comes first.
ALL, NONE = ("", "0-31"), ("", None)
ZEROS_271 = {
    "clusters": (0, 0, 0, 192, [ALL] * 3, [NONE] * 3),
    "subclusters": (3, 16, 0, 128, [("", "16-31"), ALL, ("", "0-15")], [NONE] * 3),
    "odd": (6, 15, 1, 128, [("15", "16-31"), ALL, ("15", "0-14")], [NONE] * 3),
    "middle": (30, 15, 1, 8, [("15 19", "16-18")], [NONE]),
    "last": (32, 0, 0, 35, [NONE], [NONE]),
    "data-clusters": (9, 0, 0, 192, [ALL] * 3, [ALL] * 3),
    "data-subclusters": (12, 16, 0, 128, [("0-15", "16-31"), ALL, ("16-31", "0-15")], None),
    "data-odd": (15, 15, 1, 128, [("0-15", "16-31"), ALL, ("15-31", "0-14")], None),
    "packed-clusters": (18, 0, 0, 192, [ALL] * 3, None),
    "packed-subclusters": (21, 16, 0, 128, [("0-31", ""), ALL, ("0-31", "")], None),
    "packed-odd": (24, 15, 1, 129, [("0-31", ""), ALL, ("0-31", "")], None),
}
ODD_BYTES_271 = 2083 * KIB


@pytest.mark.parametrize("kind", ["zero", "unmap"])
@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("name", ZEROS_271)
def test_iotest_271_zeroes(name, is_over, kind, build, tmp_path):
    """The guest disk's size is no multiple of a cluster, nor of a subcluster."""
    cluster, sub, start, length, over, alone = ZEROS_271[name]
    subject = Subject(build, tmp_path, ODD_BYTES_271, is_over)
    if name.startswith("data"):
        subject.run("write", cluster * CLUSTER, 192 * KIB)
    if name.startswith("packed"):
        for number in range(3):
            subject.run("compress", (cluster + number) * CLUSTER, CLUSTER)
    subject.run(kind, cluster * CLUSTER + sub * SUB + start * KIB, length * KIB)
    subject.assert_whole()
    for number, wanted in enumerate(over if is_over or not alone else alone):
        subject.assert_entry(cluster + number, *wanted)


@pytest.mark.parametrize("is_over", [False, True])
def test_iotest_271_discards(is_over, build, tmp_path):
    """Also of a cluster of which a half is marked and the other one is not."""
    subject = Subject(build, tmp_path, MIB, is_over)
    subject.run("write", 0, 2 * CLUSTER)
    subject.run("discard", 0, 2 * CLUSTER)
    for cluster in range(2):
        subject.assert_entry(cluster, "", "0-31" if is_over else None)
    subject.assert_whole()
    set_entry(subject.image, 0, 0, bytes(8) + bytes.fromhex("0000ffff00000000"))
    subject.run("discard", 0, CLUSTER)
    subject.assert_entry(0, "", "0-31" if is_over else None)
    subject.assert_whole()


# {name: (what the disk gets first, the cluster that is damaged, where in its entry, by what)}
DAMAGES_271 = {
    "zero-flag": ((0, SUB), 0, 7, b"\1"),
    "zero-flag-hole": ((4 * CLUSTER, KIB), 0, 7, b"\1"),
    "both-bits": ((CLUSTER // 2, 2 * CLUSTER), 1, 8, bytes.fromhex("00000001")),
    "both-bits-hole": ((4 * CLUSTER, KIB), 1, 8, bytes.fromhex("0000000100000001")),
    "allocated-hole": ((4 * CLUSTER, KIB), 0, 15, b"\1"),
    "unaligned": ((0, SUB), 0, 6, b"\2"),
}


@pytest.mark.parametrize("name", DAMAGES_271)
def test_iotest_271_damage(name, build, tmp_path):
    """
    The flag of plain entries, which QEMU ignores here, is one of those that are always 0. All else
    is marked, and the image is read-only from then on.
    """
    (start, length), cluster, at, data = DAMAGES_271[name]
    subject = Subject(build, tmp_path, MIB, False)
    subject.run("write", start, length)
    set_entry(subject.image, cluster, at, data)
    is_marked = not name.startswith("zero-flag")
    before = subject.image.read_bytes()
    with connected(build, tmp_path, subject.image) as link:
        assert_fails(lambda: link.pread(CLUSTER, cluster * CLUSTER), errno.EIO)
        assert_fails(lambda: link.pwrite(b"a" * 512, cluster * CLUSTER), errno.EPERM)
    with connected(build, tmp_path, subject.image) as link:
        assert_fails(lambda: link.pwrite(b"a" * 512, cluster * CLUSTER),
                     errno.EPERM if is_marked else errno.EIO)
    assert subject.image.read_bytes()[:len(before)] == (marked(before) if is_marked else before)


def test_iotest_271_bits_of_compressed_cluster(build, tmp_path):
    """They mean nothing; who writes there makes new ones."""
    subject = Subject(build, tmp_path, MIB, False)
    subject.run("compress", 0, CLUSTER)
    set_entry(subject.image, 0, 11, b"\1\x80")
    with connected(build, tmp_path, subject.image) as link:
        assert link.pread(MIB, 0) == subject.model
    subject.run("write", 0, CLUSTER)
    subject.assert_entry(0, "0-31", "")
    subject.assert_whole()


# Of each cluster subcluster 7 is zero, 13 and 18 are data. A request behind the snapshot, in KiB,
# and what the entry then says. QEMU marks what is a hole and becomes zeros in part, too.
COPIES_271 = [
    ("write", 30, 1, "13-18", "7"), ("write", 20, 1, "10-18", "7"), ("write", 40, 1, "13-20", "7"),
    ("write", 26, 1, "13-18", "7"), ("write", 14, 1, "7-18", ""), ("write", 1, 1, "0-18", ""),
    ("zero", 30, 3, "13 18", "7 15"), ("zero", 26, 2, "18", "7 13"), ("zero", 26, 1, "13-18", "7"),
    ("zero", 12, 1, "13 18", "7"),
]


def test_iotest_271_copy_on_write(build, tmp_path):
    """What is copied, and what is marked, changes nothing that a guest sees."""
    subject = Subject(build, tmp_path, MIB, False)
    commands = []
    for number in range(len(COPIES_271)):
        for what, start in (("-z", 14), (f"-P {0xd0 + number}", 26), (f"-P {0xe0 + number}", 36)):
            place = number * CLUSTER + start * KIB
            commands.append(f"write -q {what} {place} {SUB}")
            byte = int(what.split()[1]) if " " in what else 0
            subject.model[place:place + SUB] = bytes([byte]) * SUB
    qemu_io(subject.image, *commands)
    client("qemu-img", "snapshot", "-c", "snap1", subject.image)
    then = bytes(subject.model)
    for number, (kind, start, length, allocated, zero) in enumerate(COPIES_271):
        subject.run(kind, number * CLUSTER + start * KIB, length * KIB)
        subject.assert_entry(number, allocated, zero)
    subject.assert_whole()
    with connected(build, tmp_path, subject.image, "snapshot=snap1") as link:
        assert link.pread(MIB, 0) == then


def test_iotest_271_requests_at_the_same_time(build, tmp_path):
    """Three subclusters of one cluster, and of two of which one is compressed."""
    subject = Subject(build, tmp_path, MIB, False)
    subject.run("compress", CLUSTER, CLUSTER)
    places = [(0, 1, 30 * KIB), (1, 2, 20 * KIB), (2, 3, 40 * KIB), (3, 4, CLUSTER - SUB),
              (4, 5, CLUSTER + 30 * KIB), (5, 6, CLUSTER + 4 * KIB)]
    with connected(build, tmp_path, subject.image) as link:
        wait_for(link, [send(link, byte, start, SUB) for _n, byte, start in places])
    for _n, byte, start in places:
        subject.model[start:start + SUB] = bytes([byte]) * SUB
    subject.assert_entry(0, "10 15 20 31", "")
    subject.assert_entry(1, "0-31", "")
    subject.assert_whole()


# ---- 244: data files -------------------------------------------------------------------------


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """QEMU looks for a data file in the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("is_raw", [False, True])
def test_iotest_244_states(is_raw, build, tmp_path, in_folder):
    """Written, discarded, zeroed: what the export shows, and what the data file then holds."""
    size = 64 * MIB
    image = created(tmp_path / "image.qcow2", size,
                    "data_file=image.data" + ",data_file_raw=on" * is_raw)
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\x11" * 4 * MIB, MIB)
        link.trim(2 * MIB, 2 * MIB)
        link.zero(3 * MIB, 3 * MIB)
        # A raw data file has no discards: they are declined.
        third = b"\x11" * MIB if is_raw else bytes(MIB)
        content = bytes(MIB) + b"\x11" * MIB + third + bytes(4 * MIB)
        assert link.pread(7 * MIB, 0) == content
        link.flush()
        # There every cluster is mapped, zeros included.
        assert data_runs(link, size) == ([(0, size)] if is_raw else [(MIB, MIB)])
    check(image)
    assert read_by_qemu(image, 0, 7 * MIB, tmp_path) == content
    data = (tmp_path / "image.data").read_bytes()
    assert len(data) == size
    if is_raw:
        assert data[:7 * MIB] == content
    else:
        assert data[MIB:2 * MIB] == b"\x11" * MIB and not any(data[:MIB])


def test_iotest_244_first_cluster(build, tmp_path, in_folder):
    """Its place in the data file is 0, which elsewhere means that there is none."""
    image = created(tmp_path / "image.qcow2", 64 * MIB, "data_file=image.data")
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\x11" * MIB, 0)
        link.flush()
        assert data_runs(link, 64 * MIB) == [(0, MIB)]
    entry = json.loads(client("qemu-img", "map", "--output=json", image))[0]
    assert (entry["start"], entry["length"], entry["data"], entry["offset"]) == (0, MIB, True, 0)
    with connected(build, tmp_path, image) as link:
        assert link.pread(MIB, 0) == b"\x11" * MIB
        link.trim(CLUSTER, 0)
        assert data_runs(link, 64 * MIB) == [(CLUSTER, MIB - CLUSTER)]
        link.pwrite(b"\x12" * 512, 512)
        assert link.pread(CLUSTER, 0) == bytes(512) + b"\x12" * 512 + bytes(CLUSTER - KIB)
    check(image)


def test_iotest_244_data_that_was_there(build, tmp_path, in_folder):
    """With all clusters mapped the image shows what its raw data file holds, also where both grew
    behind its back."""
    data = tmp_path / "image.data"
    image = created(tmp_path / "image.qcow2", MIB,
                    "data_file=image.data,data_file_raw=on,preallocation=metadata")
    data.write_bytes(b"\x2a" * MIB)
    with connected(build, tmp_path, image) as link:
        assert link.pread(MIB, 0) == b"\x2a" * MIB
        link.pwrite(b"\x2b" * 512, KIB)
    assert data.read_bytes() == b"\x2a" * KIB + b"\x2b" * 512 + b"\x2a" * (MIB - KIB - 512)
    data.write_bytes(b"\x2a" * MIB + b"\x54" * MIB)
    client("qemu-img", "resize", "-q", "-f", "qcow2", image, 2 * MIB)
    with connected(build, tmp_path, image) as link:
        assert link.pread(2 * MIB, 0) == read_by_qemu(image, 0, 2 * MIB, tmp_path)
    check(image)


@pytest.mark.parametrize("damage", ["elsewhere", "compressed"])
def test_iotest_244_entries_that_cannot_be(damage, build, tmp_path, in_folder):
    """A place other than the guest's own, and a compressed cluster."""
    image = created(tmp_path / "image.qcow2", MIB, "data_file=image.data")
    qemu_io(image, "write -q -P 1 0 128k")
    entry = {"elsewhere": COPIED | 3 * CLUSTER, "compressed": COMPRESSED | CLUSTER}[damage]
    poke(image, l2_of(image) + 8, entry.to_bytes(8, "big"))
    before = marked(image.read_bytes()), (tmp_path / "image.data").read_bytes()
    with connected(build, tmp_path, image) as link:
        assert link.pread(CLUSTER, 0) == b"\1" * CLUSTER
        assert_fails(lambda: link.pread(512, CLUSTER), errno.EIO)
        assert_fails(lambda: link.pwrite(b"a" * 512, 0), errno.EPERM)
    assert (image.read_bytes(), (tmp_path / "image.data").read_bytes()) == before
