# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the plugin refuses, with which line, and what it must not refuse.

Every image is one of qemu-img's, most of them with one field changed. A refusal ends nbdkit before
it serves, says exactly one line and leaves the file as it was, byte for byte; so does what takes no
writes, which is served all the same.
"""

import errno
import subprocess

import nbd
import pytest

from serve import export, plugin_of
from tools import poke

SECONDS_MAX = 60
TRIES_MAX = 20
GUEST_BYTES = 8 * 1024 * 1024
CLUSTER = 65536
REFUSALS = "refusal cases"
SECRET = ("--object", "secret,id=key,data=abc")


def be32(value):
    return value.to_bytes(4, "big")


def be64(value):
    return value.to_bytes(8, "big")


def create(path, *options, version=3):
    compat = {2: "0.10", 3: "1.1"}[version]
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat={compat}", *options, path,
               str(GUEST_BYTES)]
    for _ in range(TRIES_MAX):
        run = subprocess.run(command, timeout=SECONDS_MAX, cwd=path.parent, check=False,
                             stderr=subprocess.PIPE, text=True)
        # Of LUKS it times its own key derivation, and gives up where the machine is busy.
        if "accurate CPU usage" not in run.stderr:
            break
    assert run.returncode == 0, run.stderr
    return path


def serve(build, image):
    """nbdkit asked to serve image and to print its size; it ends by itself."""
    return subprocess.run(["nbdkit", "-U", "-", plugin_of(build),
                           f"file={image}", "--run", 'nbdinfo --size "$uri"'],
                          capture_output=True, text=True, timeout=SECONDS_MAX, check=False)


def assert_served(build, image, size=GUEST_BYTES):
    run = serve(build, image)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", f"{size}\n")


@pytest.fixture
def assert_refused(build, record_property):
    """The check of an image and the line it is refused with; each counts as a refusal verified."""

    def check(image, line):
        before = image.read_bytes()
        run = serve(build, image)
        assert run.stderr == f"nbdkit: error: {line}\n"
        assert run.returncode != 0
        assert run.stdout == ""
        assert image.read_bytes() == before
        record_property(REFUSALS, 1)

    return check


def assert_qemu_opens(image):
    """For writing, as the next program will; writes nothing itself."""
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -q 0 512", image], check=True,
                   timeout=SECONDS_MAX)


def test_whole(build, tmp_path):
    """What the tests below change one field of is served, in both versions."""
    assert_served(build, create(tmp_path / "v2.qcow2", version=2))
    assert_served(build, create(tmp_path / "v3.qcow2"))


# ---- images that qemu-img makes --------------------------------------------------------------

FEATURES = {
    "luks": ((*SECRET, "-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"),
             "encryption method 2 not supported"),
    "aes": ((*SECRET, "-o", "encrypt.format=aes,encrypt.key-secret=key"),
            "encryption method 1 not supported"),
}


@pytest.mark.parametrize("name", FEATURES)
def test_feature(name, assert_refused, tmp_path):
    options, line = FEATURES[name]
    assert_refused(create(tmp_path / "image.qcow2", *options), line)


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", bytes(1024 * 1024), b"QFI\xfa" * 1024],
                         ids=["empty", "short", "zeros", "other-magic"])
def test_not_qcow2(content, assert_refused, tmp_path):
    image = tmp_path / "image.raw"
    image.write_bytes(content)
    assert_refused(image, "not a qcow2 image")


# ---- one field changed -----------------------------------------------------------------------

# Field offsets of the header: version 4, backing 8 and 16, cluster_bits 20, size 24, crypt 32,
# L1 36 and 40, refcount table 48 and 56, snapshots 60 and 64, features 72 80 88, refcount_order 96,
# header_length 100, compression 104. qemu-img puts the refcount table at 1 cluster, L1 at 3.
FIELDS = {
    "version-1": (4, be32(1), "version 1 not supported"),
    "version-0": (4, be32(0), "version 0 not supported"),
    "version-4": (4, be32(4), "version 4 not supported"),
    "cluster-bits-8": (20, be32(8), "cluster_bits 8 out of range 9..21"),
    "cluster-bits-0": (20, be32(0), "cluster_bits 0 out of range 9..21"),
    "cluster-bits-22": (20, be32(22), "cluster_bits 22 out of range 9..21"),
    "header-length-96": (100, be32(96), "header length 96 invalid"),
    "header-length-108": (100, be32(108), "header length 108 invalid"),
    "header-length-0": (100, be32(0), "header length 0 invalid"),
    "header-length-long": (100, be32(CLUSTER + 8), "header length 65544 invalid"),
    "crypt-3": (32, be32(3), "encryption method 3 not supported"),
    "refcount-order-7": (96, be32(7), "refcount_order 7 invalid"),
    "compression-2": (104, b"\2", "compression type 2 not supported"),
    "compression-no-bit": (104, b"\1", "compression type 1 against its feature bit"),
    "compression-bit": (72, be64(8), "compression type 0 against its feature bit"),
    "size-0": (24, be64(0), "virtual size 0 not supported"),
    "size-511": (24, be64(511), "virtual size 511 not supported"),
    "size-2^56": (24, be64(2**56 + 1), "virtual size 72057594037927937 not supported"),
    "l1-large": (36, be32(4 * 1024 * 1024 + 1), "L1 table too large: 4194305 entries"),
    "l1-small": (24, be64(512 * 1024 * 1024 + 1), "L1 table too small: 1 entries"),
    "l1-at-0": (40, be64(0), "L1 table offset 0x0 invalid"),
    "l1-unaligned": (40, be64(3 * CLUSTER + 512), "L1 table offset 0x30200 invalid"),
    "l1-outside": (40, be64(4 * CLUSTER), "L1 table offset 0x40000 invalid"),
    "l1-wraps": (40, be64(2**64 - CLUSTER), "L1 table offset 0xffffffffffff0000 invalid"),
    "reftable-outside": (48, be64(3 * CLUSTER), "refcount table offset 0x30000 invalid"),
    "reftable-at-0": (48, be64(0), "refcount table offset 0x0 invalid"),
    "reftable-unaligned": (48, be64(CLUSTER + 8), "refcount table offset 0x10008 invalid"),
    "reftable-wraps": (48, be64(2**64 - CLUSTER),
                       "refcount table offset 0xffffffffffff0000 invalid"),
    "reftable-on-l1": (40, be64(CLUSTER), "refcount table overlaps L1 table"),
    "reftable-0": (56, be32(0), "no refcount table"),
    "reftable-large": (56, be32(129), "refcount table too large: 129 clusters"),
    "snapshots-many": (60, be32(65537), "snapshot table too large: 65537 snapshots"),
    "snapshots-at-0": (60, be32(1), "snapshot table offset 0x0 invalid"),
    "snapshots-unaligned-0": (64, be64(1), "snapshot table offset 0x1 invalid"),
    "snapshots-unaligned": (60, be32(1) + be64(CLUSTER + 512),
                            "snapshot table offset 0x10200 invalid"),
    "snapshots-outside": (60, be32(1) + be64(4 * CLUSTER),
                          "snapshot table offset 0x40000 invalid"),
    "snapshots-wrap": (60, be32(1) + be64(2**64 - CLUSTER),
                       "snapshot table offset 0xffffffffffff0000 invalid"),
    "snapshots-on-reftable": (60, be32(1) + be64(CLUSTER),
                              "snapshot table overlaps refcount table"),
    "data-file-bit": (72, be64(4), "backing name refused: no data file named"),
    "raw-data-bit": (88, be64(2), "raw external data without an external data file"),
    "backing-outside": (8, be64(CLUSTER) + be32(1), "backing name field invalid"),
    "backing-long": (8, be64(4096) + be32(1024), "backing name field invalid"),
    "extension-long": (116, be32(CLUSTER), "header extension 0x6803f857 invalid"),
    "bit-5": (72, be64(1 << 5), "unknown incompatible feature bit 5"),
    "bit-63": (72, be64(1 << 63), "unknown incompatible feature bit 63"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_field(name, assert_refused, tmp_path):
    host_off, data, line = FIELDS[name]
    image = create(tmp_path / "image.qcow2")
    poke(image, host_off, data)
    assert_refused(image, line)


def test_extended_l2_small_clusters(assert_refused, tmp_path):
    image = create(tmp_path / "image.qcow2", "-o", "cluster_size=8k")
    poke(image, 72, be64(1 << 4))
    assert_refused(image, "extended L2 entries with clusters of 8192")


def test_unknown_feature_by_name(assert_refused, tmp_path):
    """The sentence takes the name from the image's own table."""
    image = create(tmp_path / "image.qcow2")
    known = b"\0\4extended L2 entries"
    host_off = image.read_bytes().index(known)
    poke(image, host_off, b"\0\5undone before done\0")
    poke(image, 72, be64(1 << 5))
    assert_refused(image, "unknown incompatible feature bit 5 (undone before done)")


