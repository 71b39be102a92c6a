# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots a machine that an upgrade has broken, goes back to the snapshot in the boot program's menu,
and boots what was before.

Promises: exit status 0 only if the image's disk did not boot as it was, and if then, in the same
run, the system of before printed this run's nonce, found its payload unharmed, and the machine
ended by itself. Everything else ends with a line "run: FAILED: ..." and status 1. The console is
shown as it comes, without cursor movements; what is typed on it is told.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import demo
import machine
from console import Console, ConsoleError

sys.path.insert(0, str(demo.ROOT))

from images.rollback import STATE, rollback_disk  # noqa: E402  (the path comes first)

ENTER = "\r"
BROKEN = r"BOOTX64\.EFI from [^\n]*: not a program for this machine"


class Shown(Console):
    """A console that is shown, and tells what is typed."""

    def read(self, timeout_s):
        before = len(self.text)
        goes_on = super().read(timeout_s)
        sys.stdout.write(self.text[before:])
        sys.stdout.flush()
        return goes_on

    def press(self, key, name, why):
        print(f"\nrun: typing {name}: {why}", flush=True)
        self.type(key)


def go_back(console):
    """What a person at the machine would do."""
    console.wait("Starts in")
    console.press(ENTER, "Enter", "boots the system, which is broken")
    console.wait(BROKEN)
    console.wait("Esc: leave")
    console.press("s", "s", "the image's snapshots")
    console.wait(f" > [^\n]*{STATE}")
    console.press("r", "r", "goes back to the snapshot")
    console.wait("y: yes")
    console.press("y", "y", "is sure")
    console.wait(f"is what it was: [^\n]*{STATE}")
    console.wait("Esc: leave")
    console.press(ENTER, "Enter", "boots the system as it was")


def run(build):
    """The reason of the failure or None."""
    folder = build / "rollback"
    print("run: making the disk, and breaking it behind a snapshot", flush=True)
    try:
        nonce, disk = rollback_disk(folder, demo.ROOT / "build/cache", build / "x64/qcow2x64.efi",
                                    build / "x64/qcow2.efi")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"the disk could not be made: {error}"
    command = machine.firmware(folder) + ["-m", str(demo.MEMORY_MIB)] \
        + machine.attach(machine.Disk(disk))
    try:
        with Shown(command, folder) as console:
            go_back(console)
            status = console.ended(demo.BOOT_TIMEOUT_S)
            return demo.judge(console.text, demo.dead_end(console.text), status == 0, True, nonce)
    except ConsoleError as error:
        return str(error).splitlines()[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    failure = run(parser.parse_args().build.resolve())
    print(f"\nrun: FAILED: {failure}" if failure else
          "\nrun: the broken system did not boot, the one of before the upgrade did, nonce equal",
          flush=True)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
