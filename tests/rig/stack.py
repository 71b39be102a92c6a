# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Tells how deep the driver's stack can get, and fails where that is deeper than it may be.

Frames come from the .su files that the compiler writes, calls from the disassembly and relocations
of the objects that are linked. Where a call through a pointer goes the machine code does not say:
CALLS names the kind of pointer that a function calls through, KINDS the functions that a kind may
be. What is told is a bound over all paths, over possible ones and some that are not.

Errors, never guesses: a ring of calls; a call through a pointer, or the address of a function, that
no rule covers; a rule that nothing needs; a name that nobody has.

Left out: the stack that firmware's own services take. What they call back is an entry of its own.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import size

ROOT = Path(__file__).resolve().parent.parent.parent

CORE_BYTES_MAX = 2048  # from any function of core/ down to the disk below, decoders apart
OBJDUMP_SECONDS_MAX = 120
RETURN_BYTES = 8

# What a pointer of a kind may be, as file:function. Nothing of ours stands behind a service of the
# firmware, and nobody there asks for a check's progress.
KINDS = {
    "firmware": [],
    "progress": ["check:spend"],
    "disk": ["efi_block:block_flush", "efi_block:block_read", "efi_block:block_write"],
    # A file's disk, which has a Block I/O around it: for those above, that is the firmware's.
    "file": ["extents:flush_below", "extents:read_runs", "extents:write_runs"],
    "verify": ["verify:qc_verify_counts"],
    "bases": ["base:base_find"],
    "config": [f"config:take_{what}" for what in (
        "autosnapshot", "backing", "base", "data", "file", "headroom", "loader", "partition",
        "readonly", "snapshot", "temporary")] + ["config:set_default",
                                                 "config:set_timeout"],
    "order": ["epoch:is_before", "epoch:is_table_before"],
    "keep": ["commit:keep_lowered"],
    "walk": ["check:visit_l1", "check:visit_l2", "job:lower_l1", "job:lower_l2", "job:raise_l1",
             "job:raise_l2", "job:set_copied", "refs:visit_l1", "refs:visit_l2", "repair:copied_l1",
             "repair:copied_l2", "repair:fix_l1", "repair:fix_l2", "shared:pass_l2"],
    "stored": ["check:compare", "repair:lower_count", "repair:raise_count", "tally:keep_stored",
               "verify:compare"],
    "window": ["repair:copied_window", "repair:lower_window", "repair:raise_window",
               "shared:qc_judge_window"],
    "l1": ["repair:fix_tree", "shared:judge_each"],
    "wanted": ["relocate:wanted_counts", "relocate:wanted_fixed"],
    "go_on": ["check:go_on", "verify:has_budget"],
    "packed": ["packed:fetch"],
    "arena": ["decode:arena_give", "decode:arena_take"],
    "zstd_memory": [],  # a context in memory of ours has none
}

# The kinds that a function calls through, or all those of a file that have no rule of their own.
CALLS = {
    **dict.fromkeys(["alloc", "cache", "commit", "erase", "guard", "image", "job",
                     "packed", "patch", "read", "repair", "resize", "window"], ["disk"]),
    **dict.fromkeys(["attach", "base", "binding", "control", "efi_block", "entry", "handover",
                     "medium", "quiesce", "request", "say", "secureboot", "settings"],
                    ["firmware"]),
    "change": ["disk", "verify"],
    "check": ["progress"],
    "config": ["config"],
    "decode": ["packed"],
    "extents": ["disk"],
    "fat": ["disk"],
    "file": ["firmware", "file"],
    "filedisk": ["firmware", "file", "disk"],
    "epoch": ["order", "keep"],
    "layers": ["disk", "bases"],
    "refs": ["go_on"],
    "relocate:qc_repair_go_on": ["go_on"],
    "relocate:qc_repair_windows": ["window"],
    "relocate:take_place": ["wanted", "disk"],
    "shared": ["l1"],
    "tally": ["stored"],
    "walk": ["walk", "disk"],
    "walk:qc_raw_read": ["disk"],
    "walk:qc_raw_write": ["disk"],
    "inflate": ["arena"],
    "zstddeclib-in": ["zstd_memory"],
}

# The only ring: given fewer than eight bytes this one calls itself with eight.
TWICE = {"zstddeclib-in:FSE_readNCount_body_default"}


class Wrong(Exception):
    """What no rule covers, or what nobody may do."""


class Function:
    """All but the frame are names; a jump to another function gives the frame up first."""

    def __init__(self, frame, calls=(), jumps=(), taken=(), is_indirect=False):
        self.frame, self.is_indirect = frame, is_indirect
        self.calls, self.jumps, self.taken = set(calls), set(jumps), set(taken)


