# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Power cuts under the firmware: one run, then every state that a cut could have left behind.

The disk's log is played back on the host: at every flush, and between flushes with seeded subsets
of the writes, torn into the disk's blocks. In each state qemu-img check finds leaks at worst, and
every sector holds what it held at the last flush that the firmware saw end, or something newer
that was written there: never zeros, or another's bytes, in place of what was durable.
"""

import random
import subprocess

import pytest

import logwrites
import vm
from conftest import ROOM, image_of, seed_of, select
from images import disks

SECTOR = 512
STEPS = 24
SUBSETS = 3  # a segment, beside none and all of its writes


class History:
    """Every value that each sector may show, by the number of the order that wrote it."""

    def __init__(self, content, *seed):
        self.dice = random.Random(seed_of(*seed))
        self.sectors = len(content) // SECTOR
        self.values = [[content[n * SECTOR:(n + 1) * SECTOR]] for n in range(self.sectors)]
        self.orders, self.flushed = [], []

    def change(self):
        count = min(self.dice.choice((1, 8, 100, 128, 300)), self.sectors)
        lba = self.dice.randrange(self.sectors - count + 1)
        if self.dice.randrange(5) == 0:
            self.orders.append(f"erase {lba} {count}")
            new = bytes(count * SECTOR)
        else:
            seed = self.dice.randrange(1, 60000)
            self.orders.append(f"write child {lba} {count} {seed}")
            new = vm.pattern(seed, lba, count)
        for number in range(count):
            self.values[lba + number].append(new[number * SECTOR:(number + 1) * SECTOR])

    def flush(self):
        """From here on no sector may show anything older than now."""
        self.orders.append("flush child")
        self.flushed.append([len(values) - 1 for values in self.values])


def state_is_good(folder, disk_bytes):
    """(None or what is wrong, the guest's bytes)"""
    qcow2, raw = folder / "state.qcow2", folder / "state.raw"
    qcow2.write_bytes(image_of(disk_bytes))
    done = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", qcow2], capture_output=True,
                          text=True, timeout=60, check=False)
    if done.returncode not in (0, 3):
        return f"qemu-img check: {done.returncode}: {done.stdout}{done.stderr}", b""
    disks.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, raw)
    return None, raw.read_bytes()


def misplaced(history, oldest, content):
    """The first sector that shows a value it must not show, or None."""
    for number, values in enumerate(history.values):
        if content[number * SECTOR:(number + 1) * SECTOR] not in values[oldest[number]:]:
            return number
    return None


def states(before, found, unit_bytes, dice):
    """(flushes that were over, the disk) for every state that is looked at."""
    disk = bytearray(before)
    for over, writes in enumerate(logwrites.segments(found)):
        yield over, bytes(disk)
        for _ in range(SUBSETS if writes else 0):
            kept = logwrites.torn(writes, unit_bytes, dice)
            yield over, bytes(logwrites.apply(bytearray(disk), kept))
        logwrites.apply(disk, writes)
    yield over, bytes(disk)


def marks_of(rig, history, disk, place, cold):
    """Runs the history; how many flushes of the disk were over when each FlushBlocks returned."""
    report = rig.loaded([place, "count begin", *history.orders, "count end"], disk, cold=cold)
    for order in ("write", "erase", "flush"):
        assert {answer["status"] for answer in report.all(order)} <= {"SUCCESS"}
    return [int(answer["downflushes"]) for answer in report.all("flush")]


@pytest.mark.parametrize("name,device,block_bytes", [
    ("empty-v3-64k", "virtio", 512), ("fragmented-v3-4k", "virtio", 4096),
    ("snapshot-v2-64k", "virtio", 512), ("data-v3-512", "nvme", 512)])
def test_every_cut(rig, tmp_path, name, device, block_bytes):
    image = rig.image(name)
    disk = rig.container(f"cut-{name}-{device}", image, device, block_bytes, ROOM, log=True)
    before = disk.path.read_bytes()
    history = History(rig.content(image), name, device)
    history.flush()  # reaches the disk below, but not the log: nothing was written before it
    for number in range(STEPS):
        history.change()
        if number % 4 == 3:
            history.flush()
    marks = marks_of(rig, history, disk, select(device, 1), device == "nvme")
    found = logwrites.entries(disk.log)
    assert logwrites.flushes(found) == marks[-1] - marks[0]
    dice, looked_at = random.Random(seed_of("cuts", name, device)), 0
    for over, state in states(before, found, block_bytes, dice):
        wrong, content = state_is_good(tmp_path, state)
        assert wrong is None, (over, wrong)
        ended = sum(mark - marks[0] <= over for mark in marks)
        sector = misplaced(history, history.flushed[ended - 1], content)
        assert sector is None, f"sector {sector} after {over} flushes"
        looked_at += 1
    assert looked_at > 20
