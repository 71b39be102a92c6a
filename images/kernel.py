# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fetches the Linux kernel of the demo: Debian's own cloud kernel, through the machine's apt.

Promises: kernel(cache_dir) returns the path of a vmlinuz below cache_dir, which holds nothing that
is not made here. The package is downloaded and unpacked, never installed; a second call finds the
file and touches no network. Only where apt knows no such package is its list updated, once.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from images.lock import alone

META_PACKAGE = "linux-image-cloud-amd64"
APT_TIMEOUT_S = 180


def apt(*command, cwd=None):
    """The output of an apt command, or None when it failed."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=APT_TIMEOUT_S)
    return done.stdout if done.returncode == 0 else None


def package_name():
    """The package that the meta package stands for today, or None when apt's lists are absent."""
    known = apt("apt-cache", "depends", META_PACKAGE) or ""
    found = re.search(r"Depends: (linux-image-\S+)", known)
    return found.group(1) if found else None


def update_lists():
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if apt(*sudo, "apt-get", "update", "-q") is None:
        raise RuntimeError("apt-get update failed; as root run: apt-get update")


def download(folder):
    """Puts the .deb into folder. Lists that are absent or name a version gone since are renewed."""
    for attempt in range(2):
        if attempt:
            update_lists()
        name = package_name()
        if name and apt("apt-get", "download", "-q", name, cwd=folder) is not None:
            return next(folder.glob("*.deb"))
    raise RuntimeError(f"apt-get download of {META_PACKAGE}'s kernel failed")


def fetch(final):
    # Built aside and renamed, so that an interrupted fetch never looks like a finished one.
    scratch = final.with_name(f"kernel.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        deb = download(scratch)
        subprocess.run(["dpkg-deb", "-x", deb, scratch / "root"], check=True, timeout=60)
        next((scratch / "root/boot").glob("vmlinuz-*")).rename(scratch / "vmlinuz")
        shutil.rmtree(scratch / "root")
        deb.unlink()
        shutil.rmtree(final, ignore_errors=True)
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def kernel(cache_dir):
    """The path of vmlinuz; fetched on the first call."""
    final = Path(cache_dir) / "kernel"
    with alone(final):
        if not (final / "vmlinuz").exists():
            fetch(final)
    return final / "vmlinuz"
