# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Images by what they have, not by how they look: features of the format against each other.

Promises: `product()` is every combination that QEMU can make, by the rules below; `cover()` the
few of them in which every legal pair of values occurs, always the same ones. `Shape.make(folder)`
builds one there, with all its files, by QEMU's tools.

Left to others: how images look inside, feature by feature (matrix.py), and what is compared.
"""

import itertools
import random
import shutil
from dataclasses import dataclass, fields

from images.layers import bottom, over
from images.recipe import (CLUSTER_SIZES, COMPAT, KIB, MIB, REFCOUNT_BITS, SECTOR, random_bytes,
                           run_bitmap, run_fill, run_io, run_pack, run_snapshot, size_name, tool)

AXES = {
    "version": (2, 3),
    "cluster_bytes": CLUSTER_SIZES,
    "refcount_bits": REFCOUNT_BITS,
    "compression": ("none", "zlib", "zstd"),  # of the compressed clusters that it has
    "extended_l2": (False, True),
    "depth": (0, 1, 2, 4),  # layers below
    "snapshots": (0, 1, 3),
    "data_file": ("none", "plain", "raw"),
    "bitmaps": (False, True),
}
EXTENDED_L2_CLUSTER_BYTES_MIN = 16 * KIB
STREAMS_MAX = 3  # compressed clusters that touch one host cluster, of those made here


@dataclass(frozen=True)
class Shape:
    """One combination. Its image has data, zeros and holes, and its snapshots differ."""

    version: int
    cluster_bytes: int
    refcount_bits: int
    compression: str
    extended_l2: bool
    depth: int
    snapshots: int
    data_file: str
    bitmaps: bool

    @property
    def name(self):
        parts = [f"v{self.version}", size_name(self.cluster_bytes), f"r{self.refcount_bits}",
                 self.compression * (self.compression != "none"), "sub" * self.extended_l2,
                 f"over{self.depth}" * (self.depth > 0),
                 f"snap{self.snapshots}" * (self.snapshots > 0),
                 f"{self.data_file}file" * (self.data_file != "none"), "bitmap" * self.bitmaps]
        return "-".join(part for part in parts if part)

    @property
    def guest_bytes(self):
        """It ends inside a cluster; of tiny clusters, several tables' worth."""
        count = 300 if self.cluster_bytes <= KIB else 40 if self.cluster_bytes <= 64 * KIB else 7
        return (count - 1) * self.cluster_bytes + max(1, self.cluster_bytes // 1024) * SECTOR

    def chain(self):
        """The layers below, the nearest one first, as cells of layers.py."""
        if self.depth == 0:
            return []
        size = self.guest_bytes
        below = bottom("raw", 0, size - size // 8 // SECTOR * SECTOR)
        if self.depth == 4:
            below = over(below, 2, 4 * KIB, size, f"-lowest-{size}")
            below = over(below, 3, 512, size // 2 // SECTOR * SECTOR, f"-middle-{size}")
        if self.depth > 1:
            below = over(below, 3, 64 * KIB, size + 5 * SECTOR, f"-under-{self.depth}-{size}")
        return below.chain()

    def is_legal(self):
        return all(rule(self) for rule in RULES)

    def make(self, folder, cache):
        """The image's path in folder, beside its data file and copies of the layers below.

        QEMU takes a data file's name as one in its current folder: that must be this one.
        """
        chain = self.chain()
        for cell in chain:
            shutil.copy(cell.make(cache), folder)
        path, below = folder / "image.qcow2", []
        if chain:
            below = ["-u", "-b", chain[0].path("").name, "-F", chain[0].format]
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", self.options(), *below, path,
             self.guest_bytes)
        if self.bitmaps:
            run_bitmap(path, ("changes",), None)
        self.fill(path)
        return path

    def options(self):
        parts = [f"compat={COMPAT[self.version]}", f"cluster_size={self.cluster_bytes}"]
        if self.refcount_bits != 16:
            parts += [f"refcount_bits={self.refcount_bits}"]
        if self.compression == "zstd":
            parts += ["compression_type=zstd"]
        if self.extended_l2:
            parts += ["extended_l2=on"]
        if self.data_file != "none":
            parts += ["data_file=image.data"]
        if self.data_file == "raw":
            parts += ["data_file_raw=on"]
        return ",".join(parts)

    def fill(self, path):
        """Once for each snapshot, and then once more: compressed clusters, data, zeros, holes."""
        dice = random.Random(self.name)
        wholes = range(self.guest_bytes // self.cluster_bytes)
        for turn in range(self.snapshots + 1):
            count = max(2, len(wholes) // 8)
            packed, zeroed, gone = (dice.sample(wholes, count) for _ in range(3))
            if self.compression != "none" and (turn == 0 or self.can_give_back()):
                # QEMU compresses only where there is no cluster.
                run_io(path, self.discards(packed), None)
                run_pack(path, tuple(self.whole(n) for n in sorted(packed)),
                         f"{self.name} {turn} packed")
            run_fill(path, self.some_runs(dice, 2 * count), f"{self.name} {turn}", random_bytes)
            commands = self.discards(gone)
            commands += [f"write -q -z {self.zero_flag(dice)} {start} {length}"
                         for start, length in self.zero_runs(dice, zeroed)]
            run_io(path, commands, None)
            if turn < self.snapshots:
                run_snapshot(path, (f"after-{turn}",), None)

    def can_give_back(self):
        """Version 2 has nothing that would hide the layers below."""
        return self.version > 2 or self.depth == 0

    def whole(self, cluster):
        return cluster * self.cluster_bytes, self.cluster_bytes

    def discards(self, clusters):
        return [f"discard -q {start} {length}" for start, length in map(self.whole, clusters)]

    def some_runs(self, dice, count):
        """Single sectors up to a bit more than a cluster, few large ones."""
        found = []
        for _ in range(count):
            start = dice.randrange(self.guest_bytes // SECTOR) * SECTOR
            length_max = dice.choice((4 * KIB, min(self.cluster_bytes * 5 // 4, 256 * KIB)))
            length = dice.randint(1, max(1, length_max // SECTOR)) * SECTOR
            found.append((start, min(length, self.guest_bytes - start)))
        return found

    def zero_runs(self, dice, clusters):
        """Whole clusters, and with extended L2 entries runs of their parts."""
        found = [self.whole(n) for n in clusters]
        if self.extended_l2:
            sub = self.cluster_bytes // 32
            found += [(n * self.cluster_bytes + dice.randint(0, 15) * sub,
                       dice.randint(1, 17) * sub) for n in clusters]
        return found

    def zero_flag(self, dice):
        return dice.choice(("-u", ""))


# ---- rules -----------------------------------------------------------------------------------


def version_2_has_no_features(shape):
    return shape.version > 2 or (
        shape.refcount_bits == 16 and shape.compression != "zstd" and not shape.extended_l2
        and shape.data_file == "none" and not shape.bitmaps)


def subclusters_are_sectors_at_least(shape):
    return not shape.extended_l2 or shape.cluster_bytes >= EXTENDED_L2_CLUSTER_BYTES_MIN


def data_file_has_plain_clusters(shape):
    """Neither compressed ones nor shared ones: a place in it is a place of the guest disk."""
    return shape.data_file == "none" or (shape.compression == "none" and shape.snapshots == 0)


def raw_data_file_hides_all(shape):
    """It would be read without the layers below."""
    return shape.data_file != "raw" or shape.depth == 0


def counts_fit(shape):
    """A snapshot is one more reference to all that there is; without one QEMU sees to it."""
    streams = 1 if shape.compression == "none" else STREAMS_MAX
    references = (shape.snapshots + 1) * streams if shape.snapshots else 1
    return references < 1 << shape.refcount_bits


RULES = (version_2_has_no_features, subclusters_are_sectors_at_least, data_file_has_plain_clusters,
         raw_data_file_hides_all, counts_fit)

# ---- choices ---------------------------------------------------------------------------------


def product():
    """Every legal combination."""
    found = (Shape(*values) for values in itertools.product(*AXES.values()))
    return [shape for shape in found if shape.is_legal()]


def pairs_of(shape, numbers):
    """What it covers, as a set of bits: one for each two axes and their values."""
    values = [(field.name, getattr(shape, field.name)) for field in fields(shape)]
    return sum(1 << numbers.setdefault(pair, len(numbers))
               for pair in itertools.combinations(values, 2))


def cover():
    """Combinations in which every pair occurs that occurs in a legal one: always the one that adds
    most to those chosen, the first where several do."""
    numbers, found = {}, []
    left = [(pairs_of(shape, numbers), shape) for shape in product()]
    while left:
        best, shape = max(left, key=lambda entry: entry[0].bit_count())
        found.append(shape)
        left = [(pairs & ~best, shape) for pairs, shape in left if pairs & ~best]
    return found
