# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Coverage of core/ by the unit tests and the crash suite, as `make cov` builds them: what is
covered of lines, branches and MC/DC, file by file, and what is not, line by line.

Promises: exit status 0 only where every program ended well, each line and branch of core/ was
covered, and in the files of MCDC_FILES each condition was shown to decide alone, but for the lines
that uncovered.txt excepts. An exception that names nothing uncovered is an error as well, and so is
one in a file of NEVER_EXCEPTED.

What only a named bug (seeded.h) reaches does not count: QC_SEED(name) is constant 0 here.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXCEPTIONS = Path(__file__).with_name("uncovered.txt")
EXCEPTIONS_MAX = 20
NEVER_EXCEPTED = {"map.c", "map.h", "epoch.c", "epoch.h", "commit.c", "alloc.c", "counts.c",
                  "refs.c"}
# Not in the driver: what it says of an image is held beside qemu-img's map, tests/host/parity.py.
ELSEWHERE = {"plot.c", "plot.h"}
MCDC_FILES = {"header.c", "extensions.c", "cache.c", "cache.h", "epoch.c", "epoch.h", "commit.c"}
PROGRAM_TIMEOUT_S = 600
LLVM = "-19"

# What the crash program adds to the unit tests.
CRASH_RUNS = [
    "faults", "random --count 30000 --cuts 300", "costs",
    *(f"all --length 2 --alphabet {alphabet}" for alphabet in ("plain", "faulty", "bulk")),
]


# ---- running ---------------------------------------------------------------------------------


def run_program(folder, raw, number, command):
    """Runs one program; the line that says what went wrong, or None."""
    env = dict(os.environ, LLVM_PROFILE_FILE=str(raw / f"{number}.profraw"))
    try:
        done = subprocess.run([folder / command[0], *command[1:]], env=env, check=False,
                              capture_output=True, timeout=PROGRAM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)}: no end after {PROGRAM_TIMEOUT_S} s"
    return f"{' '.join(command)}: status {done.returncode}" if done.returncode else None


