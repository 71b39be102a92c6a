# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The boot program's menu, as somebody at the machine's serial line drives it.

Promises: nothing is typed before the menu is there to read it.
"""

import machine
from images.menu import make_machine

MEMORY = ["-m", "256"]
ENTER, ESC, UP, DOWN = "\r", "\x1b", "\x1b[A", "\x1b[B"


def started(folder, build, lines, images=(), attached=()):
    """The machine of these lines (images/menu.py), with more disks; for a Console."""
    disk = machine.Disk(make_machine(folder, build, lines, images))
    command = machine.firmware(folder) + MEMORY + machine.attach(disk)
    for other in attached:
        command += machine.attach(other)
    return command


def choose(console, name, key=DOWN, steps=1):
    """Stops the clock, and goes so many rows, the last of which has that name."""
    console.wait("Starts in")
    for step in range(steps):
        console.type(key)
        console.wait(f" > {name}" if step == steps - 1 else " > ")