# ---- what the objects say --------------------------------------------------------------------


def objdump(option, objects):
    """{path: what is said of it}"""
    run = subprocess.run(["llvm-objdump", "--no-show-raw-insn", option, *objects], check=True,
                         capture_output=True, text=True, timeout=OBJDUMP_SECONDS_MAX)
    parts = re.split(r"^(.+):\tfile format .*$", run.stdout, flags=re.MULTILINE)
    return {Path(path): text for path, text in zip(parts[1::2], parts[2::2])}


def instructions(text):
    """[(place, name, operands, symbol of its relocation)] of one function.

    The tables of its switches lie behind it in its section: code ends where the first of those is
    that are named without a relocation.
    """
    found = []
    for line in text.splitlines():
        match = re.match(r"\s+([0-9a-f]+):\s+(?:IMAGE_REL_\w+\s+(\S+)|(\w+)\s*(.*))$", line)
        if match and match[2]:
            found[-1][3] = match[2]
        elif match:
            found.append([int(match[1], 16), match[3], match[4], None])
    tables = [int(match[1], 16) for _place, name, operands, symbol in found
              if name == "leaq" and not symbol
              and (match := re.search(r"\(%rip\), .*# 0x(\w+) <", operands))]
    return [each for each in found if each[0] < min(tables, default=sys.maxsize)]


def read_function(name, frame, text):
    """With every symbol that it names and does not call as taken."""
    function = Function(frame)
    before = ["", ""]
    for _place, word, operands, symbol in instructions(text):
        is_switch = before[-2:] == ["movslq", "addq"]  # an offset out of a table, and the table's
        if word in ("callq", "jmpq") and operands.startswith("*"):
            function.is_indirect |= word == "callq" or not is_switch
        elif word == "callq":
            function.calls.add(symbol or name)
        elif word.startswith("j") and symbol:
            function.jumps.add(symbol)
        elif symbol:
            function.taken.add(symbol)
        before.append(word)
    return function


def frames_of(path):
    """{function: bytes} of an object; none has none."""
    if not size.frames(path):
        return {}
    lines = [line.split("\t") for line in path.with_suffix(".su").read_text().splitlines()]
    return {place.rsplit(":", 1)[1]: int(length) for place, length, _kind in lines}


def read_objects(objects):
    """({file:function: Function}, {those whose address stands in data}); names are linked."""
    code, data = objdump("-dr", objects), objdump("-r", objects)
    functions, named, external = {}, {}, {}
    for path in objects:
        frames = frames_of(path)
        texts = re.split(r"^[0-9a-f]+ <(.+)>:$", code[path], flags=re.MULTILINE)
        for name, text in zip(texts[1::2], texts[2::2]):
            functions[f"{path.stem}:{name}"] = read_function(name, frames[name], text)
        named[path.stem] = set(re.findall(r"ADDR64\s+(\S+)", data[path]))
        external.update({name: f"{path.stem}:{name}" for name, section, _value, storage
                         in size.read_object(path.read_bytes())[1]
                         if section > 0 and storage == size.CLASS_EXTERNAL})

    def linked(stem, names):
        return {f"{stem}:{name}" if f"{stem}:{name}" in functions else external.get(name, name)
                for name in names}

    for name, function in functions.items():
        stem = name.split(":")[0]
        function.calls = linked(stem, function.calls)
        function.jumps = linked(stem, function.jumps)
        function.taken = linked(stem, function.taken) & set(functions)
    addressed = set().union(*(linked(stem, names) for stem, names in named.items()))
    return functions, addressed & set(functions)


# ---- who calls whom --------------------------------------------------------------------------


def rule_of(name, rules):
    return name if name in rules else name.split(":")[0]


def pointer_targets(name, function, passed, rules, kinds):
    """What it may call through pointers; of a kind that has something passed, only that."""
    found = set()
    for kind in rules.get(rule_of(name, rules), ()) if function.is_indirect else ():
        found |= passed & set(kinds[kind]) or set(kinds[kind])
    return found


def follow_pointers(functions, rules, kinds):
    """Adds what may be called through pointers to the calls.

    Who calls a function, and takes the address of something that this one may call, passes just
    that: the way goes through a copy of the function, which calls nothing else of its kind.
    """
    bare = {name: pointer_targets(name, function, set(), rules, kinds)
            for name, function in functions.items()}
    copies = {}
    for caller, function in functions.items():
        for names in (function.calls, function.jumps):
            for name in [name for name in names if function.taken & bare.get(name, set())]:
                copies[f"{name} for {caller}"] = (name, function.taken)
                names.remove(name)
                names.add(f"{name} for {caller}")
    for copy, (name, passed) in copies.items():
        function = functions[name]
        targets = pointer_targets(name, function, passed, rules, kinds)
        functions[copy] = Function(function.frame, function.calls | targets, function.jumps)
    for name, targets in bare.items():
        functions[name].calls |= targets


