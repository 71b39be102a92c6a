# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Files on FAT volumes that mkfs.vfat and mtools made: found, placed and read as mtools does it.

Every width, sectors of 512 and 4096 bytes, clusters from one sector to 64 KiB. The volumes are
filled and holes are cut into them, so that what is written last lies in many runs; names are long,
short and not ASCII, folders deep and longer than a cluster. mshowfat tells the clusters.
"""

import json
import os
import random
import re
import shutil
import subprocess

import pytest

from tools import poke
from images.disks import ESP_TYPE, MIB, run, write_gpt

TIMEOUT_S = 60
NEXT_FREE = 492  # in the second sector of FAT32: from where free clusters are looked for
OK, FOREIGN, RANGE, REFUSED = 0, 1, 6, 5

# width, bytes of a sector, sectors of a cluster, MiB
SHAPES = [(12, 512, 1, 1), (12, 512, 8, 8), (12, 4096, 1, 8), (16, 512, 1, 8), (16, 512, 8, 64),
          (16, 512, 64, 256), (16, 4096, 1, 32), (32, 512, 1, 40), (32, 512, 8, 300),
          (32, 4096, 1, 300), (32, 512, 128, 4200)]
NAMES = ["PLAIN.BIN", "lower.bin", "a long name with blanks.qcow2", "Größe €.img",
         "thirteen13.bi", "exactly26_characters_name.x", "x" * 200 + ".qcow2", "N"]
DEEP = "/".join(f"folder number {number}" for number in range(8))
ENV = dict(os.environ, MTOOLS_SKIP_CHECK="1", LC_ALL="C.UTF-8", TZ="UTC")


def mtools(*command):
    return run(*command, env=ENV)


def qc_fat(build, volume, *paths):
    """What the command tells of each path, with the content."""
    folder = volume.parent / "found"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = subprocess.run([build / "host" / "qc-fat", volume, folder, *paths], capture_output=True,
                          text=True, timeout=TIMEOUT_S, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for number, one in enumerate(told):
        one["content"] = (folder / str(number)).read_bytes() if one["status"] == OK else None
    return told


def make(path, width, sector, sectors_a_cluster, mib, *options):
    """An empty volume; sparse."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as made:
        made.truncate(mib * MIB)
    run("mkfs.vfat", "--invariant", "-F", width, "-S", sector, "-s", sectors_a_cluster, *options,
        path)
    return path


class Volume:
    """A volume, and what was put on it."""

    def __init__(self, folder, shape):
        self.path = make(folder / "volume", *shape)
        self.width, self.sector = shape[:2]
        self.cluster = shape[1] * shape[2]
        self.source = folder / "source"
        self.random = random.Random(repr(shape))
        self.files = {}

    def put(self, name, size):
        self.files[name] = self.random.randbytes(size)
        self.source.write_bytes(self.files[name])
        mtools("mcopy", "-o", "-i", self.path, self.source, f"::{name}")

    def scatter(self):
        """Many small files, of which every other one is removed."""
        for number in range(24):
            self.put(f"S{number}", self.random.randrange(1, 3 * self.cluster))
        gone = [f"S{number}" for number in range(0, 24, 2)]
        mtools("mdel", "-i", self.path, *(f"::{name}" for name in gone))
        for name in gone:
            del self.files[name]
        if self.width == 32:
            poke(self.path, self.sector + NEXT_FREE, bytes([2, 0, 0, 0]))
        limit = self.cluster * 20
        for number, name in enumerate(NAMES):
            size = [limit, limit - 1, 0, 1, self.cluster, limit * 2, 7, self.cluster + 1][number]
            self.put(name, min(size, 900_000))


