# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Internal snapshots, made, applied and deleted by the engine and by QEMU in turn, on one image.

Promises: after every step `qemu-img check` finds nothing, leaks included, and QEMU reads the bytes
that were written from the disk and from every snapshot. Then single cases: lists, VM state, ids,
counts that cannot grow, tables with damage. QC_SEED=n chooses another seed.
"""

import json
import os
import random
import subprocess
import time
from dataclasses import dataclass, field

import pytest

from images.recipe import COMPAT, GIB, KIB, MIB, half_random, size_name
from serve import client
from tools import check, poke, qemu_io, state_of

SEED = int(os.environ.get("QC_SEED", "1"))
STEPS = 14
POOLS_KIB = (64, 96, 1280)
SECONDS_MAX = 60
GUEST_BYTES = {512: 96 * KIB, 4 * KIB: 512 * KIB, 64 * KIB: 2 * MIB, 2 * MIB: 8 * MIB}


def qc(build, image, *words, pool_kib=1280):
    """(exit status, what it said)"""
    run = subprocess.run([build / "host" / "qc-snapshot", image, str(pool_kib), *words],
                         timeout=SECONDS_MAX, text=True, errors="replace", stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, check=False)
    return run.returncode, run.stdout


def done(build, image, *words, **options):
    status, said = qc(build, image, *words, **options)
    assert status == 0, said
    return said


def refused(build, image, *words, saying):
    """An error, and not one byte of the image is another."""
    before = image.read_bytes()
    status, said = qc(build, image, *words)
    assert (status, saying in said) == (1, True), said
    # The file may be made to end with a cluster.
    assert image.read_bytes()[:len(before)] == before


def listed(build, image):
    """One list of fields for each snapshot."""
    return [line.split("\t") for line in done(build, image, "-l").splitlines()]


def created(path, size, cluster_bytes=64 * KIB, version=3, options=""):
    client("qemu-img", "create", "-q", "-f", "qcow2", "-o",
           f"compat={COMPAT[version]},cluster_size={cluster_bytes}{options}", path, size)
    return path


def content(image, snapshot=None):
    """All of the disk, or of a snapshot, as qemu-img reads it."""
    raw = image.with_suffix(".raw")
    which = ["-l", snapshot] if snapshot else []
    client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", *which, image, raw)
    found = raw.read_bytes()
    raw.unlink()
    return found


# ---- a mix -----------------------------------------------------------------------------------


@dataclass
class Model:
    """An image, and what its disk and its snapshots hold."""

    build: object
    image: object
    cluster_bytes: int
    version: int
    is_packing: bool
    dice: random.Random
    disk: bytearray
    snapshots: dict = field(default_factory=dict)
    names: int = 0

    def step(self):
        kinds = [self.write, self.zero, self.create, self.apply, self.delete, self.grow]
        self.dice.choices(kinds, (5, 2, 4, 2, 3, 1))[0]()

    def place(self):
        unit = self.dice.choice((512, self.cluster_bytes, self.cluster_bytes))
        start = self.dice.randrange(len(self.disk) // unit) * unit
        count_max = max(1, min(9, MIB // unit))
        return start, min(self.dice.randint(1, count_max) * unit, len(self.disk) - start)

    def write(self):
        """By QEMU, whole clusters often compressed."""
        for _ in range(4):
            start, length = self.place()
            data = half_random(self.dice, length)
            source = self.image.with_suffix(".data")
            source.write_bytes(data)
            if self.is_packing and start % self.cluster_bytes == length % self.cluster_bytes == 0:
                # QEMU does not pack into a cluster that is there.
                qemu_io(self.image, f"discard -q {start} {length}",
                        f"write -q -c -s {source} {start} {length}")
            else:
                qemu_io(self.image, f"write -q -s {source} {start} {length}")
            self.disk[start:start + length] = data

    def zero(self):
        start, length = self.place()
        qemu_io(self.image, f"write -q {self.dice.choice(('-z', '-z -u'))} {start} {length}")
        self.disk[start:start + length] = bytes(length)

    def grow(self):
        if self.version == 3:
            more = self.dice.randint(1, 3) * self.cluster_bytes
            client("qemu-img", "resize", "-q", "-f", "qcow2", self.image, f"+{more}")
            self.disk += bytes(more)

    def change(self, *words):
        """By the engine, or now and then by QEMU."""
        if self.dice.random() < 0.25:
            client("qemu-img", "snapshot", *words, self.image)
        else:
            done(self.build, self.image, *words, pool_kib=self.dice.choice(POOLS_KIB))
        check(self.image)

    def create(self):
        self.names += 1
        name = f"s{self.names}" * self.dice.randint(1, 40)
        self.change("-c", name)
        self.snapshots[name] = bytes(self.disk)

    def apply(self):
        if self.snapshots:
            name = self.dice.choice(list(self.snapshots))
            self.change("-a", name)
            self.disk = bytearray(self.snapshots[name])

    def delete(self):
        if self.snapshots:
            name = self.dice.choice(list(self.snapshots))
            self.change("-d", name)
            del self.snapshots[name]

    def compare(self):
        assert content(self.image) == self.disk
        for name, wanted in self.snapshots.items():
            # QEMU shows a snapshot on a disk of today's size.
            found = content(self.image, name)
            assert found[:len(wanted)] == wanted[:len(found)], name
        assert [fields[1] for fields in listed(self.build, self.image)] == list(self.snapshots)


# Version, bytes of a cluster, whether whole clusters are packed, options.
SHAPES = [(2, 512, False, ""), (2, 64 * KIB, True, ""), (2, 2 * MIB, False, ""),
          (3, 512, True, ",refcount_bits=64"), (3, 512, False, ",refcount_bits=4"),
          (3, 4 * KIB, False, ",refcount_bits=16"), (3, 4 * KIB, True, ",refcount_bits=8"),
          (3, 64 * KIB, False, ",refcount_bits=64"), (3, 64 * KIB, False, ",refcount_bits=4"),
          (3, 64 * KIB, True, ",refcount_bits=8,compression_type=zstd"),
          (3, 64 * KIB, True, ",extended_l2=on"), (3, 2 * MIB, True, "")]


def shape_name(shape):
    version, cluster_bytes, packing, options = shape
    return f"v{version}-{size_name(cluster_bytes)}{'-packed' if packing else ''}" + \
        options.replace(",", "-")


@pytest.mark.parametrize("shape", SHAPES, ids=shape_name)
def test_mix(shape, build, tmp_path):
    version, cluster_bytes, packing, options = shape
    size = GUEST_BYTES[cluster_bytes]
    image = created(tmp_path / "image.qcow2", size, cluster_bytes, version, options)
    dice = random.Random(f"{SEED} {shape}")
    model = Model(build, image, cluster_bytes, version, packing, dice, bytearray(size))
    model.write()
    for _ in range(STEPS):
        model.step()
    model.compare()


# ---- lists and entries -----------------------------------------------------------------------


def info(image):
    return json.loads(client("qemu-img", "info", "-f", "qcow2", "--output=json", image))


def test_list_is_qemus(build, tmp_path):
    """Every field of every snapshot, whoever made it."""
    image = created(tmp_path / "image.qcow2", MIB)
    client("qemu-img", "snapshot", "-c", "by QEMU", image)
    save_state(image, "with state")
    done(build, image, "-c", "by the engine")
    found = [[entry["id"], entry["name"], str(entry["vm-state-size"]), str(entry["date-sec"]),
              str(entry["date-nsec"])] for entry in info(image)["snapshots"]]
    assert [fields[:5] for fields in listed(build, image)] == found
    assert [fields[1] for fields in listed(build, image)] == ["by QEMU", "with state",
                                                              "by the engine"]
    assert int(found[1][2]) > 0


def test_new_id(build, tmp_path):
    """One more than the highest number that any id starts with."""
    image = created(tmp_path / "image.qcow2", MIB)
    for name in "abc":
        done(build, image, "-c", name)
    done(build, image, "-d", "b")
    done(build, image, "-c", "d")
    done(build, image, "-d", "1")
    assert [fields[:2] for fields in listed(build, image)] == [["3", "c"], ["4", "d"]]


def test_id_goes_before_name(build, tmp_path):
    image = created(tmp_path / "image.qcow2", MIB)
    done(build, image, "-c", "2")
    done(build, image, "-c", "other")
    done(build, image, "-d", "2")
    assert [fields[:2] for fields in listed(build, image)] == [["1", "2"]]
    check(image)


def test_no_such_snapshot(build, tmp_path):
    image = created(tmp_path / "image.qcow2", MIB)
    refused(build, image, "-a", "none", saying="no snapshot none")
    refused(build, image, "-d", "none", saying="no snapshot none")
    refused(build, image, "-c", "n" * 256, saying="snapshot name is too long")


def test_long_table(build, tmp_path):
    """A table of many clusters grows and shrinks; what it leaves is used again."""
    image = created(tmp_path / "image.qcow2", 96 * KIB, 512)
    names = [f"{number}-{'n' * 200}" for number in range(40)]
    for name in names:
        done(build, image, "-c", name)
    check(image)
    size = image.stat().st_size
    for name in names[:30]:
        done(build, image, "-d", name)
    for name in names[:30]:
        done(build, image, "-c", name)
    check(image)
    assert [fields[1] for fields in listed(build, image)] == names[30:] + names[:30]
    assert image.stat().st_size <= size * 1.1


# ---- VM state --------------------------------------------------------------------------------


def monitor(image, *commands):
    """A machine of nothing but the image; its monitor is told these, then it ends."""
    return subprocess.run(["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none",
                           "-S", "-drive", f"if=none,file={image},format=qcow2,id=disk",
                           "-monitor", "stdio"], input="\n".join((*commands, "quit", "")),
                          timeout=SECONDS_MAX, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=True).stdout


def save_state(image, name):
    assert "Error" not in monitor(image, f'savevm "{name}"')


@pytest.mark.parametrize("cluster_bytes", [512, 64 * KIB], ids=size_name)
def test_state_is_kept(cluster_bytes, build, tmp_path):
    """VM state lies behind the disk's end, in an L1 table longer than the disk needs. It outlives
    everything that is done to other snapshots, and QEMU loads it."""
    image = created(tmp_path / "image.qcow2", 96 * KIB, cluster_bytes)
    qemu_io(image, "write -q -P 1 0 96k")
    save_state(image, "state")
    qemu_io(image, "write -q -P 2 0 48k")
    done(build, image, "-c", "later")
    done(build, image, "-a", "state")
    check(image)
    done(build, image, "-c", "again")
    done(build, image, "-d", "later")
    done(build, image, "-a", "again")
    check(image)
    assert "Error" not in monitor(image, "loadvm state")
    assert content(image) == b"\1" * (96 * KIB)
    done(build, image, "-d", "state")
    done(build, image, "-d", "again")
    check(image)
    assert content(image) == b"\1" * (96 * KIB)


# ---- counts ----------------------------------------------------------------------------------


def test_112_counts_that_cannot_grow(build, tmp_path):
    """QEMU's test 112: a width has no room for one more reference. Nothing is changed."""
    for bits, most in ((1, 0), (2, 2)):
        image = created(tmp_path / f"{bits}.qcow2", MIB, options=f",refcount_bits={bits}")
        qemu_io(image, "write -q -P 1 0 64k")
        for number in range(most):
            done(build, image, "-c", f"s{number}")
            check(image)
        refused(build, image, "-c", "one more", saying="cannot grow")
        check(image)
        if most:
            done(build, image, "-d", "s0")
            done(build, image, "-c", "one more")
            check(image)