def run_all(folder):
    """Runs everything; (lines about what failed, the merged profile)."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    for old in raw.glob("*.profraw"):
        old.unlink()
    units = sorted(path.stem for path in (ROOT / "tests" / "unit").glob("test_*.c"))
    commands = [["crash", *run.split()] for run in CRASH_RUNS]
    commands += [[name] for name in units]
    with ThreadPoolExecutor(2) as pool:
        failed = list(pool.map(lambda item: run_program(folder, raw, *item), enumerate(commands)))
    profile = folder / "all.profdata"
    subprocess.run([f"llvm-profdata{LLVM}", "merge", "-sparse", "-o", profile,
                    *sorted(raw.glob("*.profraw"))], check=True, timeout=PROGRAM_TIMEOUT_S)
    return [line for line in failed if line], profile


def export(folder, profile, form):
    """What llvm-cov has to say, as text. Every program holds all of core/, so one is enough."""
    return subprocess.run([f"llvm-cov{LLVM}", "export", f"-format={form}", "-instr-profile",
                           profile, folder / "crash"], check=True, text=True, capture_output=True,
                          timeout=PROGRAM_TIMEOUT_S).stdout


# ---- what counts -----------------------------------------------------------------------------


def seeded_lines(source):
    """Numbers of the lines that only a named bug reaches: what `if (... QC_SEED(x))` guards, and
    functions whose comment says that seeded bugs call them."""
    found = set()
    for number, line in enumerate(source, 1):
        guard = re.match(r"( *)if \((?:.*&& )?\(?QC_SEED\(\w+\)", line)
        last = number + 1
        if re.match(r"/\* What \w+ seeded bugs? do(es)?; not called otherwise", line):
            end = "}"
        elif not guard or any("QC_SEED(" not in part for part in line.split("||")):
            continue
        else:
            end = guard[1] + "}" if line.endswith("{") else None
        while not (source[last - 1].startswith(end) if end else source[last - 1].endswith(";")):
            last += 1
        found.update(range(number + 1, last + 1))
    return found


def sure_lines(source):
    """Numbers of the lines that only an assertion that fails reaches (sure.h): what stands right
    behind one, or behind the question whether there are any."""
    found = set()
    for number, line in enumerate(source, 1):
        indent = line[:len(line) - len(line.lstrip())]
        if "qc_sure(image, false," in line:  # behind a loop that never ends by its bound
            loop = max(n for n in range(number) if source[n].startswith(indent + "for ("))
            found.update((loop + 1, number))
        elif "qc_sure(" in line and "static" not in line:
            while not source[number - 1].endswith(";"):
                number += 1
            while not source[number].strip():
                number += 1
            if source[number].strip() == "if (status != QC_OK)":
                found.update((number + 1, number + 2))
        elif "if (QC_HAS_SURES" in line:
            last = next(n for n in range(number, len(source)) if source[n].startswith(indent + "}"))
            found.update(range(number + 1, last + 1))
    return found


class Source:
    """A file of core/ and what was seen of it; 'what' is taken apart by line number."""

    def __init__(self, path):
        self.path = path
        self.text = (ROOT / path).read_text().splitlines()
        self.seeded = seeded_lines(self.text)
        self.sure = sure_lines(self.text)
        self.lines = {}     # number: count
        self.branches = {}  # place: [count of true, count of false]
        self.mcdc = {}      # place of a decision: [whether each condition was shown to decide]

    def say(self, place):
        """The source text of a place that is within one line, else of its first line."""
        first, begin, last, end = place
        return self.text[first - 1][begin - 1:end - 1 if first == last else None]

    def decision(self, place):
        first, begin, last, end = place
        lines = self.text[first - 1:last]
        lines[-1] = lines[-1][:end - 1]
        lines[0] = lines[0][begin - 1:]
        return " ".join(line.strip() for line in lines)

    def is_counted(self, number):
        return number not in self.seeded and number not in self.sure

    def is_branch(self, place, counts):
        """Whether it counts: what stands behind a constant condition is never asked."""
        line = self.text[place[0] - 1]
        is_behind = "QC_SEED(" in line and counts == [0, 0]
        is_sure = "QC_HAS_SURES" in line or place[0] in self.sure
        # What stands for a default that is not there: compilers name a missing case.
        is_default = "switch (" in line
        return self.is_counted(place[0]) and not (is_behind or is_sure or is_default)

    def missing(self):
        """[(line number, kind, what was not seen)]"""
        found = [(number, "line", "") for number, count in self.lines.items()
                 if count == 0 and self.is_counted(number)]
        for place, counts in self.branches.items():
            sides = [side for side, count in zip(("true", "false"), counts) if count == 0]
            if sides and self.is_branch(place, counts):
                found.append((place[0], "branch", f"{self.say(place)}: never {' or '.join(sides)}"))
        for place, shown in self.mcdc.items():
            for condition in self.undecided(place, shown):
                found.append((place[0], "mcdc", condition))
        return sorted(found)

    def undecided(self, place, shown):
        """The conditions of a decision that never decided alone; a constant cannot."""
        text = self.decision(place)
        conditions = re.split(r"&&|\|\|", text)
        if len(conditions) != len(shown):
            return [text]
        if not self.is_counted(place[0]) or re.search(r"(^|&& )\(?QC_SEED", text):
            return []
        return [condition.strip(" ()") for condition, is_shown in zip(conditions, shown)
                if not is_shown and "QC_SEED" not in condition]


def take_lines(sources, lcov):
    source = None
    for line in lcov.splitlines():
        key, _colon, value = line.partition(":")
        if key == "SF":
            source = sources.get(value)
        elif key == "DA" and source:
            number, count = map(int, value.split(",")[:2])
            source.lines[number] = source.lines.get(number, 0) + count


def take_functions(sources, functions):
    """A function of a header is there once for every file that includes it: counts are summed."""
    for function in functions:
        for branch in function["branches"]:
            source = sources.get(function["filenames"][branch[6]])
            if source:
                counts = source.branches.setdefault(tuple(branch[:4]), [0, 0])
                counts[0] += branch[4]
                counts[1] += branch[5]
        for record in function["mcdc_records"]:
            source = sources.get(function["filenames"][record[4]])
            if source:
                shown = source.mcdc.setdefault(tuple(record[:4]), [False] * len(record[6]))
                shown[:] = [old or new for old, new in zip(shown, record[6])]


def measure(folder, profile):
    """[Source], of every file of core/ but those tested elsewhere."""
    sources = {str(path): Source(path.relative_to(ROOT))
               for path in sorted((ROOT / "core").glob("*.[ch]")) if path.name not in ELSEWHERE}
    take_lines(sources, export(folder, profile, "lcov"))
    take_functions(sources, json.loads(export(folder, profile, "text"))["data"][0]["functions"])
    return list(sources.values())


# ---- judging ---------------------------------------------------------------------------------


def read_exceptions(text):
    """{(file name, text of the line): reason}; a line is `name: source text # reason`."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _colon, rest = line.partition(": ")
            code, _hash, reason = rest.rpartition(" # ")
            found[name, code.strip()] = reason.strip()
    return found


