# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The images that the workloads start from, each made once a run by name.

Promises: an image is a function of its name alone, with clusters of 64 KiB unless told otherwise;
qemu-img finds nothing wrong with it. `copy` gives each player one of its own, holes kept.
"""

import os
import random
import struct
import subprocess
import sys
from array import array
from pathlib import Path

from traces import GIB, KIB, MIB, lines, scattered

CLUSTER = 64 * KIB
GUEST = 64 * GIB
CLUSTER_BITS = 16
COPIED = 1 << 63
STEP_SECONDS = 300
PACKED_BYTES = 128 * MIB
PACKED_CLUSTERS = PACKED_BYTES // CLUSTER
OVERLAY_WRITES = 1000
FILLED_BYTES = 64 * MIB  # enough for a comparison to find what was not copied


def run(*words, **options):
    """The standard output; an exit status other than 0 is an error."""
    return subprocess.run([str(word) for word in words], check=True, timeout=STEP_SECONDS,
                          stdout=subprocess.PIPE, text=True, **options).stdout


def create(path, size, *options, cluster=CLUSTER):
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
        ",".join((f"cluster_size={cluster}",) + options), path, size)


def make_fresh(path, _build):
    create(path, GUEST)


def make_mapped(path, _build):
    """The first GiB of 64 has its clusters, one behind the other; a part of it is no zeros."""
    create(path, GIB, "preallocation=metadata")
    run("qemu-io", "-c", f"write -q -P 255 0 {FILLED_BYTES}", path)
    run("qemu-img", "resize", "-q", "-f", "qcow2", path, GUEST)


def make_snapshot(path, build):
    make_mapped(path, build)
    run("qemu-img", "snapshot", "-c", "before", path)


def make_contiguous(path, _build):
    create(path, GUEST, "preallocation=metadata")


def make_shuffled(path, _build):
    """All of 64 GiB is mapped, no cluster where its neighbour would let one expect it."""
    guest_clusters = GUEST // CLUSTER
    tables = guest_clusters * 8 // CLUSTER
    blocks = guest_clusters * 2 // CLUSTER + 1
    l1_offset, blocks_offset = 2 * CLUSTER, 3 * CLUSTER
    tables_offset = blocks_offset + blocks * CLUSTER
    data_first = tables_offset // CLUSTER + tables
    order = list(range(data_first, data_first + guest_clusters))
    random.Random(1).shuffle(order)
    with open(path, "wb") as file:
        file.write(struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, GUEST, 0,
                               tables, l1_offset, CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104))
        file.seek(CLUSTER)
        write_words(file, [blocks_offset + i * CLUSTER for i in range(blocks)])
        file.seek(l1_offset)
        write_words(file, [tables_offset + i * CLUSTER | COPIED for i in range(tables)])
        file.seek(blocks_offset)
        file.write(b"\0\1" * (data_first + guest_clusters))
        file.seek(tables_offset)
        write_words(file, [cluster << CLUSTER_BITS | COPIED for cluster in order])
        file.truncate((data_first + guest_clusters) * CLUSTER)


def write_words(file, words):
    packed = array("Q", words)
    if sys.byteorder == "little":
        packed.byteswap()
    file.write(packed.tobytes())


def make_packed(path, _build):
    """Clusters that compress to about half, no two alike."""
    chance = random.Random(1)
    raw = path.with_suffix(".raw")
    letters = b"abcdefghijklmnopqrstuvwxyz0123456789"
    words = [bytes(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(4096)]
    with open(raw, "wb") as file:
        for _ in range(PACKED_CLUSTERS):
            text = b" ".join(chance.choices(words, k=12_000))
            file.write(text[:CLUSTER // 2] + text[CLUSTER // 4:CLUSTER * 3 // 4])
    run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, path)
    raw.unlink()


def make_chain(path, build):
    """An overlay of an overlay of a mapped GiB; each has 1,000 random clusters of its own."""
    base = path.with_suffix(".base")
    make_mapped(base, build)
    for number, layer in enumerate((path.with_suffix(".middle"), path)):
        below = base if number == 0 else path.with_suffix(".middle")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below.name, "-F", "qcow2", layer)
        trace = path.with_suffix(".trace")
        trace.write_text(lines(scattered("W", 8 + number, GIB, 4 * KIB, OVERLAY_WRITES)))
        run(build / "host" / "bench" / "player", layer, 1280, "w", trace)
        trace.unlink()


MAKERS = {"fresh": make_fresh, "mapped": make_mapped, "snapshot": make_snapshot,
          "contiguous": make_contiguous, "shuffled": make_shuffled, "packed": make_packed,
          "chain": make_chain}


def files_of(path):
    """The image and the layers below it."""
    return [layer for layer in (path, path.with_suffix(".middle"), path.with_suffix(".base"))
            if layer.exists()]


def image(name, folder, build):
    """The image of this name, made if it is not there yet."""
    path = Path(folder, name + ".qcow2")
    if not path.exists():
        MAKERS[name](path, Path(build))
    return path


def copy(path, folder):
    """A copy of the image in this new folder; what lies below it is only read, and linked."""
    os.makedirs(folder)
    target = Path(folder, path.name)
    run("cp", "--sparse=always", path, target)
    for below in files_of(path)[1:]:
        os.link(below, Path(folder, below.name))
    return target
