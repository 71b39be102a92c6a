# SPDX-License-Identifier: BSD-2-Clause-Patent
"""External data files and internal snapshots, as the plugin finds, opens, refuses and serves them.

A refusal ends nbdkit before it serves, says exactly one line and leaves every file as it was; what
is forbidden is not even opened. What images with these features read and take is tested in
test_pairwise.py.
"""

import contextlib
import ctypes
import os
import subprocess

import pytest

import serve as server
from images.recipe import KIB, MIB
from serve import FLUSH, WRITE, client, plugin_of, recorded
from test_chains import NAMES, assert_chain_refused, opened_files, raw
from test_refusals import SECONDS_MAX, assert_refused, be32, be64
from tools import check, connected, created, poke, qemu_io, read_by_qemu, state_of

SIZE = 256 * KIB
CLUSTER = 64 * KIB
DATA_FILE_EXTENSION = bytes.fromhex("44415441")
IN_OPEN = 0x20  # of inotify

# ---- data files ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """QEMU looks for a data file in the current folder, this project in the image's."""
    monkeypatch.chdir(tmp_path)


def with_data_file(path, name="image.data", options="", base=None):
    return created(path, SIZE, f"data_file={name}{options}", base)


def renamed(path, name, base=None):
    """An image that names a data file as nobody would make one: there is none yet."""
    standin = "d" * len(name)
    with_data_file(path, standin, base=base)
    os.unlink(standin)
    at = path.read_bytes().index(DATA_FILE_EXTENSION) + 8
    assert path.read_bytes()[at:at + len(name)] == standin.encode()
    poke(path, at, name.encode())
    return path


@contextlib.contextmanager
def nothing_opens(*paths):
    """Nobody opens these files meanwhile."""
    library = ctypes.CDLL(None, use_errno=True)
    watch = library.inotify_init1(os.O_NONBLOCK)
    try:
        for path in paths:
            assert library.inotify_add_watch(watch, os.fsencode(path), IN_OPEN) >= 0
        yield
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)


def test_nothing_opens_can_fail(tmp_path):
    raw(tmp_path / "secret")
    with pytest.raises(pytest.fail.Exception), nothing_opens(tmp_path / "secret"):
        (tmp_path / "secret").read_bytes()


@pytest.mark.parametrize("is_raw", [False, True])
def test_data_file(is_raw, build, tmp_path):
    """It is found beside the image wherever the server runs; the image itself holds no data."""
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    image = with_data_file(tmp_path / "image.qcow2", options=",data_file_raw=on" * is_raw)
    os.rename("image.data", tmp_path / "image.data")
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"guest" * 1024, 70000)
        assert link.pread(5 * 1024, 70000) == b"guest" * 1024
    assert (tmp_path / "image.data").read_bytes()[70000:70000 + 5 * 1024] == b"guest" * 1024
    assert b"guest" not in image.read_bytes()
    os.chdir(tmp_path)
    check(image)
    assert read_by_qemu(image, 70000, 5 * 1024, tmp_path) == b"guest" * 1024


def test_data_file_in_sub_folder(build, tmp_path):
    (tmp_path / "data").mkdir()
    image = with_data_file(tmp_path / "image.qcow2", "data/image.data")
    qemu_io(image, "write -q -P 7 0 64k")
    with connected(build, tmp_path, image) as link:
        assert link.pread(SIZE, 0) == b"\7" * CLUSTER + bytes(SIZE - CLUSTER)


def modes_of(build, folder, image, *parameters):
    with connected(build, folder, image, *parameters):  # before, its number may not be there
        found = opened_files((folder / "nbd.pid").read_text().strip())
    return {os.path.basename(path): mode for path, mode in found.items()
            if os.path.dirname(path) == str(folder)}


