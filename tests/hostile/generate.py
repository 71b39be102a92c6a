#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Writes hostile images: sound ones of random shape (layout.py) with some fields changed.

    generate.py FOLDER COUNT [SEED]

Promises: the same seed gives the same images, whatever was made before; none needs much room on the
disk. Values are those on which readers stumble: limits, neighbours of what was right, places of
other structures and of the file's end, copies of other fields, single bits, noise. Files may end
early, or in the middle of a cluster. One in eight is left sound. What was changed is said by name.
"""

import random as randoms
import subprocess
import sys
from pathlib import Path

from layout import Image

BASES = (("base.raw", "raw"), ("base.qcow2", "qcow2"))
BASE_BYTES = 3 << 20
GROUPS = {"header": 4, "extension": 2, "l1": 4, "l2": 6, "bits": 3, "reftable": 3, "refblock": 5,
          "snapshot": 4, "bitmap": 3, "packed": 2}
ENTRIES = ("l1", "l2", "reftable")  # an offset with flags
FLAGS = [1 << 63, 1 << 62, 1, (1 << 63) | 1, 0]
CUT, STRETCH = "file cut", "file made longer"


def make_bases(folder):
    """What overlays name: a raw file and an image."""
    (folder / "base.raw").write_bytes(b"\x42" * 4096 + bytes(BASE_BYTES - 4096))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / "base.qcow2",
                    str(BASE_BYTES)], check=True, timeout=60)


def numbers(image):
    """Values that mean something in this image or in any."""
    end, cluster = image.host_bytes, image.cluster
    places = [image.l1_off, image.reftable_off, image.snapshots_off, *image.l2,
              image.reftable_off + image.reftable_clusters * cluster, end - cluster]
    edges = [end, end + cluster, end - 512, end * 2, 512, cluster - 1, cluster + 512, cluster * 2]
    powers = [1 << bits for bits in (8, 9, 16, 20, 31, 32, 40, 55, 56, 62, 63)]
    return places * 3 + edges + powers + [power - 1 for power in powers] + \
        [0, 0, 1, 2, 3, 4, 5, 7, 8, 64, (1 << 64) - 1, (1 << 64) - cluster, image.guest_bytes]


def value_for(image, field, old, values):
    """Another value for a field that had old; values are those of all fields of its group."""
    random, top = image.random, (1 << 8 * field.size) - 1
    kind = random.randrange(8)
    if kind == 0:
        new = old ^ 1 << random.randrange(8 * field.size)
    elif kind == 1:
        new = old + random.choice([-1, 1, 8, 512, -512, image.cluster, -image.cluster])
    elif kind == 2:
        new = random.choice(values)
    elif kind == 3:
        new = random.getrandbits(8 * field.size)
    else:
        new = random.choice(numbers(image))
    if field.group in ENTRIES and kind > 1 and random.random() < 0.7:
        new = new & 0x3ffffffffffffffe | random.choice(FLAGS)
    return new & top


def change(image, content, count):
    """Changes so many fields, and says which."""
    random, said = image.random, []
    groups = {}
    for field in image.fields:
        groups.setdefault(field.group, []).append(field)
    for _ in range(count):
        names = sorted(groups)
        group = random.choices(names, [GROUPS[name] for name in names])[0]
        read = lambda one: int.from_bytes(content[one.off:one.off + one.size], "big")  # noqa: E731
        field = random.choice(groups[group])
        old = read(field)
        new = value_for(image, field, old, [read(one) for one in groups[group][:64]])
        content[field.off:field.off + field.size] = new.to_bytes(field.size, "big")
        said.append(f"{field.name}: {old:#x} -> {new:#x}")
    return said


def make(path, seed):
    """Writes one image and returns what is wrong with it, [] where nothing is."""
    random = randoms.Random(seed)
    image = Image(random, random.choice(BASES) if random.random() < 0.12 else None)
    content = bytearray(image.host_bytes)
    for off, data in image.pieces:
        content[off:off + len(data)] = data
    said = change(image, content, random.choice([0, 1, 1, 1, 1, 2, 3, 6]))
    length = len(content)
    if said and random.random() < 0.06:
        length = random.choice([random.randrange(length), length - image.cluster + 512])
        said.append(f"{CUT} at {length:#x}")
    elif said and random.random() < 0.06:
        length += random.choice([512, image.cluster, 5 * image.cluster])
        said.append(f"{STRETCH}: {length:#x}")
    with path.open("wb") as file:
        for off in range(0, min(length, len(content)), image.cluster):
            part = content[off:min(off + image.cluster, length)]
            if part.count(0) != len(part):
                file.seek(off)
                file.write(part)
        file.truncate(length)
    return said


def generate(folder, count, seed=1):
    """{path: what is wrong with it} of count images in a folder, beside what they name."""
    make_bases(folder)
    made = {}
    for number in range(count):
        path = folder / f"{seed}-{number:05}.qcow2"
        made[path] = make(path, f"{seed}-{number}")
    return made


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: generate.py FOLDER COUNT [SEED]")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    seed = sys.argv[3] if len(sys.argv) == 4 else 1
    for path, said in generate(folder, int(sys.argv[2]), seed).items():
        print(f"{path.name}: {', '.join(said) or 'sound'}")


if __name__ == "__main__":
    main()