# ---- what must not be refused ----------------------------------------------------------------

ACCEPTED = {
    "cluster-size-512": (("-o", "cluster_size=512"), 0, b""),
    "cluster-size-2M": (("-o", "cluster_size=2M"), 0, b""),
    "zstd": (("-o", "compression_type=zstd"), 0, b""),
    "refcount-order-6": (("-o", "refcount_bits=64"), 0, b""),
    "compatible-bits": ((), 80, be64(2**64 - 1)),
    "autoclear-bits": ((), 88, be64(1 << 62)),
    "unknown-extension": ((), 112, be32(0x12345678)),
    "backing-length-without-offset": ((), 16, be32(4096)),
    "snapshots-offset-without-count": ((), 64, be64(2**62)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name, build, tmp_path):
    options, host_off, data = ACCEPTED[name]
    image = create(tmp_path / "image.qcow2", *options)
    poke(image, host_off, data)
    before = image.read_bytes()
    assert_served(build, image)
    assert image.read_bytes() == before
    assert_qemu_opens(image)


BITMAPS = {  # host offsets: of the extension, behind its head; of the directory
    "directory-short": (lambda extension, _: (extension + 8, be64(33))),
    "one-too-many": (lambda extension, _: (extension, be32(3))),
    "type": (lambda _, directory: (directory + 16, b"\2")),
    "table-unaligned": (lambda _, directory: (directory, be64(1))),
}


@pytest.mark.parametrize("name", BITMAPS)
def test_broken_bitmaps(name, build, tmp_path):
    """QEMU does not open what it cannot load: here it is read-only, with a line, and unchanged."""
    image = create(tmp_path / "image.qcow2")
    for bitmap in "ab":
        subprocess.run(["qemu-img", "bitmap", "--add", image, bitmap], check=True,
                       timeout=SECONDS_MAX)
    content = image.read_bytes()
    extension = content.index(be32(0x23852875) + be32(24)) + 8
    poke(image, *BITMAPS[name](extension, int.from_bytes(content[extension + 16:][:8], "big")))
    with pytest.raises(subprocess.CalledProcessError):
        assert_qemu_opens(image)
    before = image.read_bytes()
    with export(build, tmp_path, image) as path:
        link = nbd.NBD()
        link.connect_uri(f"nbd+unix:///?socket={path}")
        assert link.is_read_only() and link.pread(512, 0) == bytes(512)
        link.shutdown()
    assert image.read_bytes() == before


# ---- served, but only for reading ------------------------------------------------------------

READ_ONLY = {
    "corrupt": (be64(2), [], "nbdkit: image is marked corrupt: read-only\n"),
    "asked-for-dirty": (be64(1), ["readonly=true"], ""),
    "dirty-corrupt": (be64(3), [], "nbdkit: image is marked corrupt: read-only\n"),
    "asked-for": (be64(0), ["readonly=true"], ""),
    "asked-for-corrupt": (be64(2), ["readonly=true"], ""),
    "by-nbdkit": (be64(0), ["-r"], ""),
}


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(name, build, tmp_path):
    """The reason is said once, unless the user's wish is the reason; nothing is written."""
    bits, parameters, line = READ_ONLY[name]
    image = create(tmp_path / "image.qcow2")
    poke(image, 72, bits)
    before = image.read_bytes()
    options = [part for part in parameters if part == "-r"]
    settings = [part for part in parameters if part != "-r"]
    look = ('nbdinfo --is readonly "$uri" && '
            'qemu-io -r -f raw -c "read -q -P 0 0 1M" -c flush "$uri"')
    run = subprocess.run(["nbdkit", "-U", "-", *options, plugin_of(build), f"file={image}",
                          *settings, "--run", f"{look} && {look}"],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode, run.stderr, run.stdout) == (0, line, "")
    assert image.read_bytes() == before


@pytest.mark.parametrize("parameters", [[], ["readonly=false"], ["write_through=true"],
                                        ["pool_kib=64"], ["pool_kib=65536"]], ids="".join)
def test_writable(parameters, build, tmp_path):
    image = create(tmp_path / "image.qcow2")
    write = "qemu-io -f raw -c 'write -q -P 5 100000 70000' -c 'read -q -P 5 100000 70000' $uri"
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), f"file={image}", *parameters,
                          "--run", f'! nbdinfo --is readonly "$uri" && {write}'],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "")
    subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", "read -q -P 5 100000 70000", image],
                   check=True, timeout=SECONDS_MAX)