def test_112_found_late(build, tmp_path):
    """The count that cannot grow is in the last table, behind others that could."""
    image = created(tmp_path / "image.qcow2", 64 * KIB, 512, options=",refcount_bits=2")
    qemu_io(image, "write -q -P 1 32k 32k")
    for number in range(2):
        done(build, image, "-c", f"s{number}")
    qemu_io(image, "write -q -P 2 0 32k")
    refused(build, image, "-c", "one more", saying="cannot grow")
    check(image)


def test_112_apply_that_cannot_grow(build, tmp_path):
    """Disk and two snapshots share everything: going back would be one reference more, for a
    moment. When the disk has a table of its own there is room."""
    image = created(tmp_path / "image.qcow2", MIB, options=",refcount_bits=2")
    qemu_io(image, "write -q -P 1 0 64k")
    for number in range(2):
        done(build, image, "-c", f"s{number}")
    refused(build, image, "-a", "s0", saying="cannot grow")
    qemu_io(image, "write -q -P 2 0 64k")
    done(build, image, "-a", "s0")
    check(image)
    assert content(image)[:64 * KIB] == b"\1" * (64 * KIB)


def test_one_bit_empty(build, tmp_path):
    """Counts of one bit allow a snapshot of a disk without a table."""
    image = created(tmp_path / "image.qcow2", MIB, options=",refcount_bits=1")
    done(build, image, "-c", "empty")
    check(image)
    done(build, image, "-d", "empty")
    check(image)


