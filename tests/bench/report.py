# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Figures as a table for people, as lines of JSON, and as a picture.

Promises: nothing is rounded in JSON; in the table bytes are in KiB or MiB and a ratio says how many
times less than QEMU; the picture is plain SVG that needs no script and no font of its own.
"""

import json
import math
from xml.sax.saxutils import escape

from rows import NO_MUST, verdict
from traces import KIB, MIB

COLUMNS = "{:<12}{:<35}{:>11}{:>11}{:>11}{:>11}{:>9}  {}"
FIGURES = ("meta_reads", "meta_writes", "meta_write_bytes", "flushes", "data_reads",
           "data_read_bytes", "data_writes", "data_write_bytes")
FIGURE_HEADS = ("meta R", "meta W", "meta W B", "flushes", "data R", "data R B", "data W",
                "data W B")
OPERATIONS = ("reads", "writes", "flushes")  # of a disk in firmware

LABEL_WIDTH, PLOT_WIDTH, LINE_HEIGHT, MARGIN = 390, 520, 20, 30
LEAST = 1e-5  # of QEMU's figure: the left end of the scale
MOST = 10.0


def number(value, unit=""):
    if value == NO_MUST:
        return ""
    if unit == "B" and value >= MIB:
        return f"{value / MIB:,.2f} MiB"
    if unit == "B":
        return f"{value / KIB:.1f} KiB"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def ratio(ours, theirs):
    if ours == 0:
        return "" if theirs == 0 else "all"
    return f"{theirs / ours:,.0f}x" if theirs >= 10 * ours else f"{theirs / ours:.2f}x"


def goal_line(goal, ours, theirs):
    mine, qemu = goal.measure(ours), goal.measure(theirs)
    figures = (number(value, goal.unit) for value in (mine, goal.must, goal.aim, qemu))
    return COLUMNS.format(goal.row, goal.what, *figures, ratio(mine, qemu), verdict(goal, mine))


def goal_table(results, goals):
    """results: {row's name: (counts of this engine, counts of QEMU)}"""
    lines = [COLUMNS.format("row", "", "here", "must", "aim", "QEMU", "less by", "")]
    lines += [goal_line(goal, *results[goal.row]) for goal in goals if goal.row in results]
    return "\n".join(lines)


def count_table(results):
    """All that was counted, a line for each of the two."""
    form = "{:<12}{:<6}" + "{:>13}" * len(FIGURES)
    lines = [form.format("row", "", *FIGURE_HEADS)]
    for name, pair in results.items():
        for who, counts in zip(("here", "QEMU"), pair):
            if FIGURES[0] in counts:
                lines.append(form.format(name, who, *(
                    number(counts[figure], "B" if figure.endswith("bytes") else "")
                    for figure in FIGURES)))
    return "\n".join(lines)


def firmware_table(results, goals):
    """results: {row's name: (figures of the image, figures of the disk alone)}"""
    form = "{:<16}{:<40}{:>11}{:>11}{:>11}{:>11}  {}"
    lines = [form.format("row", "", "here", "must", "aim", "disk alone", "")]
    for goal in goals:
        if goal.row in results:
            mine, disk = (goal.measure(figures) for figures in results[goal.row])
            lines.append(form.format(goal.row, goal.what, *map(number, (mine, goal.must, goal.aim,
                                                                        disk)),
                                     verdict(goal, mine)))
    for row, (mine, disk) in results.items():
        lines += [form.format(row, kind, number(mine[kind]), "", "", number(disk[kind]), "")
                  for kind in OPERATIONS if OPERATIONS[0] in mine]
    return "\n".join(line.rstrip() for line in lines)


def json_line(name, seed, pair, goals, peer):
    """peer: what the second of the pair is called."""
    ours, theirs = pair
    judged = [{"what": goal.what, "here": goal.measure(ours), peer: goal.measure(theirs),
               "must": None if goal.must == NO_MUST else goal.must, "aim": goal.aim,
               "verdict": verdict(goal, goal.measure(ours))}
              for goal in goals if goal.row == name]
    return json.dumps({"row": name, "seed": seed, "here": ours, peer: theirs, "goals": judged})


# ---- pictures --------------------------------------------------------------------------------


def text(x, y, words, anchor="start", fill="#222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">' \
           f"{escape(words)}</text>"


def svg(width, height, parts):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                      'font-family="sans-serif" font-size="12">',
                      f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>\n"])


def scale(value):
    """The place on the plot of a share of QEMU's figure."""
    share = min(max(value, LEAST), MOST)
    return LABEL_WIDTH + PLOT_WIDTH * math.log(share / LEAST) / math.log(MOST / LEAST)


def grid(height):
    parts = []
    for power in range(round(math.log10(LEAST)), round(math.log10(MOST)) + 1):
        x = scale(10.0 ** power)
        color = "#c33" if power == 0 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" y1="{MARGIN}" x2="{x:.1f}" y2="{height - MARGIN}" '
                     f'stroke="{color}"/>')
        label = "QEMU" if power == 0 else f"{10.0 ** power:g}"
        parts.append(text(x, height - MARGIN + 15, label, "middle", "#666"))
    return parts


def goal_picture(results, goals):
    """A bar a goal: this engine's figure as a share of QEMU's, with ticks at must and aim."""
    shown = [goal for goal in goals
             if goal.row in results and goal.measure(results[goal.row][1]) > 0]
    height = 2 * MARGIN + LINE_HEIGHT * len(shown)
    colors = {"aim met": "#2a7", "must met": "#48c", "aim missed": "#48c", "MISSED": "#c33"}
    parts = grid(height)
    parts.append(text(LABEL_WIDTH, 18, "share of QEMU's figure; ticks: must, aim", fill="#666"))
    for i, goal in enumerate(shown):
        mine, qemu = (goal.measure(counts) for counts in results[goal.row])
        y = MARGIN + LINE_HEIGHT * i
        color = colors[verdict(goal, mine)]
        parts.append(text(LABEL_WIDTH - 8, y + 14,
                          f"{goal.row} {goal.what}: {number(mine, goal.unit)}", "end"))
        parts.append(f'<rect x="{LABEL_WIDTH}" y="{y + 5}" height="{LINE_HEIGHT - 8}" '
                     f'width="{scale(mine / qemu) - LABEL_WIDTH:.1f}" fill="{color}"/>')
        for limit in (goal.must, goal.aim):
            x = scale(limit / qemu)
            parts.append(f'<line x1="{x:.1f}" y1="{y + 2}" x2="{x:.1f}" '
                         f'y2="{y + LINE_HEIGHT}" stroke="#222" stroke-width="2"/>')
    return svg(LABEL_WIDTH + PLOT_WIDTH + MARGIN, height, parts)
