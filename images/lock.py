# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Keeps two processes from making the same cached thing at once.

Promises: of those that name the same path one at a time is inside `alone`; whoever waited looks
again whether there is still something to make. The lock goes with its process, however that ends;
the empty file path.lock stays.
"""

import contextlib
import fcntl
from pathlib import Path


@contextlib.contextmanager
def alone(path):
    lock = Path(f"{path}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
