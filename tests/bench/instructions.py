# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Instructions of the host for one warm read of 4 KiB, counted by valgrind's callgrind.

Promises: two runs are counted that differ in the number of requests alone, so that what a start
costs does not count; the data lies on a disk that does nothing. Of this engine it is qc_read
without that disk and the loop around; of QEMU the whole way from qemu-img bench to the disk,
because it has no smaller part that can be called alone.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from rows import Goal, Row

FEW, MANY = 2_000, 12_000
QEMU_FEW, QEMU_MANY = 2_000, 6_000
SECONDS = 300
READ = 4096
GIB = 1 << 30
# About the golden ratio's part of a GiB, in whole requests: random enough for a warm cache.
QEMU_STEP = GIB // READ * 618 // 1000 * READ

ROW = Row("warm", "4 KiB, tables in memory, no disk", None, "r", None)
GOAL = Goal("warm", "instructions a read", lambda counts: counts["instructions"], 250, 130)


def collected(words):
    """The instructions that a program takes; what it cannot do is an error."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                           *(str(word) for word in words)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=True)
    return int(re.search(r"Collected : (\d+)", done.stdout).group(1))


def ours(build):
    warm = Path(build, "host/bench/warm")
    runs = {way: collected([warm, way, MANY]) - collected([warm, way, FEW])
            for way in ("image", "disk")}
    return (runs["image"] - runs["disk"]) / (MANY - FEW)


def qemu(work):
    """Its data lies in a data file, which is then replaced by a disk that does nothing."""
    image, data = work / "warm.qcow2", work / "warm.data"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o",
                    f"cluster_size=64k,preallocation=metadata,data_file={data}", str(image),
                    str(GIB)], check=True, timeout=SECONDS)
    options = f"driver=qcow2,file.driver=file,file.filename={image},l2-cache-size=1M," \
              f"data-file.driver=null-co,data-file.size={GIB}"

    def bench(requests):
        return collected(["qemu-img", "bench", "--image-opts", options, "-c", requests, "-d", "1",
                          "-s", READ, "-S", QEMU_STEP])

    figure = (bench(QEMU_MANY) - bench(QEMU_FEW)) / (QEMU_MANY - QEMU_FEW)
    os.remove(image)
    os.remove(data)
    return figure


def measure(build, work):
    """({"instructions": ...} of this engine, of QEMU), or None without valgrind."""
    if shutil.which("valgrind") is None:
        return None
    return {"instructions": ours(build)}, {"instructions": qemu(work)}