def unroll(functions, twice):
    """Those that call themselves once and never again: one frame of both."""
    for name in twice:
        functions[name].calls.remove(name)
        functions[name].frame += RETURN_BYTES + functions[name].frame


def reached_from(functions, entries):
    """All that these call, what those call, and so on."""
    reached, fresh = set(), set(entries)
    while fresh:
        reached |= fresh
        fresh = set().union(*(functions[name].calls | functions[name].jumps for name in fresh
                              if name in functions)) - reached
    return reached


def complaints(functions, taken, entries, rules, kinds):
    """What is not known of those that the entries reach."""
    reached = reached_from(functions, entries)
    known = reached & set(functions)
    indirect = {name for name in known if functions[name].is_indirect}
    used = {rule_of(name, rules) for name in indirect}
    kept = set(entries).union(*kinds.values())
    return ([f"{name}: nobody has it" for name in sorted((reached | kept) - set(functions))]
            + [f"{name}: no rule for its call through a pointer" for name in sorted(indirect)
               if rule_of(name, rules) not in rules]
            + [f"{name}: no kind has it, and its address is taken" for name in sorted(taken - kept)]
            + [f"{rule}: nothing needs this rule" for rule in sorted(set(rules) - used)])


def deepest(functions, name, known, above=()):
    """(bytes, [function, ...]) of the deepest path from a function, with its return address."""
    if name in above:
        raise Wrong("a ring of calls: " + " -> ".join([*above[above.index(name):], name]))
    if name not in known:
        function, above = functions[name], (*above, name)
        paths = [(RETURN_BYTES + function.frame, [name])]
        for kept, names in ((RETURN_BYTES + function.frame, function.calls), (0, function.jumps)):
            for each in sorted(names):
                length, path = deepest(functions, each, known, above)
                paths.append((kept + length, [name, *path]))
        known[name] = max(paths)
    return known[name]


def deepest_of(functions, entries):
    known = {}
    return max((deepest(functions, name, known) for name in sorted(entries)), default=(0, []))


def without(functions, stems):
    """The same without these files: calls of them cost nothing."""
    def kept(names):
        return {name for name in names if name.split(":")[0] not in stems}

    return {name: Function(functions[name].frame, kept(functions[name].calls),
                           kept(functions[name].jumps)) for name in kept(functions)}


# ---- the driver ------------------------------------------------------------------------------


def of_stems(names, stems):
    return {name for name in names if name.split(":")[0] in stems}


def driver_paths(out, rules, kinds):
    """{what: (bytes, path)}, or Wrong."""
    objects = size.driver_objects(out)
    stems = {folder: {path.stem for path in objects if path.parent.name == folder}
             for folder in ("core", "drivers", "efi", "third-party")}
    functions, taken = read_objects(objects)
    taken = taken.union(*(each.taken for each in functions.values()))
    core = of_stems(functions, stems["core"])
    # What firmware gets the addresses of.
    called = of_stems(taken.difference(*kinds.values()), stems["efi"]) | {"entry:efi_main"}

    follow_pointers(functions, rules, kinds)
    unroll(functions, TWICE)
    wrong = complaints(functions, taken - of_stems(taken, stems["third-party"]), core | called,
                       rules, kinds)
    if wrong:
        raise Wrong("\n".join(wrong))
    own = without(functions, stems["third-party"])
    return {"core, decoders apart": deepest_of(own, core),
            "core": deepest_of(functions, core),
            "driver, decoders apart": deepest_of(own, called),
            "driver": deepest_of(functions, called)}


def report(out):
    """Prints the deepest paths; whether the limit is kept."""
    try:
        paths = driver_paths(out, CALLS, KINDS)
    except Wrong as wrong:
        print(f"stack: {wrong}")
        return False
    for what, (length, path) in paths.items():
        limit = f" (at most {CORE_BYTES_MAX})" if what == "core, decoders apart" else ""
        print(f"deepest stack of {what}: {length} bytes{limit}")
        print(f"  {' '.join(path)}")
    return paths["core, decoders apart"][0] <= CORE_BYTES_MAX


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    args = parser.parse_args()
    sys.exit(0 if report(args.build / "x64") else 1)


if __name__ == "__main__":
    main()
