# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs scripts of the test agent (tests/firmware/agent) in OVMF, with disks of the test's choice.

The firmware boots once; its state is saved while the agent waits for orders, keyed by all that it
depends on. run() restores it with the test's own disks, which the firmware has not looked at yet,
in half a second. NVMe devices cannot be saved by this QEMU: cold=True boots afresh.

Promises: a disk is never written (writes are thrown away), but for a Kept one, which the test made
for this; every machine ends in time or is ended; a script that did not run to its end raises
VmError, with the last lines of both consoles.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import machine
from images import disks
from images.lock import alone

# PCI device numbers. AHCI is part of the chipset and always there; NVMe only in cold machines.
ESP_SLOT = 0x0F
SLOTS = {"virtio": 0x10, "scsi": 0x11, "usb": 0x12, "nvme": 0x18, "ahci": 0x1F}
SAVED_DEVICES = ("virtio", "scsi", "usb", "ahci")
SCRIPT_BYTES = 8192
MEMORY_MIB = 128
BOOT_TIMEOUT_S = 180
RUN_TIMEOUT_S = 120
STATES_KEPT = 4
EXIT_GOOD = 0x10 << 1 | 1
EXIT_OFF = 0  # the firmware shut the machine down
TAIL_LINES = 25


class VmError(Exception):
    pass


class Kept(machine.Disk):
    """A disk that keeps what the machine writes: a private copy of the test."""


def pattern(seed, first_sector, sectors_count):
    """The agent's content (changes.c): what sectors hold after its order "write"."""
    first, mask = first_sector * 64, 2 ** 64 - 1
    words = (((seed << 48 ^ (first + number)) & mask) * 0x9E3779B97F4A7C15 & mask
             for number in range(sectors_count * 64))
    return struct.pack(f"<{sectors_count * 64}Q", *words)