def test_data_file_is_opened_like_its_image(build, tmp_path):
    """For writing where the image is; that of a layer below for reading only."""
    base = with_data_file(tmp_path / "base.qcow2", "base.data")
    image = with_data_file(tmp_path / "image.qcow2", base=base)
    writable, readable = os.O_RDWR, os.O_RDONLY
    assert modes_of(build, tmp_path, image) == \
        {"image.qcow2": writable, "image.data": writable, "base.qcow2": readable,
         "base.data": readable}
    assert set(modes_of(build, tmp_path, image, "readonly=true").values()) == {readable}


def test_data_file_of_a_layer(build, tmp_path):
    """It is looked up beside its own image, and stays as it is."""
    (tmp_path / "low").mkdir()
    base = with_data_file(tmp_path / "low" / "base.qcow2", "base.data")
    qemu_io(base, "write -q -P 7 0 128k")
    os.rename("base.data", tmp_path / "low" / "base.data")
    client("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-o", "data_file=image.data", "-b",
           "low/base.qcow2", "-F", "qcow2", tmp_path / "image.qcow2", SIZE)
    before = state_of([base, tmp_path / "low" / "base.data"])
    with connected(build, tmp_path, tmp_path / "image.qcow2") as link:
        assert link.pread(SIZE, 0) == b"\7" * 2 * CLUSTER + bytes(SIZE - 2 * CLUSTER)
        link.pwrite(b"\1" * 512, 0)
        link.trim(CLUSTER, CLUSTER)
        assert link.pread(2 * CLUSTER, 0) == \
            b"\1" * 512 + b"\7" * (CLUSTER - 512) + bytes(CLUSTER)
    assert state_of([base, tmp_path / "low" / "base.data"]) == before


def test_short_data_file(build, tmp_path):
    """What it does not reach reads as zeros; the first write makes it as long as the disk."""
    image, data = with_data_file(tmp_path / "image.qcow2"), tmp_path / "image.data"
    qemu_io(image, f"write -q -P 7 0 {SIZE}")
    os.truncate(data, 100 * KIB)
    with connected(build, tmp_path, image) as link:
        content = link.pread(SIZE, 0)
        assert content == b"\7" * 100 * KIB + bytes(SIZE - 100 * KIB)
    assert data.stat().st_size == 100 * KIB
    assert read_by_qemu(image, 0, SIZE, tmp_path) == content
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\1" * 512, SIZE - 512)
        assert link.pread(SIZE, 0) == content[:-512] + b"\1" * 512
    assert data.stat().st_size == SIZE
    assert read_by_qemu(image, 0, SIZE, tmp_path) == content[:-512] + b"\1" * 512


def test_data_file_is_flushed_first(build, tmp_path, monkeypatch):
    """An entry that points there is durable only after what it points at."""
    image, logs = with_data_file(tmp_path / "image.qcow2"), {}
    for watched in (image, tmp_path / "image.data"):
        log = tmp_path / "log"
        original = server.recording
        with monkeypatch.context() as patch:
            patch.setattr(server, "recording", lambda build, _image, record, content, file=watched:
                          original(build, file, record, content))
            with connected(build, tmp_path, image, record=log) as link:
                link.pwrite(b"a" * CLUSTER, CLUSTER * len(logs))
                link.flush()
                logs[watched.name] = [call.kind for call in recorded(log)
                                      if call.kind in (WRITE, FLUSH)]
        log.unlink()
    assert logs["image.data"] == [WRITE, FLUSH]
    assert logs["image.qcow2"][-1] == FLUSH and WRITE in logs["image.qcow2"]


# ---- names of data files ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_cve_2024_4467_data_file_name(name, assert_refused, tmp_path):
    """A name that could lead anywhere but below the folder is refused, and nothing is opened."""
    text, reason = NAMES[name]
    (tmp_path / "images" / "folder").mkdir(parents=True)
    image = renamed(tmp_path / "images" / "image.qcow2", text)
    with nothing_opens(raw(tmp_path / "base.raw"), raw(tmp_path / "images" / "base.raw")):
        assert_refused(image, f"backing name refused: {reason}{text}")


