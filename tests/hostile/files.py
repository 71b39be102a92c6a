# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Files that may have large holes: found below a folder, copied, and told apart by what they read.

Promises: nothing is followed out of the folder, nothing is changed but the copy.
"""

import fcntl
import hashlib
import os
from pathlib import Path

CHUNK = 65536
FICLONE = 0x40049409


def images_below(folder):
    """Every regular file, by name. Links are not followed: they may lead anywhere."""
    found = []
    for where, _folders, names in os.walk(folder):
        found += [Path(where, name) for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def chunks_of_data(fd):
    """(offset, bytes) of what is not a hole, in chunks at multiples of their size."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = max(end, os.lseek(fd, end, os.SEEK_DATA) // CHUNK * CHUNK)
        except OSError:  # nothing but a hole is left
            return
        end = -(-os.lseek(fd, start, os.SEEK_HOLE) // CHUNK) * CHUNK
        for off in range(start, max(end, start + CHUNK), CHUNK):
            end = off + CHUNK
            data = os.pread(fd, CHUNK, off)
            if data.count(0) != len(data):
                yield off, data


def copy_sparse(source, target):
    """A copy that takes the room of the data alone, or none where blocks can be shared."""
    with open(source, "rb") as given, open(target, "wb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), FICLONE, given.fileno())
            return target
        except OSError:
            copy.truncate(os.fstat(given.fileno()).st_size)
        for off, data in chunks_of_data(given.fileno()):
            os.pwrite(copy.fileno(), data, off)
    return target


def digest(path):
    """Of all bytes, whatever of the zeros among them is a hole."""
    with open(path, "rb") as file:
        found = hashlib.sha256(str(os.fstat(file.fileno()).st_size).encode())
        for off, data in chunks_of_data(file.fileno()):
            found.update(f"{off} ".encode() + data)
    return found.hexdigest()