# ---- size ------------------------------------------------------------------------------------


def test_several_windows(build, tmp_path):
    """4 GiB of clusters of 4 KiB, and a pool of 64 KiB: counts are looked at in many windows."""
    image = created(tmp_path / "image.qcow2", 4 * GIB, 4 * KIB, options=",preallocation=metadata")
    qemu_io(image, "write -q -P 1 0 1M", "write -q -P 2 3G 300k")
    for words in (("-c", "one"), ("-c", "two")):
        done(build, image, *words, pool_kib=64)
        check(image)
    qemu_io(image, "write -q -P 3 512k 1M", "write -q -P 4 3G 4k", "discard -q 1G 1M")
    for words in (("-c", "three"), ("-a", "one"), ("-d", "two"), ("-d", "one")):
        done(build, image, *words, pool_kib=64)
        check(image)
    qemu_io(image, "read -q -P 1 0 1M", "read -q -P 2 3G 300k")
    done(build, image, "-a", "three", pool_kib=64)
    check(image)
    qemu_io(image, "read -q -P 3 512k 1M", "read -q -P 4 3G 4k", "read -q -P 0 1G 1M")


@pytest.mark.parametrize("options", ["", ",refcount_bits=64"])
def test_long_l1_table(options, build, tmp_path):
    """An L1 table longer than one refcount block counts, and a refcount table that must grow."""
    image = created(tmp_path / "image.qcow2", 8 * GIB, 512, options=options)
    qemu_io(image, "write -q -P 1 0 64k", f"write -q -P 2 {8 * GIB - 64 * KIB} 64k")
    for words in (("-c", "one"), ("-c", "two"), ("-a", "one"), ("-d", "one"), ("-d", "two")):
        done(build, image, *words)
        check(image)
    qemu_io(image, "read -q -P 1 0 64k", f"read -q -P 2 {8 * GIB - 64 * KIB} 64k")
    assert image.stat().st_size < 32 * MIB


