# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`make bench ONLY=growth`: how the cost of allocating grows with what it depends on.

Promises: one thing is changed at a time (size of the disk, number of requests, size of a cluster,
memory), the rest is as in row W2: random writes of 4 KiB into an empty image of 64 GiB with
clusters of 64 KiB, 1280 KiB of memory, one flush at the end. The image is checked after each.

The images lie in the system's memory where it has a folder for that, and are removed: a file of a
million pieces takes some file systems an hour to delete.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

import players
import prepare
import report
from traces import GIB, KIB, MIB, flushed, scattered

TIB = 1 << 40
IN_MEMORY = Path("/dev/shm")
REQUESTS = 10_000
MEASURES = ("meta_reads", "meta_writes", "flushes", "meta_write_bytes")
HEADS = ("metadata reads", "metadata writes", "flushes", "metadata written")
COLORS = ("#48c", "#c33", "#2a7", "#b80")

PANEL_WIDTH, PANEL_HEIGHT, GAP, TOP, LOW = 440, 250, 90, 60, 1.0


def shape(size=prepare.GUEST, requests=REQUESTS, cluster=prepare.CLUSTER, pool=players.POOL_KIB):
    return {"size": size, "requests": requests, "cluster": cluster, "pool": pool}


AXES = (
    ("disk", [("1 GiB", shape(size=GIB)), ("64 GiB", shape()), ("2 TiB", shape(size=2 * TIB)),
              ("64 TiB", shape(size=64 * TIB))]),
    ("requests", [(f"{count:,}", shape(requests=count))
                  for count in (1_000, 10_000, 100_000, 1_000_000)]),
    ("cluster", [(f"{size // KIB} KiB", shape(cluster=size))
                 for size in (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 2 * MIB)]),
    ("memory", [(f"{pool} KiB", shape(pool=pool)) for pool in (256, 512, 1280, 4096, 8192)]),
)


def play(options, work, wanted):
    """What one shape costs."""
    source = work / "source.qcow2"
    source.unlink(missing_ok=True)
    prepare.create(source, wanted["size"], cluster=wanted["cluster"])
    trace = flushed(scattered("W", options.seed, wanted["size"], 4 * KIB, wanted["requests"]))

    def with_memory(*arguments):
        return players.play_ours(*arguments, pool_kib=wanted["pool"])

    counted, image = players.play(options.build, work / "ours", with_memory, source, "w", trace)
    players.check(image)
    shutil.rmtree(work / "ours")
    return counted


# ---- the picture -----------------------------------------------------------------------------


def height_of(value, most):
    return (PANEL_HEIGHT - 40) * math.log(max(value, LOW) / LOW) / math.log(most / LOW)


def panel(x, y, axis, points, most):
    """Lines over the values of one axis, logarithmic upward; 0 is drawn as 1."""
    bottom = y + PANEL_HEIGHT - 20
    step = PANEL_WIDTH / len(points)
    parts = [report.text(x, y + 10, f"by {axis}"),
             f'<rect x="{x}" y="{bottom - PANEL_HEIGHT + 40}" width="{PANEL_WIDTH}" '
             f'height="{PANEL_HEIGHT - 40}" fill="none" stroke="#ddd"/>']
    for power in range(int(math.log10(most)) + 1):
        at = bottom - height_of(10 ** power, most)
        parts.append(f'<line x1="{x}" y1="{at:.1f}" x2="{x + PANEL_WIDTH}" y2="{at:.1f}" '
                     'stroke="#eee"/>')
        parts.append(report.text(x - 5, at + 4, f"{10 ** power:,}", "end", "#666"))
    for i, (label, _) in enumerate(points):
        parts.append(report.text(x + step * (i + 0.5), bottom + 15, label, "middle", "#666"))
    for measure, color in zip(MEASURES[:3], COLORS):
        line = " ".join(f"{x + step * (i + 0.5):.1f},{bottom - height_of(cost[measure], most):.1f}"
                        for i, (_, cost) in enumerate(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
    return parts


def picture(results):
    most = max(cost[measure] for points in results.values() for _, cost in points
               for measure in MEASURES[:3])
    most = 10 ** math.ceil(math.log10(max(most, 10)))
    parts = [report.text(GAP + 160 * i, 25, head, fill=color)
             for i, (head, color) in enumerate(zip(HEADS[:3], COLORS))]
    for i, (axis, points) in enumerate(results.items()):
        parts += panel(GAP + i % 2 * (PANEL_WIDTH + GAP), TOP + i // 2 * (PANEL_HEIGHT + 30), axis,
                       points, most)
    return report.svg(2 * (PANEL_WIDTH + GAP) + GAP, TOP + 2 * (PANEL_HEIGHT + 30), parts)


def measure(options, work):
    """{axis: [(label, cost)]}, and the table's lines, each printed as it is done."""
    form = "{:<10}{:>12}{:>18}{:>18}{:>12}{:>18}"
    lines = [form.format("by", "", *HEADS)]
    results = {}
    for axis, points in AXES:
        results[axis] = []
        for label, wanted in points:
            cost = play(options, work, wanted)
            results[axis].append((label, cost))
            lines.append(form.format(axis, label, *(
                report.number(cost[name], "B" if name.endswith("bytes") else "")
                for name in MEASURES)))
            print(json.dumps({"row": "growth", "by": axis, "seed": options.seed, **wanted,
                              "here": cost}) if options.json else lines[-1], flush=True)
    return results, lines


def run(options, folder):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else folder) as work:
        results, lines = measure(options, Path(work))
    (folder / "growth.txt").write_text("\n".join(lines) + "\n")
    (folder / "growth.svg").write_text(picture(results))
    return 0
