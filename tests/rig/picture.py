# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Makes a picture of the boot program's menu, as a screen shows it: BUILD/menu.svg.

Promises: the menu is on the picture, because the machine's other console, the serial line, has said
so; each dot of the screen is where it was, but for empty rows and columns around them. What looks
alike in two places of the screen is kept once, so that the picture is text of a few KiB and can be
held by the README. The machine ends with the program.
"""

import argparse
import sys
import textwrap
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
CELL = (8, 19)  # dots of a character, across and down
MARGIN = 12
COLUMNS = 90  # of the picture's text
RGB = 3


def read_ppm(data):
    """(width, height, dots), a dot being its three bytes, from what screendump writes."""
    kind, width, height, _depth, dots = data.split(maxsplit=4)
    if kind != b"P6":
        raise ValueError("not a screendump")
    width, height = int(width), int(height)
    body = data[-width * height * RGB:]
    return width, height, [body[at:at + RGB] for at in range(0, len(body), RGB)]


def rows_of(data):
    """The rows of the screen that the dots take which are not like the first, cut to them."""
    width, height, dots = read_ppm(data)
    rows = [dots[at:at + width] for at in range(0, width * height, width)]
    ground = rows[0][0]
    downs = [y for y, row in enumerate(rows) if any(dot != ground for dot in row)]
    acrosses = [x for x in range(width) if any(row[x] != ground for row in rows)]
    return ground, [row[acrosses[0]:acrosses[-1] + 1] for row in rows[downs[0]:downs[-1] + 1]]


def cells_at(rows, ground, offset):
    """{(x, y): the dots of a cell} on a grid that begins so many dots before the rows."""
    found = {}
    for y, row in enumerate(rows):
        for x, dot in enumerate(row):
            if dot != ground:
                across, down = x + offset[0], y + offset[1]
                cell = found.setdefault((across // CELL[0], down // CELL[1]), {})
                cell[across % CELL[0], down % CELL[1]] = dot
    return found


def strokes(cell):
    """The cell's dots as a path for each colour, from run to run."""
    paths, run = {}, None
    for (x, y), dot in sorted(cell.items(), key=lambda item: (item[0][1], item[0][0])):
        if run and (run[1], run[0] + run[2], run[3]) == (y, x, dot):
            run[2] += 1
        else:
            run = [x, y, 1, dot]
            paths.setdefault(dot, []).append(run)
    return "".join(f'<path stroke="#{dot.hex()}" d="' +
                   "".join(f"M{x} {y}.5h{length}" for x, y, length, _dot in runs) + '"/>'
                   for dot, runs in paths.items())


def drawn(data):
    """The screen as SVG. The grid is the one on which the fewest cells differ."""
    ground, rows = rows_of(data)
    grids = [cells_at(rows, ground, (x, y)) for x in range(CELL[0]) for y in range(CELL[1])]
    cells = {place: strokes(cell) for place, cell in min(
        grids, key=lambda grid: len({strokes(cell) for cell in grid.values()})).items()}
    names = {text: f"c{number}" for number, text in enumerate(sorted(set(cells.values())))}
    width, height = ((max(place[axis] for place in cells) + 1) * CELL[axis] + 2 * MARGIN
                     for axis in (0, 1))
    shapes = " ".join(f'<g id="{name}">{text}</g>' for text, name in names.items())
    uses = " ".join(f'<use href="#{names[text]}" x="{x * CELL[0] + MARGIN}" '
                    f'y="{y * CELL[1] + MARGIN}"/>' for (x, y), text in sorted(cells.items()))
    text = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'shape-rendering="crispEdges"> <title>The boot program\'s menu</title> '
            f'<rect width="100%" height="100%" fill="#{ground.hex()}"/> '
            f'<defs> {shapes} </defs> {uses} </svg>')
    return "\n".join(textwrap.wrap(text, COLUMNS, break_long_words=False,
                                   break_on_hyphens=False)) + "\n"


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
        console.ask("screendump", filename=str(folder / "menu.ppm"))
    (build / "menu.svg").write_text(drawn((folder / "menu.ppm").read_bytes()))
    print(f"{build / 'menu.svg'}: the menu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