# ---- other recipes of QEMU's tests -----------------------------------------------------------


def test_062_zero_clusters(build, tmp_path):
    """QEMU's test 062: zero clusters without a cluster of their own."""
    image = created(tmp_path / "image.qcow2", 64 * MIB)
    qemu_io(image, "write -q -z 0 64M")
    done(build, image, "-c", "zeros")
    check(image)
    qemu_io(image, "write -q -P 3 1M 1M")
    done(build, image, "-a", "zeros")
    done(build, image, "-d", "zeros")
    check(image)
    assert content(image) == bytes(64 * MIB)


def snapshots_off(image):
    return int.from_bytes(image.read_bytes()[64:72], "big")


@pytest.mark.parametrize("where,value,saying", [
    (0, (0x200).to_bytes(8, "big"), "L1 table of snapshot 1 invalid"),
    (0, (1 << 62).to_bytes(8, "big"), "L1 table of snapshot 1 invalid"),
    (0, bytes(8), "L1 table of snapshot 1 invalid"),
    (8, (1 << 23).to_bytes(4, "big"), "too large"),
    (8, bytes(4), "too small"),
], ids=["unaligned", "outside", "at-0", "large", "small"])
def test_080_snapshot_fields(where, value, saying, build, tmp_path):
    """QEMU's test 080: fields of a snapshot that cannot be are found when it is used."""
    image = created(tmp_path / "image.qcow2", MIB)
    qemu_io(image, "write -q -P 1 0 64k")
    done(build, image, "-c", "one")
    poke(image, snapshots_off(image) + where, value)
    refused(build, image, "-a", "one", saying=saying)
    if saying != "too small":
        refused(build, image, "-d", "one", saying=saying)
    assert content(image)[:64 * KIB] == b"\1" * (64 * KIB)


