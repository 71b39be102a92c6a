# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the command's reports say of an image, beside what qemu-img says of it.

Promises: for each command the text is the same line by line, the JSON field by field, and the exit
status the same; what may differ is listed in ALLOWED, by name, and counted.

As a program: `parity.py [--build FOLDER] [--full]` goes through all of images/matrix.py and of
told.py, damage of damage.py, and the cover of all pairs of pairwise.py or, with --full, every legal
combination; it closes with one line. Exit status 0 only where nothing differs.
"""

import argparse
import contextlib
import difflib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from cross import be_quiet, scratch
from images import damage, matrix, told
from images.lock import alone
from images.pairwise import cover, product

TIMEOUT_S = 300
DENSE_BYTES_MAX = 128 << 20  # larger files keep their holes
DAMAGED = 400  # seeds
SAY_EVERY = 250
UNFINISHED = 1  # exit status of a check that did not come to its end
JSON = "--output=json"
COMMANDS = (("info",), ("info", JSON), ("info", "--backing-chain"),
            ("info", "--backing-chain", JSON), ("map",), ("map", JSON), ("check",), ("check", JSON),
            ("snapshot", "-l"))
CHECKS = (("check",), ("check", JSON))
REPAIRS = tuple((*check, "-r", fix) for check in CHECKS for fix in ("leaks", "all"))

# What may differ, and what is left out: deliberate differences, each with its reason.
ALLOWED = {
    "holes": "qemu-img map also asks the file system where the image's file has holes, and calls "
             "data there zeros; a disk has none to tell of",
    "unfinished": "a check that does not come to its end has looked at other things when it stops",
}
LEFT_OUT = {
    "findings": "qemu-img check tells each finding on its standard error; here they are counted",
    "repairs": "of mixed damage more is repaired here than by QEMU: -r is held against it where "
               "there is one way only (told.LEAKY); test_check.py judges the rest by the end",
    "formats": "where an image does not say its backing file's format QEMU guesses; here the image "
               "is refused",
}


def said(*command):
    """Exit status and standard output."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False,
                          env={**os.environ, "TZ": "UTC"})
    return done.returncode, done.stdout


def said_of(image, *command):
    """The same with the image, which is put back where it may be repaired."""
    if "-r" not in command:
        return said(*command, image)
    copy = shutil.copy(image, f"{image}.before")
    answer = said(*command, image)
    os.replace(copy, image)
    return answer


def parsed(output):
    return json.loads(output) if output else None


def continues(line, after):
    fields = ("depth", "present", "zero", "data")
    if any(line[field] != after[field] for field in fields) or ("offset" in line) != (
            "offset" in after):
        return False
    return "offset" not in line or line["offset"] + line["length"] == after["offset"]


def without_holes(lines):
    """A map as it would be of a file without holes."""
    found = []
    for line in lines:
        line = {**line, "zero": line["zero"] and not line["data"]}
        if found and continues(found[-1], line):
            found[-1]["length"] += line["length"]
        else:
            found.append(line)
    return found


def has_holes(image):
    """Whether QEMU tells of any."""
    lines = parsed(said("qemu-img", "map", JSON, image)[1])
    return any(line["data"] and line["zero"] for line in lines)


def allowed(command, theirs, ours, is_dense, image):
    """The name of what may differ, where that is all that does."""
    if command[0] == "check" and theirs[0] == ours[0] == UNFINISHED:
        return "unfinished"
    if command[0] == "map" and not is_dense and theirs[0] == ours[0]:
        if JSON not in command:
            return "holes" if has_holes(image) else None
        if without_holes(parsed(theirs[1])) == parsed(ours[1]):
            return "holes"
    return None


def is_same(command, theirs, ours):
    if JSON in command:
        theirs, ours = [(status, parsed(output)) for status, output in (theirs, ours)]
    return theirs == ours


def lines_of(command, answer):
    """Its exit status and what it said, as lines in which fields have one order."""
    status, output = answer
    if JSON in command:
        output = json.dumps(parsed(output), indent=1, sort_keys=True).encode()
    return [f"exit status {status}", *output.decode(errors="backslashreplace").splitlines()]


def difference(command, theirs, ours):
    lines = difflib.unified_diff(lines_of(command, theirs), lines_of(command, ours), "qemu-img",
                                 "qc-img", lineterm="", n=1)
    return "\n".join((" ".join(command), *lines))


