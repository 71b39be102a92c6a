# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every two features of the format, in one image: what cross.py asks, of the pairwise cover.

A combination that QEMU does not make is left out by a rule of images/pairwise.py; here each rule is
held against QEMU, and the cover against the rules.
"""

import itertools
from dataclasses import replace

import pytest

from cross import exercise, scratch
from images.pairwise import AXES, RULES, Shape, cover, product

SHAPES = cover()
SHAPES_MAX = 110


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_pairwise(shape, build, cache):
    with scratch() as folder:
        exercise(build, cache / "pairwise", folder, shape)


# ---- the cover and its rules -----------------------------------------------------------------


def values_of(shape):
    return {axis: getattr(shape, axis) for axis in AXES}


def pairs_in(shapes):
    return {pair for shape in shapes
            for pair in itertools.combinations(values_of(shape).items(), 2)}


def test_cover():
    """No legal pair is missing, and few images do."""
    legal = product()
    assert pairs_in(SHAPES) == pairs_in(legal)
    assert set(SHAPES) <= set(legal) and len(SHAPES) <= SHAPES_MAX
    assert len({shape.name for shape in legal}) == len(legal)
    for axis, values in AXES.items():
        assert {values_of(shape)[axis] for shape in SHAPES} == set(values)


PLAIN = Shape(3, 65536, 16, "none", False, 0, 0, "none", False)
# What breaks a rule, and nothing but that.
BREAKS = {
    "version_2_has_no_features": [
        {"version": 2, "refcount_bits": 8}, {"version": 2, "compression": "zstd"},
        {"version": 2, "extended_l2": True}, {"version": 2, "data_file": "plain"},
        {"version": 2, "bitmaps": True}],
    "subclusters_are_sectors_at_least": [{"extended_l2": True, "cluster_bytes": 8192}],
    "data_file_has_plain_clusters": [
        {"data_file": "plain", "compression": "zlib"}, {"data_file": "plain", "snapshots": 1}],
    "raw_data_file_hides_all": [{"data_file": "raw", "depth": 1}],
    "counts_fit": [{"refcount_bits": 1, "snapshots": 1}, {"refcount_bits": 2, "snapshots": 3},
                   {"refcount_bits": 2, "snapshots": 1, "compression": "zlib"}],
}


def test_rules_are_named():
    assert [rule.__name__ for rule in RULES] == list(BREAKS)


@pytest.mark.parametrize("name, change",
                         [(name, change) for name in BREAKS for change in BREAKS[name]],
                         ids=str)
def test_rule(name, change, cache):
    """What one rule leaves out, QEMU refuses."""
    shape = replace(PLAIN, **change)
    assert [rule.__name__ for rule in RULES if not rule(shape)] == [name]
    with scratch() as folder, pytest.raises(RuntimeError):
        shape.make(folder, cache / "pairwise")