def test_261_too_much_extra_data(build, tmp_path):
    """QEMU's test 261: over its limit, where QEMU does not open the image at all."""
    image = created(tmp_path / "image.qcow2", MIB)
    done(build, image, "-c", "one")
    poke(image, snapshots_off(image) + 36, (1025).to_bytes(4, "big"))
    for words in (("-a", "one"), ("-d", "one"), ("-c", "two")):
        refused(build, image, *words, saying="1025 bytes of extra data")


def test_261_extra_data(build, tmp_path):
    """QEMU's test 261: what an entry holds besides is kept byte for byte, known or not."""
    image = created(tmp_path / "image.qcow2", MIB)
    done(build, image, "-c", "aaaaaaaa")
    done(build, image, "-c", "b")
    off, table = snapshots_off(image), image.read_bytes()[snapshots_off(image):]
    # The first name becomes extra data, its last byte the name.
    entry = bytearray(table[:80])
    entry[14:16], entry[36:40] = (2).to_bytes(2, "big"), (31).to_bytes(4, "big")
    entry[64:73] = b"unknown1a"
    poke(image, off, entry)
    name = listed(build, image)[0][:2]
    done(build, image, "-c", "c")
    assert image.read_bytes()[snapshots_off(image):][:80] == entry
    done(build, image, "-d", "b")
    assert image.read_bytes()[snapshots_off(image):][:80] == entry
    assert [fields[0] for fields in listed(build, image)] == [name[0], "3"]


def test_261_without_disk_size(build, tmp_path):
    """QEMU's test 261: version 3 must tell the disk's size; such a snapshot can only go."""
    image = created(tmp_path / "image.qcow2", MIB)
    done(build, image, "-c", "a" * 24)
    poke(image, snapshots_off(image) + 36, (0).to_bytes(4, "big"))
    refused(build, image, "-a", listed(build, image)[0][0], saying="size of the disk")
    done(build, image, "-d", listed(build, image)[0][0])
    assert listed(build, image) == []


def test_data_file(build, tmp_path):
    """QEMU's test 244: no snapshots where guest data lies in a file of its own."""
    image = created(tmp_path / "image.qcow2", MIB, options=f",data_file={tmp_path}/data")
    status, _said = qc(build, image, "-c", "one")
    assert status == 1
    assert info(image).get("snapshots", []) == []


def test_list_writes_nothing(build, tmp_path):
    image = created(tmp_path / "image.qcow2", MIB)
    done(build, image, "-c", "one")
    before = state_of([image])
    time.sleep(0.02)
    assert len(listed(build, image)) == 1
    assert state_of([image]) == before