@pytest.mark.parametrize("name", ["link", "folder/base.raw"])
def test_cve_2024_4467_symbolic_link(name, assert_refused, tmp_path):
    secret = raw(tmp_path / "outside" / "base.raw")
    (tmp_path / "images").mkdir()
    image = renamed(tmp_path / "images" / "image.qcow2", name)
    (tmp_path / "images" / "link").symlink_to(secret)
    (tmp_path / "images" / "folder").symlink_to(tmp_path / "outside")
    with nothing_opens(secret):
        assert_refused(image, f"backing name refused: symbolic link in {name}")


def test_data_file_not_named(build, tmp_path):
    """QEMU can be told where it is; here nobody can."""
    image = with_data_file(tmp_path / "image.qcow2")
    client("qemu-img", "amend", "-f", "qcow2", "-o", "data_file=", image)
    assert_chain_refused(build, image, "backing name refused: no data file named", tmp_path)


def test_data_file_name_ends_early(build, tmp_path):
    image = renamed(tmp_path / "image.qcow2", "base.raw\0json")
    raw(tmp_path / "base.raw")
    assert_chain_refused(build, image, "backing name refused: it ends early", tmp_path)


def test_data_file_name_is_taken_only_with_its_bit(build, tmp_path):
    """The extension alone says nothing, as for QEMU."""
    image = renamed(tmp_path / "image.qcow2", "/etc/passwd")
    poke(image, 72, be64(0))
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"a" * 512, 0)
    assert b"a" * 512 in image.read_bytes()


