# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A disk of `make stick` boots alone: menu, partition, and the Linux in the image."""

import secrets
import subprocess
import sys

import demo
from images import disks
from images.demo import convert, system_disk
from images.kernel import kernel

TIMEOUT_S = 200


def said_by(*command):
    done = subprocess.run([sys.executable, "-B", *command], cwd=demo.ROOT, timeout=TIMEOUT_S,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=True).stdout
    return demo.ESCAPE.sub(b"", done).decode("ascii", "replace").replace("\r", "")


def test_stick_boots_alone(build, cache, tmp_path):
    """As `make boot` boots it: a disk that is no image gets no other disk beside it."""
    nonce = secrets.token_hex(16)
    image = convert(system_disk(tmp_path, kernel(cache), nonce, None), "zlib")
    for name in ("x64", "host"):
        (tmp_path / name).symlink_to(build / name)
    said_by("-m", "images.stick", "--build", tmp_path, "--image", image)
    stick = tmp_path / "stick.raw"
    said = said_by("tests/rig/boot.py", "--build", tmp_path, "--disk", stick)
    assert "qcow2: choose an image" in said and " > system" in said
    assert demo.judge(said, demo.dead_end(said), True, True, nonce) is None
    assert not (tmp_path / "boot/esp.raw").exists()
    content = image.read_bytes()
    assert disks.partition_bytes(stick, 2)[:len(content)] == content
