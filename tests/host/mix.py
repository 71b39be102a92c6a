# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A seeded mix of everything a client can ask for, on an export and on a plain array of bytes.

Promises: what the export reads is the array's at every step; afterwards qemu-img check finds
nothing, leaks included, qemu-img reads the bytes of the array, every snapshot is as it was, and so
is every byte of the files below. The seed is printed; QC_SEED=n chooses another one.
"""

import hashlib
import json
import os
import random
from dataclasses import dataclass

import nbd

from images.recipe import KIB, MIB, SECTOR
from serve import client
from tools import check, connected, read_by_qemu, state_of

SEED = int(os.environ.get("QC_SEED", "1"))
STEPS = 48
WHOLE_BYTES_MAX = 8 * MIB
WINDOWS_MAX = 6
WRITE_BYTES_MAX = 256 * KIB
POOLS_KIB = (64, 64, 96, 1280)


@dataclass
class Window:
    """A stretch of the guest disk and what it holds."""

    guest_off: int
    content: bytearray


def choose_windows(image, size, cluster_bytes, dice):
    """All of a small disk; of a large one both ends and what lies around some of its data."""
    if size <= WHOLE_BYTES_MAX:
        return [(0, size)]
    found = json.loads(client("qemu-img", "map", "-f", "qcow2", "--output=json", image))
    starts = [entry["start"] for entry in found if entry["data"]]
    starts = dice.sample(starts, min(len(starts), WINDOWS_MAX - 2)) + [0, size]
    length = min(6 * cluster_bytes, WHOLE_BYTES_MAX)
    windows, end = [], 0
    for start in sorted(starts):
        start = min(max(end, (start - 2 * cluster_bytes) // SECTOR * SECTOR), size)
        end = min(start + length, size)
        if start < end:
            windows.append((start, end - start))
    return windows


def snapshots_of(image, folder):
    """{name: digest of what qemu-img reads of it}"""
    found = {}
    info = json.loads(client("qemu-img", "info", "-f", "qcow2", "--output=json", image))
    for entry in info.get("snapshots", []):
        raw = folder / "snapshot.raw"
        client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", entry["name"], image, raw)
        found[entry["name"]] = hashlib.sha256(raw.read_bytes()).hexdigest()
        raw.unlink()
    return found


# ---- the mix ---------------------------------------------------------------------------------


class Mix:
    """One operation after the other, on the export and on the arrays alike."""

    def __init__(self, link, windows, cell, dice):
        self.link, self.windows, self.dice = link, windows, dice
        self.cluster_bytes = cell.cluster_bytes
        # Version 2 has nothing that would hide what is below, so that space given back shows it.
        self.is_trim_ignored = cell.version == 2 and cell.below is not None

    def place(self):
        """(window, start in it, length): sectors, bytes, or whole clusters."""
        window = self.dice.choice(self.windows)
        size = len(window.content)
        unit = self.dice.choice((1, SECTOR, SECTOR, self.cluster_bytes, self.cluster_bytes))
        unit = unit if unit <= size else SECTOR
        length_max = min(size, max(3 * self.cluster_bytes, WRITE_BYTES_MAX), 8 * self.cluster_bytes)
        start = self.dice.randrange(size) // unit * unit
        length = self.dice.randint(1, max(1, length_max // unit)) * unit
        return window, start, min(length, size - start)

    def step(self):
        kind = self.dice.choices((self.write, self.zero, self.trim, self.read, self.flush),
                                 (10, 4, 4, 3, 2))[0]
        kind(*self.place())

    def flags(self):
        return nbd.CMD_FLAG_FUA if self.dice.random() < 0.1 else 0

    def write(self, window, start, length):
        data = self.dice.randbytes(length)
        self.link.pwrite(data, window.guest_off + start, self.flags())
        window.content[start:start + length] = data

    def zero(self, window, start, length):
        keep = self.dice.choice((0, nbd.CMD_FLAG_NO_HOLE))
        self.link.zero(length, window.guest_off + start, keep | self.flags())
        window.content[start:start + length] = bytes(length)

    def trim(self, window, start, length):
        """Whole clusters go, the guest disk's last one may be short; parts stay."""
        guest_off, unit = window.guest_off + start, self.cluster_bytes
        self.link.trim(length, guest_off, self.flags())
        end = guest_off + length
        if self.is_trim_ignored:
            return
        first = -(-guest_off // unit) * unit
        last = end if end == self.link.get_size() else end // unit * unit
        if first < last:
            first, last = first - window.guest_off, last - window.guest_off
            window.content[first:last] = bytes(last - first)

    def read(self, window, start, length):
        assert self.link.pread(length, window.guest_off + start) == \
            window.content[start:start + length], f"{length} bytes at {window.guest_off + start}"

    def flush(self, *_place):
        self.link.flush()


def write_into(build, cell, image, folder, name):
    """The mix on the image, in two sessions, and all that must hold afterwards."""
    dice = random.Random(f"{SEED} {name}")
    print(f"replay: make test ONLY='{name}' QC_SEED={SEED}")
    info = json.loads(client("qemu-img", "info", "-f", "qcow2", "--output=json", image))
    below = [folder / layer.path("").name for layer in cell.chain()[1:]]
    snapshots, state = snapshots_of(image, folder), state_of(below)
    windows = [Window(start, bytearray(read_by_qemu(image, start, length, folder)))
               for start, length in choose_windows(image, info["virtual-size"], cell.cluster_bytes,
                                                   dice)]
    for _session in range(2):
        parameters = [f"pool_kib={dice.choice(POOLS_KIB)}",
                      f"write_through={dice.choice(('true', 'false', 'false', 'false'))}"]
        with connected(build, folder, image, *parameters) as link:
            mix = Mix(link, windows, cell, dice)
            for _ in range(STEPS // 2):
                mix.step()
            for window in windows:
                mix.read(window, 0, len(window.content))
        check(image)
    for window in windows:
        assert read_by_qemu(image, window.guest_off, len(window.content), folder) == \
            window.content, f"QEMU reads something else at {window.guest_off}"
    assert snapshots_of(image, folder) == snapshots
    assert state_of(below) == state