# ---- found later: while serving --------------------------------------------------------------


def test_bad_entry(build, tmp_path):
    """A bad L2 entry fails the reads that need it, and no others; the file is not touched."""
    image = create(tmp_path / "image.qcow2")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -q -P 5 0 {3 * CLUSTER}", image],
                   check=True, timeout=SECONDS_MAX)
    l2_off = int.from_bytes(image.read_bytes()[3 * CLUSTER:][:8], "big") & 0xfffffffffffe00
    poke(image, l2_off + 8, be64(0x80000000000a0002))
    before = image.read_bytes()
    good, bad, behind = (f"qemu-io -r -f raw -c 'read -q -P 5 {n * CLUSTER} 4096' $uri"
                         for n in range(3))
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build),
                          f"file={image}", "--run", f"{good} && ! {bad} && {behind}"],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "bad L2 entry 0x80000000000a0002 at guest 0x10000\n" in run.stderr
    assert image.read_bytes() == before


METADATA = {"refcount table": 1, "refcount block": 2, "L1": 3, "L2": 4}  # cluster of each


@pytest.mark.parametrize("table", METADATA)
def test_write_spares_metadata(table, build, tmp_path):
    """An entry that points at a table is damage: what would write there turns the image read-only
    before anything but the corrupt mark is written; reading elsewhere goes on."""
    image = create(tmp_path / "image.qcow2")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -q -P 5 0 {3 * CLUSTER}", image],
                   check=True, timeout=SECONDS_MAX)
    l2_off = int.from_bytes(image.read_bytes()[3 * CLUSTER:][:8], "big") & 0xfffffffffffe00
    assert l2_off == METADATA["L2"] * CLUSTER
    poke(image, l2_off + 8, be64(1 << 63 | METADATA[table] * CLUSTER))
    before = image.read_bytes()
    with export(build, tmp_path, image) as path:
        link = nbd.NBD()
        link.connect_uri(f"nbd+unix:///?socket={path}")
        # NBD has no EROFS; what it has for that is EPERM.
        for guest_off, wanted in ((CLUSTER, errno.EIO), (0, errno.EPERM), (CLUSTER, errno.EPERM)):
            with pytest.raises(nbd.Error) as error:
                link.pwrite(b"a" * 512, guest_off)
            assert error.value.errnum == wanted
        assert link.pread(CLUSTER, 0) == b"\5" * CLUSTER
        link.shutdown()
    marked = bytearray(before)
    marked[79] |= 2
    assert image.read_bytes() == marked