def runs_by_mtools(volume, name, cluster):
    """[(place in the file, cluster)] as mshowfat has them: <first-last>, or <only>."""
    said = mtools("mshowfat", "-i", volume, f"::{name}")
    at, found = 0, []
    for first, last in re.findall(r"<(\d+)(?:-(\d+))?>", said):
        found.append([at, int(first)])
        at += (int(last or first) - int(first) + 1) * cluster
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_files(build, tmp_path, shape):
    volume = Volume(tmp_path, shape)
    volume.scatter()
    parts = DEEP.split("/")
    for depth in range(len(parts)):
        mtools("mmd", "-i", volume.path, "::" + "/".join(parts[:depth + 1]))
    for name in ("first", "second file in the depth"):
        volume.put(f"{DEEP}/{name}", 3 * volume.cluster)
    check = subprocess.run(["fsck.vfat", "-n", volume.path], capture_output=True, text=True,
                           timeout=TIMEOUT_S, check=False)
    assert check.returncode == 0, check.stdout
    names = list(volume.files)
    found = dict(zip(names, qc_fat(build, volume.path, *names)))
    data_off = None
    for name, content in volume.files.items():
        told = found[name]
        assert (told["status"], told["size"]) == (OK, len(content)), name
        assert told["content"] == content, name
        wanted = runs_by_mtools(volume.path, name, volume.cluster) if content else []
        if data_off is None and wanted:
            data_off = told["runs"][0][1] - (wanted[0][1] - 2) * volume.cluster
        assert told["runs"] == [[at, data_off + (first - 2) * volume.cluster]
                                for at, first in wanted], name
    assert max(len(told["runs"]) for told in found.values()) > 5


def test_names(build, tmp_path):
    """The same file by its names in either case, and what is no file."""
    volume = Volume(tmp_path, SHAPES[3])
    for name in NAMES:
        volume.put(name, 600)
    mtools("mmd", "-i", volume.path, "::folder")
    aliases = ["plain.bin", "\\LOWER.BIN", "//A LONG NAME with blanks.QCOW2", "ALONGN~1.QCO",
               "gRöße €.IMG", "GrÖße €.img", "folder", "folder/N", "n/n", "nothing", ""]
    found = qc_fat(build, volume.path, *aliases)
    assert [told["content"] for told in found[:4]] == [volume.files[NAMES[number]]
                                                       for number in (0, 1, 2, 2)]
    assert [told["status"] for told in found[4:]] == [OK, RANGE, REFUSED, RANGE, RANGE, RANGE,
                                                      REFUSED]


@pytest.mark.parametrize("width,mib", [(12, 2), (16, 16), (32, 40)])
def test_long_folder(build, tmp_path, width, mib):
    """A folder of several clusters, which lie apart; the last entry is found."""
    volume = Volume(tmp_path, (width, 512, 1, mib))
    mtools("mmd", "-i", volume.path, "::folder")
    for number in range(60):
        volume.put(f"folder/a file with a long name, number {number}", 700)
    found = qc_fat(build, volume.path, *volume.files)
    assert [told["content"] for told in found] == list(volume.files.values())
    assert len({told["entry"] // 512 for told in found}) > 10


@pytest.mark.parametrize("shape,owns", [
    ((32, 512, 128, 4200), True), ((12, 512, 16, 8), True), ((32, 512, 8, 300), False),
    ((16, 512, 64, 256), False), ((16, 512, 32, 256), False)])
def test_pages(build, tmp_path, shape, owns):
    """Clusters as large as the firmware's pages, and in step with them, make each file own its."""
    volume = Volume(tmp_path, shape)
    for number in range(4):
        volume.put(f"F{number}", 70_000 + number)
    found = qc_fat(build, volume.path, *volume.files)
    assert [told["owns"] for told in found] == [owns] * 4


@pytest.mark.parametrize("name", ["zeros", "gpt", "qcow2", "cut", "short"])
def test_foreign(build, tmp_path, name):
    path = tmp_path / "foreign"
    if name in ("cut", "short"):
        make(path, 12, 512, 1, 1)
        os.truncate(path, MIB // 2 if name == "cut" else 100)
    elif name == "qcow2":
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    else:
        path.write_bytes(bytes(MIB))
        if name == "gpt":
            inner = path.rename(tmp_path / "inner")
            write_gpt(path, [(ESP_TYPE, inner)])
    assert qc_fat(build, path, "x") == [{"status": FOREIGN, "content": None}]
