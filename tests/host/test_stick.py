# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The disk that `make stick` makes of an image: what lies where, how much room, and refusals."""

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from images import disks, stick
from tools import assert_fails, connected, created, poke, qemu_io

ROOT = Path(__file__).resolve().parents[2]
CLUSTER, GUEST_BYTES = 4096, 2 * disks.MIB
LAYOUT = f"cluster_size={CLUSTER}"
FEATURES_OFF = 79  # of the lowest byte of the incompatible features
SECRET = ("--object", "secret,id=key,data=abc")


@pytest.fixture
def place(build, tmp_path):
    """A build folder of its own, with the programs of the real one."""
    for name in ("x64", "host"):
        (tmp_path / name).symlink_to(build / name)
    return tmp_path


@pytest.fixture
def image(tmp_path):
    """Compressed, with a name that is no word."""
    plain = created(tmp_path / "plain.qcow2", GUEST_BYTES, LAYOUT)
    qemu_io(plain, f"write -q -P 7 0 {GUEST_BYTES - 3 * CLUSTER}")
    packed = tmp_path / "my cloud, amd64.qcow2"
    disks.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", LAYOUT, plain, packed)
    return packed


def make(place, image, *options):
    return subprocess.run([sys.executable, "-B", "-m", "images.stick", "--build", place, "--image",
                           image, *options], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          check=False)


