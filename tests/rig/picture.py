# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes a picture of the boot program's menu, as a screen shows it: BUILD/menu.png.

Promises: the menu is on the picture, because the machine's other console, the serial line, has said
so; the machine ends with the program.
"""

import argparse
import sys
from pathlib import Path

import machine
from console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from images.menu import make_image, make_machine  # noqa: E402  (the path comes first)

SCREEN = ["-device", "VGA"]
MEMORY = ["-m", "256"]
LINES = ("timeout 3", "default debian", "image debian", "file \\vm\\debian.qcow2",
         "headroom 2M", "image try-it", "file \\vm\\debian.qcow2", "temporary yes",
         "image rescue", "file \\vm\\rescue.qcow2", "readonly yes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    build = parser.parse_args().build.resolve()
    folder = build / "picture"
    folder.mkdir(parents=True, exist_ok=True)
    images = [make_image(folder, name) for name in ("debian", "rescue")]
    disk = machine.Disk(make_machine(folder, build, LINES, images))
    command = machine.firmware(folder) + MEMORY + SCREEN + machine.attach(disk)
    with Console(command, folder) as console:
        console.wait("Starts in 2")
        console.ask("screendump", filename=str(build / "menu.png"), format="png")
    print(f"{build / 'menu.png'}: the menu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
