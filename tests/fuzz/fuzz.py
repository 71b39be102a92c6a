# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fuzzes the engine: runs each target for its share of the time and prints what was done.

`fuzz.py --build DIR --time SECONDS` starts each target from the seeds (seeds.py) and what earlier
runs kept in DIR/fuzz/corpus, and closes with a table: executions, executions a second, the share of
inputs that got past open, covered edges, findings. Exit status 1 where there is a finding; its
input stays in DIR/fuzz/found and the line that says what was broken is printed.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import seeds  # noqa: E402

# Share of the time, and the longest input.
TARGETS = {"header": (1, 4096), "tables": (2, 392), "driver": (5, 392), "decode": (1, 8192),
           "config": (1, 2048)}
SLACK_S = 60
INPUT_S = 25  # a single one that takes longer is a finding


def write_seeds(folder, target):
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds.seeds()[target]):
        (folder / f"seed{number:02}").write_bytes(content)


def run_target(build, target, options, timeout_s, corpus=None, bug=None):
    """(exit status, all that libFuzzer and the target said)"""
    corpus = corpus or build / "fuzz" / "corpus" / target
    found = build / "fuzz" / "found"
    found.mkdir(parents=True, exist_ok=True)
    write_seeds(corpus, target)
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", QC_FUZZ_SEED=bug or "none")
    program = build / "host" / "fuzz" / target
    run = subprocess.run(
        [program, f"-max_len={TARGETS[target][1]}", "-len_control=0", f"-timeout={INPUT_S}",
         f"-artifact_prefix={found / target}-", "-print_final_stats=1", *options, corpus],
        capture_output=True, text=True, errors="replace", env=env, timeout=timeout_s, check=False)
    return run.returncode, run.stderr


def figures(said):
    """What a run said of itself; a run that ended with a finding says less."""
    count = re.search(r"fuzz: (\d+) inputs, (\d+) past open, (\d+) calls", said)
    executed = re.findall(r"^#(\d+)", said, re.MULTILINE)
    edges = re.findall(r"cov: (\d+)", said)
    total = re.search(r"\((\d+) inline 8-bit counters\)", said)
    inputs, opened = (int(count[1]), int(count[2])) if count else (0, 0)
    return {"executions": inputs or int(executed[-1] if executed else 0),
            "past_open": 100 * opened // inputs if inputs else 0,
            "edges": int(edges[-1]) if edges else 0, "of": int(total[1]) if total else 0}


def broken(said):
    """The line that says what was broken, or ""."""
    match = re.search(r"fuzz: broken promise: .*|.*runtime error: .*|.*ERROR: .*", said)
    return match[0] if match else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--time", type=int, default=60)
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    args = parser.parse_args()
    build = Path(args.build).resolve()
    targets = [args.target] if args.target else list(TARGETS)
    shares = sum(TARGETS[target][0] for target in targets)
    rows, findings = [], []
    for target in targets:
        time_s = max(1, args.time * TARGETS[target][0] // shares)
        status, said = run_target(build, target, [f"-max_total_time={time_s}"], time_s + SLACK_S)
        numbers = figures(said)
        if status != 0:
            kept = re.search(r"Test unit written to (\S+)", said)
            findings.append(f"{target}: {broken(said)}\n  input: {kept[1] if kept else 'none'}")
        rows.append((target, numbers["executions"], numbers["executions"] // time_s,
                     f"{numbers['past_open']} %", f"{numbers['edges']} of {numbers['of']}",
                     int(status != 0)))
    print(f"{'target':8}{'executions':>12}{'a second':>10}{'past open':>11}"
          f"{'covered edges':>18}{'findings':>10}")
    for row in rows:
        print(f"{row[0]:8}{row[1]:>12}{row[2]:>10}{row[3]:>11}{row[4]:>18}{row[5]:>10}")
    print("\n".join(findings))
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
