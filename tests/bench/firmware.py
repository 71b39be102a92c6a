# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the driver costs in firmware, beside the same disk without it, in the same machine.

    firmware-warm   4 KiB reads whose tables are in memory, of a disk in memory: instructions of
                    the guest above those of the disk's own reads
    firmware-boot   the demo's Linux, from a qcow2 and from a raw disk: operations on that disk
    firmware-speed  reads of an image on virtio-blk and of that disk, in turn in one boot: time

Promises: the first two are counts, which a busy machine does not change. The third is the one time
that is measured: the median of the shares of some rounds, so that it means something at all.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from players import Failure
from prepare import create, run
from rows import NO_MUST, Goal
from traces import KIB, MIB

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/rig")]

import demo  # noqa: E402  (the path comes first)
import machine  # noqa: E402
import vm  # noqa: E402
from images.demo import demo_disks  # noqa: E402

LOAD = "load \\EFI\\BOOT\\qcow2x64.efi"
# Time that passes with each instruction and by nothing else: a tick of the counter is one.
COUNTING = ["-icount", "shift=0,sleep=off"]
MEMORY_DISK_BYTES = 2 * MIB  # as tests/firmware/agent/bench.c has it
WARM_GUEST = MIB
WARM_READS = 1000
DISK_SLOT = 0x11
SPEED_GUEST = 64 * MIB
SPEED_ROUNDS = 5
# (figure, bytes, reads a round, units from one to the next)
SPEED_READS = (("small", 4 * KIB, 2000, SPEED_GUEST // (4 * KIB) * 618 // 1000 | 1),
               ("large", MIB, 64, 1))
POLL_S = 0.5


def field(name):
    return lambda counts: counts[name]


GOALS = (
    Goal("firmware-warm", "instructions of a 4 KiB read", field("instructions"), 400, 200),
    Goal("firmware-warm", "operations below it", field("operations"), 1, 1),
    Goal("firmware-boot", "operations, times the disk's", field("share"), 1.10, 1.03),
    Goal("firmware-speed", "4 KiB, random: time, times the disk's", field("small"), NO_MUST,
         1 / 0.95),
    Goal("firmware-speed", "1 MiB, in order: time, times the disk's", field("large"), NO_MUST,
         1 / 0.95),
)


def mapped_image(path, size):
    """All of it is mapped, in one run, and no zeros."""
    create(path, size, "preallocation=metadata")
    run("qemu-io", "-c", f"write -q -P 255 0 {size}", path)


def agent_report(build, folder, orders, attached=(), options=()):
    """What the agent says of these orders after a boot of its own."""
    vm.write_script(folder, orders)
    command = vm.command_line(folder, vm.agent_disk(folder, build), list(attached), 1)
    return vm.execute(command + list(options), folder, vm.BOOT_TIMEOUT_S)


# ---- firmware-warm ---------------------------------------------------------------------------


def warm(build, folder):
    image = folder / "memory.qcow2"
    mapped_image(image, WARM_GUEST)
    with open(image, "r+b") as file:
        file.truncate(MEMORY_DISK_BYTES)
    report = agent_report(build, folder, [LOAD, "memory", f"warm {WARM_READS}"], options=[
        "-fw_cfg", f"name=opt/qcow2/memory,file={image}", *COUNTING])
    counted = {name: int(value) / WARM_READS for name, value in report.one("warm").items()}
    if 0 in counted.values() or not counted:
        raise Failure("firmware-warm: a read failed:\n" + "\n".join(report.lines))
    return ({"instructions": counted["image"] - counted["below"], "operations": counted["reads"]},
            {"instructions": counted["below"], "operations": 1})


# ---- firmware-boot ---------------------------------------------------------------------------


def verdict_of(qemu, serial, deadline):
    """What the system says of itself, once it does."""
    while time.monotonic() < deadline and qemu.poll() is None:
        if found := demo.VERDICT.search(vm.read_text(serial)):
            return found
        time.sleep(POLL_S)
    tail = "\n".join(vm.read_text(serial).splitlines()[-vm.TAIL_LINES:])
    raise Failure(f"firmware-boot: no system was reached:\n{tail}")


def boot_operations(folder, boot_disk, system, nonce, bootindex=-1):
    """Operations on the system's disk until the system inside it has checked its payload."""
    serial = folder / "serial"
    serial.unlink(missing_ok=True)
    # Without -no-shutdown the machine would be gone before it is asked.
    command = machine.firmware(folder) + ["-m", str(demo.MEMORY_MIB), "-serial", f"file:{serial}",
                                          "-no-shutdown", "-qmp", "stdio"]
    command += machine.attach(machine.Disk(boot_disk, slot=DISK_SLOT - 1, snapshot=True))
    command += machine.attach(machine.Disk(system, slot=DISK_SLOT, snapshot=True,
                                           bootindex=bootindex))
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as qemu:
        limit = threading.Timer(demo.BOOT_TIMEOUT_S + demo.END_TIMEOUT_S, qemu.kill)
        limit.start()
        try:
            vm.monitor(qemu, "qmp_capabilities")
            said = verdict_of(qemu, serial, time.monotonic() + demo.BOOT_TIMEOUT_S)
            devices = vm.monitor(qemu, "query-blockstats")["return"]
        finally:
            limit.cancel()
            qemu.kill()
    if said.groups() != (nonce, "ok"):
        raise Failure(f"firmware-boot: not the system of this run: {said.group()}")
    stats = next(one["stats"] for one in devices if one["device"] == f"d{DISK_SLOT:x}")
    return {name: stats[f"{key}_operations"]
            for name, key in (("reads", "rd"), ("writes", "wr"), ("flushes", "flush"))}


def boot(build, folder):
    """The machine is the same; the raw disk is booted first, so that only its own needs count."""
    made = demo_disks(folder, ROOT / "build/cache", build / "x64/qcow2x64.efi",
                      build / "x64/qcow2.efi", "disk")
    first, image = made.disks
    ours = boot_operations(folder, first, image, made.nonce)
    raw = boot_operations(folder, first, image.with_suffix(".raw"), made.nonce, bootindex=0)
    return ours | {"share": sum(ours.values()) / sum(raw.values())}, raw | {"share": 1}


# ---- firmware-speed --------------------------------------------------------------------------


def speed(build, folder):
    image = folder / "speed.qcow2"
    mapped_image(image, SPEED_GUEST)
    round_orders = [f"race {size} {count} {step} {SPEED_GUEST // size}"
                    for _, size, count, step in SPEED_READS]
    # The first round warms all caches, of the driver and of the host.
    report = agent_report(build, folder, [LOAD, "connect", f"select {DISK_SLOT}"]
                          + round_orders * (1 + SPEED_ROUNDS),
                          [machine.Disk(image, slot=DISK_SLOT)])
    races = report.all("race")
    if any(race.get("status") != "SUCCESS" for race in races):
        raise Failure(f"firmware-speed: a read failed: {races}")
    shares = [int(race["image"]) / int(race["below"]) for race in races[len(SPEED_READS):]]
    figures = {name: statistics.median(shares[i::len(SPEED_READS)])
               for i, (name, *_) in enumerate(SPEED_READS)}
    return figures, dict.fromkeys(figures, 1)


ROWS = {"firmware-warm": warm, "firmware-boot": boot, "firmware-speed": speed}


def measure(name, build, work):
    """(figures of the image, of the disk alone)"""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        try:
            return ROWS[name](build.resolve(), Path(folder))
        except (vm.VmError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise Failure(f"{name}: {error}") from error
