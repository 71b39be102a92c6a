# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The driver built with a fifth of its memory for metadata keeps every promise of writing.

Three disks in turn, one more than there are large pools; the clusters are so small that an image
has no room for all that changes between two flushes.
"""

import shutil
import subprocess
import sys

import pytest

import making
from conftest import Rig, crc, judge_disk, select
from images import disks
from test_write import Writer

CACHE_KIB = 256
DISK_BYTES = 16 * disks.MIB
DEVICES = ("virtio", "scsi", "ahci")
STEPS = 24
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def small(build, cache, tmp_path_factory):
    """A build of its own, with the agent of the other one, and a way into the machine with it."""
    making.make(build / "small", f"CACHE_KIB={CACHE_KIB}", "firmware")
    shutil.copyfile(build / "x64/agent.efi", build / "small/x64/agent.efi")
    return Rig(build / "small", cache, tmp_path_factory.mktemp("small"))


def test_pools(small):
    """Two images have all of it, four others half."""
    run = subprocess.run([sys.executable, making.ROOT / "tests/rig/size.py", "--build",
                          small.build], capture_output=True, text=True, timeout=SECONDS_MAX,
                         check=True)
    for name, pool_kib, count in (("large", CACHE_KIB, 2), ("small", CACHE_KIB // 2, 4)):
        assert f" {count * pool_kib * 1024} {name}_pools (attach.c)\n" in run.stdout


def test_written(small):
    image = small.folder / "empty.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image,
              str(DISK_BYTES))
    kept, writers, orders, reads = [], [], [], []
    for device in DEVICES:
        kept.append(small.container(device, image, device, room=2 * DISK_BYTES))
        writers.append(Writer(bytes(DISK_BYTES), "small", device))
        writers[-1].orders, writers[-1].reads = orders, reads
    for _ in range(STEPS):
        for device, writer in zip(DEVICES, writers):
            orders.append(select(device, 1))
            writer.step()
    for device in DEVICES:
        orders += [select(device, 1), "flush child", "sum child 2048"]
    report = small.loaded([*orders, "unload", "tpl"], *kept)
    assert {answer["status"] for order in ("write", "erase", "flush", "unload")
            for answer in report.all(order)} == {"SUCCESS"}
    assert report.all("read") == reads
    assert [answer["crc"] for answer in report.all("sum")] == \
        [crc(writer.content) for writer in writers]
    assert report.one("tpl")["tpl"] == "4"
    for disk, writer in zip(kept, writers):
        assert judge_disk(disk) == writer.content
