# SPDX-License-Identifier: BSD-2-Clause-Patent
"""fio's own NBD client writes, trims and verifies on several connections at once.

Every block that fio reads back carries its checksum. Afterwards the plugin and qemu-img read the
same disk, qemu-img check finds nothing, leaks included, and a snapshot is as it was. QC_SEED=n
chooses another seed.
"""

import filecmp
import os

import pytest

from images.matrix import KIB, MIB
from serve import client, export

SEED = int(os.environ.get("QC_SEED", "1"))
PART = 16 * MIB
TRIMMED_BYTES = 8 * MIB

# Four jobs at once, each on a part of the disk of its own; what is trimmed is not read by fio.
JOBS = """
[global]
ioengine=nbd
uri=nbd+unix:///?socket={socket}
thread=1
iodepth=8
randseed={seed}
fsync=32
verify=crc32c
do_verify=1
verify_fatal=1
verify_state_save=0
size={part}
[trim-then-write]
rw=randtrimwrite
bs={unit}
[write]
rw=randwrite
bsrange=512-256k
offset={part}
io_size=12m
[read-and-write]
rw=randrw
bssplit=512/40:4k/30:128k/30
offset={part_2}
io_size=12m
[trim]
rw=randtrim
bs={unit}
offset={part_3}
io_size={trimmed}
verify=0
do_verify=0
"""

IMAGES = {
    "512": "cluster_size=512",
    "4k-r1": "cluster_size=4k,refcount_bits=1",
    "4k-r64": "cluster_size=4k,refcount_bits=64",
    "64k": "cluster_size=64k",
    "64k-v2": "cluster_size=64k,compat=0.10",
    "64k-r2-snapshot": "cluster_size=64k,refcount_bits=2",
    "64k-full": "cluster_size=64k,preallocation=full",
    "2m-r32": "cluster_size=2M,refcount_bits=32",
    "64k-zlib": "cluster_size=64k",
    "64k-zstd": "cluster_size=64k,compression_type=zstd",
    "64k-overlay": "cluster_size=64k",
    "4k-v2-overlay": "cluster_size=4k,compat=0.10",
}


def convert(image, raw, *options):
    client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", *options, image, raw)
    return raw


def make(name, image):
    """An image whose last part holds bytes of 9; or compressed; or over a compressed one."""
    size = 4 * PART
    options = IMAGES[name]
    plain = image.with_name("plain.qcow2")
    first = image if "z" not in name and "overlay" not in name else plain
    client("qemu-img", "create", "-q", "-f", "qcow2", "-o",
           options if first == image else "cluster_size=64k", first, size)
    client("qemu-io", "-f", "qcow2", "-c", f"write -q -P 9 {3 * PART} {PART}", first)
    if first == image:
        return
    client("qemu-io", "-f", "qcow2", "-c", f"write -q -P 5 0 {3 * PART}", first)
    base = image.with_name("base.qcow2") if "overlay" in name else image
    client("qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2",
           *(() if "overlay" in name else ("-o", options)), plain, base)
    if "overlay" in name:
        client("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", base.name,
               "-F", "qcow2", image)


@pytest.mark.parametrize("name", IMAGES)
def test_fio(name, build, tmp_path):
    image = tmp_path / "image.qcow2"
    make(name, image)
    if "snapshot" in name:
        client("qemu-img", "snapshot", "-c", "before", image)
        convert(image, tmp_path / "before.raw")
    unit = max(64 * KIB, 2 * MIB if name.startswith("2m") else 0)
    with export(build, tmp_path, image) as path:
        jobs = tmp_path / "jobs.fio"
        jobs.write_text(JOBS.format(socket=path, seed=SEED, part=PART, part_2=2 * PART,
                                    part_3=3 * PART, unit=unit,
                                    trimmed=TRIMMED_BYTES))
        client("fio", "--output-format=terse", jobs)
        client("nbdcopy", f"nbd+unix:///?socket={path}", tmp_path / "copy.raw")
    client("qemu-img", "check", "-q", "-f", "qcow2", image)
    assert filecmp.cmp(convert(image, tmp_path / "qemu.raw"), tmp_path / "copy.raw", shallow=False)
    with open(tmp_path / "copy.raw", "rb") as copy:
        copy.seek(3 * PART)
        part = copy.read()
        # Version 2 cannot say "zeros" over a layer below: there a trim changes nothing.
        trimmed = 0 if "v2-overlay" in name else TRIMMED_BYTES
        assert part.count(0) == trimmed and part.count(9) == PART - trimmed
    if "snapshot" in name:
        convert(image, tmp_path / "snapshot.raw", "-l", "before")
        assert filecmp.cmp(tmp_path / "before.raw", tmp_path / "snapshot.raw", shallow=False)
