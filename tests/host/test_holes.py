# SPDX-License-Identifier: BSD-2-Clause-Patent
"""No power cut shows one guest range another's bytes, in the shapes where QEMU's does (holes.py).

Each shape is served by this engine and by QEMU. Ours must hold in every state; what QEMU shows is
printed, because another release may have closed a hole.
"""

import pytest

from holes import SHAPES, Run, both, judge, row, run_shape
from serve import FLUSH, export


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_shape(shape, build):
    ours, qemus = both(build, shape)
    print(row(shape, ours, qemus))
    assert ours[0] >= 8, "hardly a state was tried"
    assert ours[1] == {}


def without_flushes(run):
    """As if the disk below said yes to every flush and did nothing."""
    marks = [sum(call.kind != FLUSH for call in run.calls[:mark]) for mark in run.marks]
    return Run(run.base, [call for call in run.calls if call.kind != FLUSH], marks, run.end)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_missing_flush_is_found(shape, build, tmp_path):
    run = run_shape(shape, lambda image, log: export(build, tmp_path, image, record=log,
                                                     content=True), tmp_path)
    assert judge(shape, without_flushes(run), tmp_path)[1] != {}