def made(place, image, *options):
    done = make(place, image, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return place / "stick.raw", done.stdout


def table_of(disk):
    return json.loads(disks.run("sfdisk", "--json", disk))["partitiontable"]


def esp_file(disk, name, folder):
    taken = folder / "taken"
    disks.run("mcopy", "-n", "-o", "-i", f"{disk}@@{disks.ALIGN}", f"::{name}", taken,
              env=disks.tools_env())
    return taken.read_bytes()


def test_what_lies_where(build, place, image):
    content = image.read_bytes()
    disk, said = made(place, image)
    table = table_of(disk)
    esp, data = table["partitions"]
    assert table["label"] == "gpt" and "No errors" in disks.run("sfdisk", "--verify", disk)
    assert [uuid.lower() for uuid in (esp["type"], data["type"])] == [
        str(disks.ESP_TYPE), str(disks.DATA_TYPE)]
    lies = disks.partition_bytes(disk, 2)
    assert lies[:len(content)] == content and not any(lies[len(content):])
    assert image.read_bytes() == content
    for name, program in (("BOOT/BOOTX64.EFI", "qcow2.efi"), ("qcow2/qcow2x64.efi", "qcow2x64.efi"),
                          ("qcow2/qcow2.efi", "qcow2.efi"), ("qcow2/qcow2.man", "qcow2.man")):
        assert esp_file(disk, f"EFI/{name}", place) == (build / "x64" / program).read_bytes()
    assert disks.partition_bytes(disk, 1)[82:90] == b"FAT32   "
    config = esp_file(disk, "EFI/qcow2/qcow2.conf", place).decode()
    assert [line.split() for line in config.splitlines() if not line.startswith("#")] == [
        ["image", "my-cloud-amd64"], ["partition", data["uuid"].lower()]]
    assert "\n# autosnapshot 5 " in config
    assert data["uuid"].lower() in said and f"make boot DISK={disk}\n" in said
    assert disk.stat().st_blocks * 512 < len(content) + 4 * disks.MIB < disk.stat().st_size
    assert not list(place.glob("tmp*"))


def test_every_stick_has_its_own_guids(place, image):
    tables = [table_of(made(place, image)[0]) for _twice in range(2)]
    guids = [table["id"] for table in tables]
    guids += [part["uuid"] for table in tables for part in table["partitions"]]
    assert len(set(guids)) == 6


@pytest.mark.parametrize("name,word", [
    ("debian-12-generic-amd64.qcow2", "debian-12-generic-amd64"), ("a b#c.img", "a-b-c"),
    ("x" * 40, "x" * 32), ("---.qcow2", "image"), ("größe.qcow2", "gr-e"),
])
def test_name_of_the_entry(name, word):
    assert stick.entry_name(Path(name)) == word


def write_all(build, place, disk):
    """Writes the whole guest, cluster by cluster in any order, to an image that has this room."""
    container, content = place / "container", disks.partition_bytes(disk, 2)
    container.write_bytes(content)
    order = list(range(0, GUEST_BYTES, CLUSTER))
    random.Random(6).shuffle(order)
    with connected(build, place, container, limit_kib=len(content) // 1024) as link:
        for guest_off in order:
            link.pwrite(random.Random(guest_off).randbytes(CLUSTER), guest_off)
            link.flush()


@pytest.mark.parametrize("has_snapshot", [False, True])
def test_room_for_all_that_can_be_written(build, place, image, has_snapshot):
    """Without ROOM the guest fills its whole disk, whatever the image has today."""
    if has_snapshot:
        qemu_io(image, f"write -q -P 8 0 {64 * CLUSTER}")
        disks.run("qemu-img", "snapshot", "-c", "one", image)
    disk, _said = made(place, image)
    write_all(build, place, disk)
    disks.run("qemu-img", "check", "-f", "qcow2", place / "container")


def test_room_as_asked_for(build, place, image):
    """ROOM is what is there, and ends."""
    disk, said = made(place, image, "--room", "1M")
    length = disks.round_up(image.stat().st_size + disks.MIB, disks.MIB)
    assert len(disks.partition_bytes(disk, 2)) == length and "room for 1 MiB more" in said
    assert_fails(lambda: write_all(build, place, disk), errno.ENOSPC)


def test_room_for_larger_entries():
    """With subclusters the tables take twice as much."""
    header = {"cluster_bits": 16, "refcount_bits": 16, "virtual": 1 << 40, "features": 0}
    tables = stick.room_of(header) - (1 << 40)
    assert stick.room_of(header | {"features": stick.EXTENDED_L2}) - (1 << 40) > 1.4 * tables > 0


def test_version_2(place):
    """Where version 3 has features an extension may lie; this one's length is 7."""
    image = created(place / "old.qcow2", GUEST_BYTES, "compat=0.10")
    poke(image, 72, b"\1\2\3\4\0\0\0\7" + bytes(16))
    made(place, image)


def backing(path):
    base = created(path.with_name("base.qcow2"), GUEST_BYTES)
    created(path, GUEST_BYTES, base=base)


def data_file(path):
    created(path, GUEST_BYTES, f"data_file={path}.data")


def encrypted(path):
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", *SECRET, "-o",
              "encrypt.format=aes,encrypt.key-secret=key", path, GUEST_BYTES)


def marked(mark):
    def make_it(path):
        poke(created(path, GUEST_BYTES), FEATURES_OFF, bytes([mark]))
    return make_it


def damaged(path):
    created(path, GUEST_BYTES)
    qemu_io(path, "write -q 0 64k")
    poke(path, 0x20000, bytes(8))  # the refcounts of the first four clusters


def unknown(path):
    poke(created(path, GUEST_BYTES), FEATURES_OFF - 1, b"\1")


@pytest.mark.parametrize("make_it,why", [
    (lambda path: None, "there is no such file; usage: "),
    (lambda path: path.write_bytes(bytes(4096)), "it is no qcow2 image"),
    (lambda path: path.write_bytes(b"QFI"), "it is no qcow2 image"),
    (lambda path: path.write_bytes(b"QFI\xfb".ljust(512, b"\0")), "version 0 not supported"),
    (backing, "it has a backing file; "), (data_file, "it has an external data file; "),
    (encrypted, "it is encrypted"), (marked(1), "it is marked dirty; "),
    (marked(2), "it is marked corrupt; "), (damaged, "it is damaged; "),
    (unknown, "unknown"),
], ids=["missing", "raw", "short", "header", "backing", "data", "encrypted", "dirty", "corrupt",
        "damaged", "unknown"])
def test_refused(place, make_it, why):
    path = place / "image.qcow2"
    make_it(path)
    done = make(place, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"stick: IMAGE={path}: {why}") and done.stderr.count("\n") == 1
    assert not list(place.glob("stick*")) and not list(place.glob("tmp*"))


def test_room_is_a_size(place, image):
    done = make(place, image, "--room", "two")
    assert done.returncode == 1 and "ROOM=two is no size" in done.stderr


def test_leaks_are_no_reason(place, image):
    """A cluster that nobody uses costs room, and nothing else."""
    os.truncate(image, disks.round_up(image.stat().st_size, CLUSTER))
    qemu_io(image, f"write -q 0 {CLUSTER}")
    with open(image, "r+b") as file:  # another count for what the table above says
        file.seek(48)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        block = int.from_bytes(file.read(8), "big")
        last = image.stat().st_size // CLUSTER
    poke(image, block + 2 * last, b"\0\1")
    os.truncate(image, (last + 1) * CLUSTER)
    check = subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True,
                           timeout=60, check=False)
    assert check.returncode == stick.LEAKS
    made(place, image)