def compare(build, image, commands=COMMANDS, is_dense=True):
    """[what differs], and how often each of ALLOWED did."""
    found, passed = [], Counter()
    for command in commands:
        theirs = said_of(image, "qemu-img", *command)
        ours = said_of(image, build / "host" / "qc-img", *command)
        if is_same(command, theirs, ours):
            continue
        name = allowed(command, theirs, ours, is_dense, image)
        if name:
            passed[name] += 1
        else:
            found.append(difference(command, theirs, ours))
    return found, passed


def fill_holes(folder):
    """Whether no file of the folder has any left."""
    is_dense = True
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size <= DENSE_BYTES_MAX:
            path.write_bytes(path.read_bytes())
        elif path.is_file():
            is_dense = False
    return is_dense


# ---- images, each in a folder that is the current one ----------------------------------------


def compare_shape(build, cache, shape):
    with scratch() as folder:
        image = shape.make(folder, cache / "pairwise")
        return compare(build, image.name, is_dense=fill_holes(folder))


def compare_cell(build, cache, cell):
    with scratch() as folder:
        cell.make(cache / "matrix")
        for layer in cell.chain():
            said("cp", "--sparse=always", layer.path(cache / "matrix"), folder)
        return compare(build, cell.path("").name, is_dense=fill_holes(folder))


def compare_told(build, name):
    """Once by its name, once by a path, which names out of the image are seen from."""
    commands = COMMANDS + REPAIRS if name in told.LEAKY else COMMANDS
    with scratch() as folder:
        told.RECIPES[name](folder / "image.qcow2")
        fill_holes(folder)
        found, passed = compare(build, "image.qcow2", commands)
        if name.startswith("over"):
            more, _ = compare(build, folder / "image.qcow2")
            found += more
    return found, passed


def damage_base(cache, shape):
    """The shape's image before it is damaged. Another suite keeps its own beside it."""
    path = cache / "damage" / shape.name
    with alone(path):
        if not path.exists():
            part = path.with_name(f"{shape.name}.parity")
            damage.make(shape, part)
            os.replace(part, path)
    return path.read_bytes()


def compare_damaged(build, cache, seed):
    """What is wrong may keep an image from being opened for more than a check."""
    shape = damage.SHAPES[seed % len(damage.SHAPES)]
    content, what = damage.damaged(damage_base(cache, shape), seed)
    with scratch() as folder:
        (folder / "image.qcow2").write_bytes(content)
        found, passed = compare(build, "image.qcow2", CHECKS)
    return [f"{what}: {line}" for line in found], passed


# ---- all of them -----------------------------------------------------------------------------


def jobs(build, cache, is_full):
    """[(name, what to call)]"""
    found = [(name, partial(compare_told, build, name)) for name in told.RECIPES]
    found += [(f"damage {seed}", partial(compare_damaged, build, cache, seed))
              for seed in range(DAMAGED)]
    found += [(cell.name, partial(compare_cell, build, cache, cell)) for cell in matrix.cells()]
    shapes = product() if is_full else cover()
    return found + [(shape.name, partial(compare_shape, build, cache, shape)) for shape in shapes]


def run(job):
    """[what differs], a count for each of ALLOWED."""
    name, call = job
    try:
        with contextlib.redirect_stdout(None):
            found, passed = call()
    except Exception:  # whatever it is, the other cells go on
        return [f"{name}:\n{traceback.format_exc()}"], Counter()
    return [f"{name}: {line}" for line in found], passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--full", action="store_true", help="every legal combination")
    args = parser.parse_args()

    cache, start = ROOT / "build" / "cache", time.monotonic()
    cells, differing, passed = jobs(args.build.resolve(), cache, args.full), 0, Counter()
    with ProcessPoolExecutor(initializer=be_quiet) as pool:
        for count, (found, more) in enumerate(pool.map(run, cells, chunksize=4), 1):
            passed += more
            differing += bool(found)
            if found:
                print("\n".join(found), flush=True)
            if count % SAY_EVERY == 0:
                print(f"{count} of {len(cells)} cells, {differing} differing", flush=True)
    for name, reason in ALLOWED.items():
        print(f"let pass {passed[name]} times, {name}: {reason}")
    for name, reason in LEFT_OUT.items():
        print(f"left out, {name}: {reason}")
    print(f"{len(cells)} cells, {differing} differing, {time.monotonic() - start:.0f} s")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
