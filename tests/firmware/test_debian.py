# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A whole Debian boots to its login with its root file system in a qcow2: only in make test-all.

Its files are fetched once, by debootstrap, and kept in build/cache; that needs root.
"""

import os
import subprocess
import sys

import pytest

import debian
from images.debian import cloud

TIMEOUT_S = 3000  # two boots, and the first time debootstrap


@pytest.fixture(autouse=True)
def is_worth_it(request):
    if not request.config.getoption("--long"):
        pytest.skip("a long test: make test-all")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")


@pytest.mark.parametrize("options,verdict", [
    ([], "run: Debian reached twice, its root in the image, and the image is clean"),
    (["--break", "digest"], "run: FAILED: the initramfs does not attach the image: qcow2: "),
], ids=["whole", "digest"])
def test_debian(build, tmp_path, options, verdict):
    """What `make run IMAGE=debian` does, and with BREAK=digest."""
    (tmp_path / "x64").symlink_to(build / "x64")
    done = subprocess.run([sys.executable, "-B", debian.__file__, "--build", tmp_path, *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=TIMEOUT_S, check=False)
    assert done.stdout.splitlines()[-1].startswith(verdict)
    assert done.returncode == (1 if options else 0)


def test_cloud_image_on_a_stick(build, cache, tmp_path):
    """Compressed, with GRUB and its kernel in the root file system, on what `make stick` makes."""
    for name in ("x64", "host"):
        (tmp_path / name).symlink_to(build / name)
    subprocess.run([sys.executable, "-B", "-m", "images.stick", "--build", tmp_path,
                    "--image", cloud(cache)], cwd=debian.ROOT, timeout=300, check=True)
    assert debian.boot_twice(debian.Image([tmp_path / "stick.raw"], "partition"), tmp_path) is None
