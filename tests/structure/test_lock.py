# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lock of cached files lets one process in at a time, and lets go of one that dies inside."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 60
PROCESSES, TURNS = 3, 40
COUNT = f"""
import os, pathlib, time
from images.lock import alone
path = pathlib.Path("counter")
for _ in range({TURNS}):
    with alone(path):
        count = int(path.read_text())
        time.sleep(0.001)
        path.write_text(str(count + 1))
with alone(path):
    os._exit(0)
"""


def test_one_at_a_time(tmp_path):
    (tmp_path / "counter").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", COUNT], cwd=tmp_path,
                                env={"PYTHONPATH": str(ROOT)}) for _ in range(PROCESSES)]
    assert [process.wait(SECONDS_MAX) for process in running] == [0] * PROCESSES
    assert int((tmp_path / "counter").read_text()) == PROCESSES * TURNS