# ---- parameters ------------------------------------------------------------------------------

PARAMETERS = {
    "pool_kib=63": "pool_kib must be 64 to 65536",
    "pool_kib=65537": "pool_kib must be 64 to 65536",
    "write_through=maybe": "could not decipher boolean (maybe)",
    "backing=maybe": "could not decipher boolean (maybe)",
    "readonly=maybe": "could not decipher boolean (maybe)",
    "cluster_size=512": "unknown parameter 'cluster_size'",
}


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_parameter(parameter, build, tmp_path):
    image = create(tmp_path / "image.qcow2")
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build),
                          f"file={image}", parameter, "--run", "true"],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode, run.stderr) == (1, f"nbdkit: error: {PARAMETERS[parameter]}\n")


def test_dirty_is_repaired(build, tmp_path):
    """A crash left counts to be told up: that is done before the first request."""
    image = create(tmp_path / "image.qcow2", "-o", "lazy_refcounts=on")
    run = subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 5 1M 640k", "-c", "flush",
                          "-c", "abort", image], capture_output=True, timeout=SECONDS_MAX,
                         check=False)
    assert run.returncode == -6 and image.read_bytes()[79] == 1
    run = subprocess.run(["nbdkit", "-U", "-", plugin_of(build), f"file={image}", "--run",
                          'qemu-io -f raw -c "read -q -P 5 1M 640k" '
                          '-c "write -q -P 6 0 64k" "$uri"'],
                         capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "")
    assert image.read_bytes()[79] == 0
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True,
                   timeout=SECONDS_MAX)
