# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command's reports say what qemu-img says: parity.py, of a part of its images.

Here are the cover of all pairs in both forms, what there is to tell of odd images, repairs, and a
part of the damage; `make parity` has them all. Below, each way of being different is shown one.
"""

import subprocess

import pytest

import parity
from cross import scratch
from images import told
from images.pairwise import cover

SHAPES = cover()
DAMAGED = 44  # every shape twice
TIMEOUT_S = 60


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_shape(shape, build, cache):
    found, _passed = parity.compare_shape(build, cache, shape)
    assert "\n".join(found) == ""


@pytest.mark.parametrize("name", told.RECIPES)
def test_told(name, build):
    found, _passed = parity.compare_told(build, name)
    assert "\n".join(found) == ""


@pytest.mark.parametrize("seed", range(DAMAGED))
def test_damaged(seed, build, cache):
    found, _passed = parity.compare_damaged(build, cache, seed)
    assert "\n".join(found) == ""


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", bytes(511), b"no image" * 1000],
                         ids=["empty", "magic", "sector", "text"])
@pytest.mark.parametrize("verb", ["info", "map", "check", "snapshot"])
def test_foreign(verb, content, build, tmp_path):
    """What is no image is refused in so many words."""
    image = tmp_path / "image"
    image.write_bytes(content)
    done = subprocess.run([build / "host" / "qc-img", verb, image], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "qc-img: not a qcow2 image\n"
