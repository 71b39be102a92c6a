# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Calls make from within a test, which make itself may have started.

Promises: the inner make has the outer one's variables but no other of its settings, and finds the
sources of others where that one keeps them; two tests do not build into one folder at the same
time; a build that fails raises BuildError with the end of what it said.
"""

import os
import subprocess
from pathlib import Path

from images.lock import alone

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
SAID_CHARS = 2000
# What is set on make's command line is in the environment of what it starts.
OUTER = {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS"}


class BuildError(Exception):
    pass


def make(build, *words, tree=ROOT):
    """Runs the tree's make, on two processors, into the folder build."""
    kept = Path(os.environ.get("THIRD_PARTY", "build/third-party"))
    env = {name: value for name, value in os.environ.items() if name not in OUTER}
    command = ["make", "-j2", f"BUILD={build}", f"THIRD_PARTY={ROOT / kept}", *words]
    with alone(build / "make"):
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-SAID_CHARS:]}")
