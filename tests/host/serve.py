# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The plugin behind nbdkit, for one test: started, used, ended; only this server is ended.

Promises: a server that does not start, does not end or does not end well is an error of the test;
everything has a time-out. With `record`, what it asks of the image's file is written down.
"""

import os
import struct
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

CLIENT_SECONDS_MAX = 120
SERVER_SECONDS_MAX = 20
DATA_FILE = "data.raw"  # an image's own one, beside it, is recorded with it
READ, WRITE, FLUSH, TRIM, GROW, ZERO = range(6)  # as tests/host/recorder.c numbers them


def plugin_of(build):
    return build / "host" / "nbdkit-qcow2efi-plugin.so"


def recording(build, image, record, content):
    """The environment in which a server writes down what it asks of the image's file."""
    env = dict(os.environ, LD_PRELOAD=str(build / "host" / "recorder.so"), RECORD_FILE=str(image),
               RECORD_LOG=str(record))
    if content:
        env["RECORD_CONTENT"] = "1"
    if (image.parent / DATA_FILE).exists():
        env["RECORD_DATA"] = str(image.parent / DATA_FILE)
    return env


@contextmanager
def export(build, folder, image, *parameters, record=None, content=False, limit_kib=None):
    """The plugin serves image; gives the socket's path. At the end the image is closed.

    record: the file that tells what was asked of the image's file, with content also the bytes that
    were written; limit_kib: no file gets larger.
    """
    path, ready = folder / "nbd.sock", folder / "nbd.pid"
    command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", path, "--pidfile", ready,
               plugin_of(build), f"file={image}", *parameters]
    if limit_kib:
        # The signal would end the server where the call is to fail. The shell counts in KiB.
        command = ["bash", "-c", f'trap "" XFSZ; ulimit -f {limit_kib}; exec "$@"', "-", *command]
    env = recording(build, image, record, content) if record else None
    with running(command, path, ready, env):
        yield path


@contextmanager
def export_by_qemu(build, folder, image, record):
    """The same by QEMU, cache=writeback, discards passed on."""
    path, ready = folder / "qemu.sock", folder / "qemu.pid"
    command = ["qemu-nbd", "--persistent", "--socket", path, "--pid-file", ready, "--format=qcow2",
               "--cache=writeback", "--discard=unmap", image]
    with running(command, path, ready, recording(build, image, record, content=True)):
        yield path


@contextmanager
def running(command, path, ready, env):
    server = subprocess.Popen(command, env=env)
    try:
        deadline = time.monotonic() + SERVER_SECONDS_MAX
        while not ready.exists():
            assert server.poll() is None, "the server ended before it served"
            assert time.monotonic() < deadline, "the server does not serve"
            time.sleep(0.005)
        yield
        server.terminate()
        server.wait(timeout=SERVER_SECONDS_MAX)
    finally:
        if server.poll() is None:  # the test failed; a client may hold it up
            server.kill()
            server.wait(timeout=SERVER_SECONDS_MAX)
        ready.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    assert server.returncode == 0, f"the server ended with {server.returncode}"


def client(*args, status=0):
    """Runs a program that must end with this status; what it said on its standard output."""
    run = subprocess.run([str(arg) for arg in args], timeout=CLIENT_SECONDS_MAX, check=False,
                         stdout=subprocess.PIPE, text=True)
    assert run.returncode == status, f"{args} ended with {run.returncode}: {run.stdout}"
    return run.stdout


@dataclass(frozen=True)
class Call:
    """One call that the server made on the image's file."""

    kind: int
    offset: int
    length: int
    content: bytes  # of a write, where it was wanted
    file: int  # 0: the image's, 1: its data file


def recorded(path, content=False):
    log, at, calls = path.read_bytes(), 0, []
    while at < len(log):
        kind, offset, length = struct.unpack_from("=QQQ", log, at)
        file, kind = divmod(kind, 256)
        at += 24
        written = log[at:at + length] if content and kind == WRITE else b""
        at += len(written)
        calls.append(Call(kind, offset, length, written, file))
    return calls