def judge(sources, exceptions):
    """[(source, line number, kind, what)] that is below the floors, [complaint of exceptions]"""
    below, used = [], set()
    for source in sources:
        for number, kind, what in source.missing():
            if kind == "mcdc" and source.path.name not in MCDC_FILES:
                continue
            key = (source.path.name, source.text[number - 1].strip())
            if key in exceptions:
                used.add(key)
            else:
                below.append((source, number, kind, what))
    wrong = [f"excepted, but covered or not there: {name}: {code}"
             for name, code in exceptions if (name, code) not in used]
    wrong += [f"excepted without a reason: {name}: {code}"
              for (name, code), reason in exceptions.items() if not reason]
    wrong += [f"never to be excepted: {name}: {code}"
              for name, code in exceptions if name in NEVER_EXCEPTED]
    if len(exceptions) > EXCEPTIONS_MAX:
        wrong.append(f"{len(exceptions)} exceptions, at most {EXCEPTIONS_MAX}")
    return below, wrong


def figures(sources):
    """{what: (seen, all)}"""
    lines = [count > 0 for source in sources for number, count in source.lines.items()
             if source.is_counted(number)]
    sides = [count > 0 for source in sources for place, counts in source.branches.items()
             if source.is_branch(place, counts) for count in counts]
    conditions = sum(len(shown) for source in sources for shown in source.mcdc.values())
    undecided = sum(len(source.undecided(*item)) for source in sources
                    for item in source.mcdc.items())
    return {"lines": (sum(lines), len(lines)), "branches": (sum(sides), len(sides)),
            "mcdc": (conditions - undecided, conditions)}


def print_figures(name, found):
    print(f"{name:16}" + "".join(f"  {what} {seen}/{count}" for what, (seen, count)
                                 in found.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    args = parser.parse_args()
    folder = Path(args.build).resolve() / "host" / "cov"
    failed, profile = run_all(folder)
    sources = measure(folder, profile)
    below, wrong = judge(sources, read_exceptions(EXCEPTIONS.read_text()))
    for source in sources:
        if source.lines:
            print_figures(source.path.name, figures([source]))
    print_figures("core", figures(sources))
    for source, number, kind, what in below:
        print(f"{source.path}:{number}: {kind}: {what or source.text[number - 1].strip()}")
    for line in failed + wrong:
        print(line)
    print(f"uncovered={len(below)} failed={len(failed)} wrong_exceptions={len(wrong)}")
    sys.exit(1 if below or failed or wrong else 0)


if __name__ == "__main__":
    main()
