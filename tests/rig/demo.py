# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots a Linux that lies in a qcow2, through the driver, and says whether it was reached.

Promises: exit status 0 only if the system inside the qcow2 printed the nonce that was put there for
this very run, found its payload unharmed, and the machine then ended by itself; where the qcow2 has
a base, only if that is afterwards as it was. Everything else ends with a line "run: FAILED: ..."
that names what was not reached, and status 1; a machine that hangs is ended. The console is shown
as it comes, without cursor movements; stdin is not read.
"""

import argparse
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from images.demo import BREAKS, IMAGES, LAYOUTS, demo_disks  # noqa: E402  (the path comes first)

# Some 20 s where the processor is free; the rest is for slow and busy machines.
BOOT_TIMEOUT_S = 150
END_TIMEOUT_S = 10
MEMORY_MIB = 512

ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[=>78A-Z])")
HALF_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?=]*|[()])?$")
VERDICT = re.compile(r"qcow2-efi: inside, nonce ([0-9a-f]+), payload (\w+)")
# After any of these nothing more will come: the firmware went on to its shell, or the system died.
# The last line that matches the third column tells why.
DEAD_ENDS = (
    (r"EFI stub: ERROR: Failed to decompress.*\n", "the kernel in the qcow2 is damaged",
     r"^EFI stub: WARNING: .*$"),
    (r"-- System halted", "the kernel in the qcow2 is damaged", r"^(?!.*System halted).*\w.*$"),
    (r"BdsDxe: failed to start .*\n", "the boot program gave up",
     r"^(?:qcow2: (?!starting )|EFI stub: |Error ).*$"),
    (r"UEFI Interactive Shell|Shell> |BdsDxe: No bootable option",
     "the firmware found nothing to start", r"^(?:qcow2|BdsDxe): .*$"),
    (r"Kernel panic.*\n", "the system inside the qcow2 died", r"Kernel panic.*$"),
)


def console(qemu, deadline):
    """Yields the machine's console as it comes, without escape sequences, until it ends."""
    pending = b""
    while time.monotonic() < deadline:
        if not select.select([qemu.stdout], [], [], 0.5)[0]:
            continue
        chunk = os.read(qemu.stdout.fileno(), 65536)
        if not chunk:
            return
        pending = ESCAPE.sub(b"", pending + chunk)
        half = HALF_ESCAPE.search(pending)
        cut = half.start() if half else len(pending)
        yield pending[:cut].decode("ascii", "replace").replace("\r", "")
        pending = pending[cut:]


def dead_end(text):
    """What ended the boot, and the line that tells why; None while there is hope."""
    for pattern, meaning, reason in DEAD_ENDS:
        found = re.search(pattern, text)
        if found:
            reasons = re.findall(reason, text[:found.end()], re.MULTILINE)
            return ": ".join([meaning] + [line.strip() for line in reasons[-1:]])
    return None


def watch(qemu, deadline):
    """Shows the console to its end. Returns what was said, and the dead end met or None."""
    text = ""
    for piece in console(qemu, deadline):
        sys.stdout.write(piece)
        sys.stdout.flush()
        text += piece
        if end := dead_end(text):
            return text, end
    return text, None


def finish(qemu):
    """True if the machine ends by itself and well; one that does not is ended."""
    try:
        return qemu.wait(END_TIMEOUT_S) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        qemu.kill()
        qemu.wait()


def judge(text, end, ended, in_time, nonce):
    """The reason why the run failed, or None."""
    verdict = VERDICT.search(text)
    if end:
        return end
    if not verdict:
        if not in_time:
            return f"no system reached within {BOOT_TIMEOUT_S} s"
        return "the machine ended without reaching the system inside the qcow2"
    if verdict.group(1) != nonce:
        return f"a system was reached, but not this run's: nonce {verdict.group(1)}, not {nonce}"
    if verdict.group(2) != "ok":
        return "the system inside the qcow2 was reached, but its payload is damaged"
    return None if ended else "the system was reached, but the machine did not power off"


def boot(command, nonce):
    """Boots, watches, and returns the reason of the failure or None."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as qemu:
        try:
            text, end = watch(qemu, deadline)
            in_time = time.monotonic() < deadline
            if end or not in_time:
                qemu.kill()
            ended = finish(qemu)
        finally:
            qemu.kill()
    return judge(text, end, ended and in_time, in_time, nonce)


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0])
    parser.add_argument("--image", choices=IMAGES, default=IMAGES[0])
    parser.add_argument("--break", dest="broken", choices=BREAKS)
    return parser.parse_args()


def run(options):
    """Makes the disks and boots them; the reason of the failure or None."""
    folder = options.build / "demo"
    print("run: making the disks", flush=True)
    try:
        demo = demo_disks(folder, ROOT / "build/cache", options.build / "x64/qcow2x64.efi",
                          options.build / "x64/qcow2.efi", options.layout, options.broken,
                          options.image)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"the disks could not be made: {error}"
    command = machine.firmware(folder) + ["-m", str(MEMORY_MIB), "-serial", "stdio"]
    for number, path in enumerate(demo.disks):
        command += machine.attach(machine.Disk(path, slot=0x10 + number))
    print(f"run: booting, layout {options.layout}, image {options.image}, "
          f"at most {BOOT_TIMEOUT_S} s", flush=True)
    failure = boot(command, demo.nonce)
    if demo.base and demo.sum_of_base() != demo.base_sum:
        return "the overlay's base was written"
    return failure


def main():
    failure = run(parse_options())
    print(f"\nrun: FAILED: {failure}" if failure else
          "\nrun: Linux reached through the driver, nonce equal", flush=True)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
