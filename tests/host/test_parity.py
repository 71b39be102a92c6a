# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command's reports say what qemu-img says: parity.py, of a part of its images.

Here are the cover of all pairs in both forms, what there is to tell of odd images, repairs, and a
part of the damage; `make parity` has them all. Below, each way of being different is shown one.
"""

import pytest

import parity
from cross import scratch
from images import told
from images.pairwise import cover

SHAPES = cover()
DAMAGED = 44  # every shape twice


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
