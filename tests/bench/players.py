# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Plays a row's requests on an image, by this engine and by the installed QEMU, and counts.

Promises: both get a copy of the same image, the same requests with the same bytes, and as much
memory for metadata: POOL_KIB in all here, there an L2 cache of 1 MiB beside what else it takes.
Both are counted by the same tracer from open to close. After writing, qemu-img finds nothing wrong
with the image, and both hold the same.
"""

import os
import shutil
import subprocess
from pathlib import Path

import counts
import prepare
import traces

POOL_KIB = 1280
QEMU_OPTIONS = "driver=qcow2,file.driver=file,file.filename={},file.aio=threads,file.locking=off," \
               "l2-cache-size=1M"
PLAY_SECONDS = 300


class Failure(Exception):
    """A run that must not be counted."""


def traced(build, log, images, words, **options):
    """Runs a program under the tracer; its standard output."""
    environment = dict(os.environ, LD_PRELOAD=str(Path(build, "host/bench/tracer.so").resolve()),
                       TRACE_LOG=str(log), TRACE_FILES=":".join(map(str, images)))
    done = subprocess.run([str(word) for word in words], env=environment, timeout=PLAY_SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          **options)
    if done.returncode != 0:
        raise Failure(f"{words[0]}: exit status {done.returncode}: {done.stdout[-500:]}")
    return done.stdout


def play_ours(build, image, mode, trace, log, pool_kib=POOL_KIB):
    requests = image.with_suffix(".trace")
    requests.write_text(traces.lines(trace))
    output = traced(build, log, prepare.files_of(image),
                    [Path(build, "host/bench/player"), image, pool_kib, mode, requests])
    return int(output.split()[-1])


def play_qemu(build, image, mode, trace, log):
    output = traced(build, log, prepare.files_of(image),
                    ["qemu-io", *(["-r"] if mode == "r" else []), "-t", "writeback",
                     "--image-opts", QEMU_OPTIONS.format(image)], input=traces.qemu_io(trace))
    if "failed" in output or "rror" in output:
        raise Failure(f"qemu-io: {output[-500:]}")
    return None


def play(build, folder, play_one, source, mode, trace):
    """Counts one run on a new copy of the source image in this folder; (counts, the copy)."""
    shutil.rmtree(folder, ignore_errors=True)
    image = prepare.copy(source, folder)
    log = Path(folder, "log")
    log.touch()
    unpacked = play_one(build, image, mode, trace, log)
    counted = counts.count(log, prepare.files_of(image))
    # QEMU unpacks a cluster for each request, and each time it reads the packed bytes first.
    counted["unpacked"] = counted["data_reads"] if unpacked is None else unpacked
    counted["user_bytes"] = traces.user_bytes(trace)
    return counted, image


def check(image):
    done = subprocess.run(["qemu-img", "check", "-q", str(image)], timeout=PLAY_SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"qemu-img check: {done.returncode}: {done.stdout[-500:]}")


def compare(one, other):
    done = subprocess.run(["qemu-img", "compare", "-q", str(one), str(other)], check=False,
                          timeout=PLAY_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode != 0:
        raise Failure(f"qemu-img compare: {done.returncode}: {done.stdout[-500:]}")


def mean(dictionaries):
    return {key: sum(one[key] for one in dictionaries) / len(dictionaries)
            for key in dictionaries[0]}


def play_row(build, work, row, seed):
    """(counts of this engine, counts of QEMU), means where the row has several runs."""
    source = prepare.image(row.image, work, build)
    ours, theirs = [], []
    for run in range(row.runs):
        trace = row.trace(seed + run)
        our_counts, our_image = play(build, work / "ours", play_ours, source, row.mode, trace)
        their_counts, their_image = play(build, work / "qemu", play_qemu, source, row.mode, trace)
        if row.mode == "w":
            check(our_image)
            compare(our_image, their_image)
        ours.append(our_counts)
        theirs.append(their_counts)
    for folder in ("ours", "qemu"):
        shutil.rmtree(work / folder)
    return mean(ours), mean(theirs)
