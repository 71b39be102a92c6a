# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A terminal of 80 columns and 25 rows, as somebody before it sees it.

Promises: what the firmware's serial console sends is followed (text, cursor positions, clearing);
the terminal turns the line behind its last column and moves everything up below its last row, so
that a program which counts its rows wrong is seen to. Colours and modes are left out.
"""

import re

COLUMNS, ROWS = 80, 25
PIECE = re.compile(r"\x1b\[([0-9;=?]*)([A-Za-z])|\x1b[^\[]|[\r\n\b]|[^\x1b\r\n\b]")
HALF = re.compile(r"\x1b(?:\[[0-9;=?]*)?$")


class Terminal:
    def __init__(self):
        self.cells = [[" "] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0
        self.half = ""  # the beginning of an escape sequence

    def rows(self):
        return ["".join(cells).rstrip() for cells in self.cells]

    def feed(self, text):
        text = self.half + text
        cut = found.start() if (found := HALF.search(text)) else len(text)
        self.half = text[cut:]
        for piece in PIECE.finditer(text[:cut]):
            if piece.group(2):
                self.obey(piece.group(2), [int(n) for n in re.findall(r"\d+", piece.group(1))])
            elif not piece.group().startswith("\x1b"):
                self.put(piece.group())

    def obey(self, order, numbers):
        count = numbers[0] if numbers else 1
        if order == "H":
            row, column = (numbers + [1, 1])[:2] if len(numbers) != 1 else (count, 1)
            self.row, self.column = min(row, ROWS) - 1, min(column, COLUMNS) - 1
        elif order == "C":
            self.column = min(self.column + count, COLUMNS - 1)
        elif order == "D":
            self.column = max(self.column - count, 0)
        elif order == "J":
            self.cells = [[" "] * COLUMNS for _ in range(ROWS)]

    def put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\b":
            self.column = max(self.column - 1, 0)
        elif char == "\n":
            self.down()
        elif char >= " ":
            if self.column == COLUMNS:
                self.column = 0
                self.down()
            self.cells[self.row][self.column] = char
            self.column += 1

    def down(self):
        if self.row == ROWS - 1:
            self.cells = self.cells[1:] + [[" "] * COLUMNS]
        else:
            self.row += 1