class Report:
    """What the agent said: lines "order: key=value ..."."""

    def __init__(self, text):
        self.lines = text.splitlines()

    def all(self, order):
        """The answers to one order, each as a dictionary of texts."""
        answers = [line[len(order) + 1:] for line in self.lines if line.startswith(f"{order}:")]
        return [dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", answer)) for answer in answers]

    def one(self, order):
        answers = self.all(order)
        if len(answers) != 1:
            raise VmError(f"{len(answers)} answers to {order}, not one:\n" + "\n".join(self.lines))
        return answers[0]

    def console(self):
        """The lines that the firmware's console got, as far as the orders "console" asked."""
        mark = "console| "
        return [line[len(mark):] for line in self.lines if line.startswith(mark)]


def agent_disk(folder, build):
    """The disk the machine boots: the agent as its loader, the driver beside it."""
    esp = disks.make_esp(folder / "esp.fat", build / "x64/qcow2x64.efi", build / "x64/agent.efi")
    return disks.write_gpt(folder / "esp.raw", [(disks.ESP_TYPE, esp)], name="agent")


def command_line(scratch, esp, attached, go):
    """The machine with its channels in scratch: debug (the agent), serial, script."""
    words = machine.firmware(scratch) + [
        "-m", str(MEMORY_MIB), "-serial", f"file:{scratch}/serial",
        "-debugcon", f"file:{scratch}/debug", "-global", "isa-debugcon.iobase=0x402",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-fw_cfg", f"name=opt/qcow2/go,string={go}",
        "-fw_cfg", f"name=opt/qcow2/script,file={scratch}/script"]
    # Only the agent's disk is bootable: the firmware then leaves the others alone until told.
    everything = [machine.Disk(esp, slot=ESP_SLOT, bootindex=0)] + attached
    for disk in everything:
        words += machine.attach(disk if isinstance(disk, Kept) else replace(disk, snapshot=True))
    return words


def write_script(scratch, orders):
    """Always of one length: a saved state remembers the length of what fw_cfg offers."""
    text = "\n".join(orders) + "\n"
    if len(text) > SCRIPT_BYTES:
        raise VmError(f"the script is longer than {SCRIPT_BYTES} bytes")
    (scratch / "script").write_text(text.ljust(SCRIPT_BYTES, "\n"))


def read_text(path):
    content = path.read_bytes() if path.exists() else b""
    return re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\r", "", content.decode("ascii", "replace"))


def failure(scratch, why):
    """An exception that shows what was last said on both consoles."""
    parts = [why]
    for name in ("debug", "serial"):
        tail = "\n".join(read_text(scratch / name).splitlines()[-TAIL_LINES:])
        parts.append(f"--- last lines of {name}:\n{tail}")
    return VmError("\n".join(parts))


def empty_disk(cache):
    """What stands in the slots that a test does not use."""
    path = cache / "vm" / "empty.raw"
    with alone(path):
        if not path.exists():
            path.write_bytes(bytes(disks.MIB))
    return path


def saved_slots(cache, wanted):
    """One disk for every slot of the saved machine."""
    by_device = {disk.device: disk for disk in wanted}
    if len(by_device) != len(wanted) or not set(by_device) <= set(SAVED_DEVICES):
        raise VmError(f"the saved machine has one slot each of {', '.join(SAVED_DEVICES)}")
    empty = machine.Disk(empty_disk(cache))
    return [replace(by_device.get(device, empty), device=device, slot=SLOTS[device])
            for device in SAVED_DEVICES]


def state_key(build):
    """All that a saved state depends on."""
    version = subprocess.run([machine.QEMU, "--version"], capture_output=True, check=True,
                             timeout=RUN_TIMEOUT_S).stdout
    with tempfile.TemporaryDirectory() as scratch:
        line = command_line(scratch, "esp", saved_slots(Path(scratch), []), 0)
        shape = " ".join(line).replace(scratch, "")
    parts = [version, shape.encode(), (machine.FIRMWARE / "OVMF_CODE_4M.fd").read_bytes(),
             (build / "x64/agent.efi").read_bytes(), (build / "x64/qcow2x64.efi").read_bytes()]
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(digests).hexdigest()[:16]


def monitor(qemu, command, **arguments):
    """One command to QEMU's monitor, on its stdin and stdout; the answer."""
    qemu.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qemu.stdin.flush()
    for line in qemu.stdout:
        answer = json.loads(line)
        if "return" in answer or "error" in answer:
            return answer
    raise VmError(f"QEMU ended at {command}")


def wait_for(condition, qemu):
    """Polls; the caller's timer ends the machine, and with it this, when it takes too long."""
    while not condition():
        if qemu.poll() is not None:
            raise VmError("the machine ended while its state was being saved")
        time.sleep(0.05)


def save_state(qemu, scratch):
    wait_for(lambda: "READY" in read_text(scratch / "debug"), qemu)
    monitor(qemu, "qmp_capabilities")
    monitor(qemu, "migrate-set-parameters", **{"max-bandwidth": 10 ** 10})
    monitor(qemu, "migrate", uri="exec:cat >vm.state")

    def completed():
        status = monitor(qemu, "query-migrate")["return"].get("status")
        if status == "failed":
            raise VmError("QEMU could not save the machine's state")
        return status == "completed"

    wait_for(completed, qemu)
    monitor(qemu, "quit")


def make_state(folder, build, cache):
    """Boots the machine until the agent waits, and saves it in folder."""
    esp = agent_disk(folder, build)
    write_script(folder, [])
    command = command_line(folder, esp, saved_slots(cache, []), 0) + ["-qmp", "stdio"]
    with subprocess.Popen(command, cwd=folder, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as qemu:
        limit = threading.Timer(BOOT_TIMEOUT_S, qemu.kill)
        limit.start()
        try:
            save_state(qemu, folder)
        except (VmError, OSError) as error:
            raise failure(folder, str(error)) from error
        finally:
            limit.cancel()
            qemu.kill()


def saved_state(build, cache):
    """The folder of the saved state, made on the first call; those long unused are removed."""
    folder = cache / "vm" / state_key(build)
    with alone(cache / "vm" / "states"):
        if not (folder / "vm.state").exists():
            add_state(folder, build, cache)
        os.utime(folder / "vm.state")
    return folder


def add_state(folder, build, cache):
    scratch = folder.with_name(f"making.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    make_state(scratch, build, cache)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    states = sorted(folder.parent.glob("*/vm.state"), key=lambda path: path.stat().st_mtime)
    for old in states[:-STATES_KEPT]:
        shutil.rmtree(old.parent, ignore_errors=True)


def execute(command, scratch, timeout_s):
    """Runs the machine to its end; the agent's report."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as expired:
        raise failure(scratch, f"the machine did not end within {timeout_s} s") from expired
    said = read_text(scratch / "debug")
    if done.returncode not in (EXIT_GOOD, EXIT_OFF) or not said.endswith("END\n"):
        raise failure(scratch, f"the script did not end well ({done.returncode}): {done.stderr}")
    return Report(said)


def run(build, cache, orders, attached=(), cold=False):
    """
    Runs the orders with the disks attached: machine.Disk, whose slot is set here in the saved
    machine (one disk a device kind) and by the caller in a cold one.
    """
    with tempfile.TemporaryDirectory(prefix="qcow2-vm-") as folder:
        scratch = Path(folder)
        write_script(scratch, orders)
        if cold:
            esp = agent_disk(scratch, build)
            command = command_line(scratch, esp, list(attached), 1)
            return execute(command, scratch, BOOT_TIMEOUT_S)
        state = saved_state(build, cache)
        command = command_line(scratch, state / "esp.raw", saved_slots(cache, attached), 1)
        command += ["-incoming", f"exec:cat {state / 'vm.state'}"]
        return execute(command, scratch, RUN_TIMEOUT_S)