def test_data_file_missing(build, tmp_path):
    image = renamed(tmp_path / "image.qcow2", "gone.data")
    line = "data file gone.data: No such file or directory"
    assert_chain_refused(build, image, line, tmp_path)
    top = created(tmp_path / "top.qcow2", SIZE)
    client("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "image.qcow2", "-F", "qcow2", top)
    assert_chain_refused(build, top, f"layer 1: {line}", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_data_file_of_another_kind(kind, build, tmp_path):
    image = renamed(tmp_path / "image.qcow2", "image.data")
    if kind == "folder":
        (tmp_path / "image.data").mkdir()
    else:
        os.mkfifo(tmp_path / "image.data")
    reason = {"folder": "Is a directory", "pipe": "Invalid argument"}[kind]
    assert_chain_refused(build, image, f"data file image.data: {reason}", tmp_path)


def test_data_file_with_another_part(build, tmp_path):
    """The image itself, a layer below, the data file of one: what is written is nothing else."""
    image = renamed(tmp_path / "image.qcow2", "image.qcow2")
    used = "backing name refused: {} is used above, too"
    assert_chain_refused(build, image, used.format("image.qcow2"), tmp_path)
    base = with_data_file(tmp_path / "base.qcow2", "base.data")
    top = renamed(tmp_path / "top.qcow2", "base.data", base)
    assert_chain_refused(build, top, "layer 1: " + used.format("base.data"), tmp_path)
    top = renamed(tmp_path / "top.qcow2", "base.qcow2", base)
    line = "backing name refused: base.qcow2 is a layer above, too"
    assert_chain_refused(build, top, line, tmp_path)


# ---- snapshots -------------------------------------------------------------------------------

STATES = (b"\1", b"\2", b"\3", b"\4")  # what the disk held when each was made, and holds now


def with_snapshots(path, options="", base=None):
    """Snapshots "one", "two" and "2"; the second has the id that the third has as its name."""
    image = created(path, SIZE, options, base)
    for state, name in zip(STATES, ("one", "two", "2", None)):
        qemu_io(image, f"write -q -P {state[0]} 1k 100k")
        if name:
            client("qemu-img", "snapshot", "-c", name, image)
    return image


def content_of(state):
    return (bytes(KIB) + state * 100 * KIB).ljust(SIZE, b"\0")


@pytest.mark.parametrize("name, state", [("one", 0), ("1", 0), ("two", 1), ("2", 1), ("3", 2)])
def test_snapshot(name, state, build, tmp_path):
    """By id or name, first by id; read-only, without a line, and nothing is written."""
    image = with_snapshots(tmp_path / "image.qcow2")
    before = image.read_bytes()
    with connected(build, tmp_path, image, f"snapshot={name}") as link:
        assert link.is_read_only()
        assert link.pread(SIZE, 0) == content_of(STATES[state])
        link.flush()
    with connected(build, tmp_path, image) as link:
        assert link.pread(SIZE, 0) == content_of(STATES[3])
    assert image.read_bytes() == before


def test_snapshot_is_opened_for_reading(build, tmp_path):
    image = with_snapshots(tmp_path / "image.qcow2")
    assert modes_of(build, tmp_path, image, "snapshot=one") == {"image.qcow2": os.O_RDONLY}


@pytest.mark.parametrize("name", ["three", "4", "on", "", "one "])
def test_snapshot_not_there(name, build, tmp_path):
    image = with_snapshots(tmp_path / "image.qcow2")
    before = image.read_bytes()
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), f"file={image}",
                          f"snapshot={name}", "--run", "true"], capture_output=True, text=True,
                         timeout=SECONDS_MAX, check=False)
    assert run.returncode == 1 and run.stderr.startswith("nbdkit: error: ")
    assert "snapshot" in run.stderr and run.stderr.count("\n") == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize("new_size", [SIZE // 2, 8 * MIB])
def test_snapshot_of_another_size(new_size, build, tmp_path):
    """It has the size that the disk had."""
    image = with_snapshots(tmp_path / "image.qcow2")
    client("qemu-img", "snapshot", "-d", "one", image)
    client("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", image, new_size)
    with connected(build, tmp_path, image, "snapshot=two") as link:
        assert link.get_size() == SIZE
        assert link.pread(SIZE, 0) == content_of(STATES[1])
    with connected(build, tmp_path, image) as link:
        assert link.get_size() == new_size


def test_snapshot_over_a_layer(build, tmp_path):
    """What it does not hold comes from below, as for the disk."""
    base = created(tmp_path / "base.qcow2", SIZE)
    qemu_io(base, f"write -q -P 9 0 {SIZE}")
    image = with_snapshots(tmp_path / "image.qcow2", base=base)
    with connected(build, tmp_path, image, "snapshot=one") as link:
        assert link.pread(SIZE, 0) == b"\t" * KIB + b"\1" * 100 * KIB + b"\t" * (SIZE - 101 * KIB)


def test_snapshot_beside_writes(build, tmp_path):
    """What is written later does not change it."""
    image = with_snapshots(tmp_path / "image.qcow2")
    with connected(build, tmp_path, image) as link:
        link.pwrite(b"\7" * SIZE, 0)
        link.trim(CLUSTER, 0)
    with connected(build, tmp_path, image, "snapshot=two") as link:
        assert link.pread(SIZE, 0) == content_of(STATES[1])
    check(image)


def test_cve_2014_0145_snapshot_l1_larger(build, tmp_path):
    """A snapshot's L1 table longer than the disk's, or than any may be, is no table's end."""
    image = with_snapshots(tmp_path / "image.qcow2")
    table = int.from_bytes(image.read_bytes()[64:72], "big")
    for entries, is_served in ((1, True), (4 * 1024 * 1024 + 1, False), (2**32 - 1, False)):
        poke(image, table + 8, be32(entries))
        before = image.read_bytes()
        run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), f"file={image}",
                              "snapshot=one", "--run", "true"], capture_output=True, text=True,
                             timeout=SECONDS_MAX, check=False)
        assert (run.returncode == 0) == is_served, run.stderr
        assert image.read_bytes() == before
