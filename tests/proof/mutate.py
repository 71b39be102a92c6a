# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Changes a file of core/ in one small way after another: each change must break a test.

Promises: every relation, sum, product, shift, bit and truth operator, condition, number, statement
and returned error of the file is changed once in each way below; a change that does not compile, or
compiles to what was there or to what another change compiled to, does not count; a change that
makes a test hang is found. Says which changes no test sees and ends with status 1 where those are
too many, or where equivalent.txt names one that is seen or that is not there.

`make mutate [FILE=core/cache.c]` builds what this needs: the unit tests and the crash program with
each such file in a shared library, so that a change costs one compilation and no link of a program.
"""

import argparse
import concurrent.futures
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EQUIVALENT = Path(__file__).resolve().parent / "equivalent.txt"
KILLED_MIN = 0.95  # of those that are not equivalent
COMPILE_TIMEOUT_S = 60
RUN_TIMEOUT_S = 120  # of the clock; a loaded machine is slow
CPU_FACTOR = 4       # a run that takes so many times its own time hangs
LISTED_S = 0.3       # what is listed as equivalent is asked only of what takes no longer
OTHERS = ("test_config", "test_decode", "test_sim")  # run nothing of what is changed

# What the crash program is asked, the cheap and telling first.
CRASH_BASES = ("snapshot", "half", "block", "reftable", "through", "growing", "tight", "overlay",
               "packed", "datafile", "short", "extended", "version2", "zeroalloc")
CRASH_RUNS = [["all", "--unit", "512", "--length", "2", "--base", base, "--alphabet", alphabet]
              for alphabet in ("plain", "faulty", "bulk") for base in CRASH_BASES]
CRASH_RUNS += [["all", "--unit", "512", "--length", "3", "--base", base, "--alphabet", "faulty"]
               for base in ("half", "snapshot", "zeroalloc", "block")]
CRASH_RUNS += [["costs"], ["random", "--count", "20000", "--cuts", "200"]]

SWAPS = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"),
         "==": ("!=",), "!=": ("==",), "&&": ("||",), "||": ("&&",), "<<": (">>",), ">>": ("<<",),
         "+=": ("-=",), "-=": ("+=",), "*=": ("/=",), "|=": ("&=",), "&=": ("|=",),
         "++": ("--",), "--": ("++",), "?": ("&& 0 ?", "|| 1 ?")}
BINARY_SWAPS = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "&": "|", "|": "&"}
WORD_SWAPS = {"true": "false", "false": "true"}
TOKEN = re.compile(r"0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*|\w+|->|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||"
                   r"\+=|-=|\*=|/=|\|=|&=|\+\+|--|\S")
KEYWORDS = {"return", "case", "sizeof", "if", "while", "for", "switch", "else", "do", "default"}
DECLARERS = {"const", "static", "struct", "enum", "union", "unsigned", "bool", "int", "char",
             "void", "size_t", "qc_status"}


@dataclass(frozen=True)
class Mutant:
    """One change: text[start:end] becomes new."""
    start: int
    end: int
    new: str
    name: str


@dataclass(frozen=True)
class Token:
    text: str
    start: int
    end: int


# ---- changes of a source ---------------------------------------------------------------------


def masked(text):
    """The text with comments, strings and directives but for the values of #define blanked."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])
    text = re.sub(r"/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text, flags=re.S)
    text = re.sub(r"^[ \t]*#define[ \t]+\w+", blank, text, flags=re.M)
    return re.sub(r"^[ \t]*#[^\n]*", blank, text, flags=re.M)


def tokens_of(code):
    return [Token(match[0], match.start(), match.end()) for match in TOKEN.finditer(code)]


def is_number(text):
    return text[0].isdigit()


def is_operand_end(token):
    return bool(re.match(r"[\w)\]]", token.text[-1])) and token.text not in KEYWORDS


def has_spaces(code, token):
    return code[token.start - 1] == " " and code[token.end] in " \n"


def numbers_near(text):
    digits, suffix = re.match(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", text).groups()
    value = int(digits, 0)
    show = hex if digits.lower().startswith("0x") else str
    return [show(near) + suffix for near in (value + 1, value - 1) if near >= 0]


def operator_changes(code, tokens):
    for before, token in zip([Token(";", 0, 0), *tokens], tokens):
        if is_number(token.text):
            changes = numbers_near(token.text)
        elif token.text in BINARY_SWAPS:
            is_binary = is_operand_end(before) and has_spaces(code, token)
            changes = [BINARY_SWAPS[token.text]] if is_binary else []
        elif token.text in ("!", "~"):
            changes = [""]
        elif token.text in WORD_SWAPS:
            changes = [WORD_SWAPS[token.text]]
        else:
            changes = SWAPS.get(token.text, ())
        for change in changes:
            yield token.start, token.end, change


def closing(tokens, opening):
    """The number of the token that closes the parenthesis at this one."""
    depth = 0
    for i in range(opening, len(tokens)):
        depth += (tokens[i].text == "(") - (tokens[i].text == ")")
        if depth == 0:
            return i
    raise ValueError("a parenthesis is not closed")


def condition_changes(code, tokens):
    for i, token in enumerate(tokens):
        if token.text == "if":
            start, end = tokens[i + 1].end, tokens[closing(tokens, i + 1)].start
            yield start, end, f"!({code[start:end]})"


def statements(tokens):
    """(first token, the semicolon) of every simple statement."""
    first, depth, is_initializer = None, 0, []
    for i, token in enumerate(tokens):
        if token.text == "{":
            is_initializer.append(i > 0 and tokens[i - 1].text in ("=", ",", "{")
                                  and (tokens[i - 1].text == "=" or is_initializer[-1:] == [True]))
        elif token.text == "}":
            is_initializer.pop()
        depth += (token.text == "(") - (token.text == ")")
        if is_initializer[-1:] == [True] or depth > 0:
            if first is None:
                first = i
            continue
        if token.text == ";" and first is not None and is_initializer:
            yield first, i
        if token.text in (";", "{", "}", "else", ":"):
            first = None
        elif token.text == ")" and tokens[first or i].text in ("if", "for", "while", "switch"):
            first = None
        elif first is None:
            first = i


def is_declaration(tokens, first):
    text = tokens[first].text
    return text in DECLARERS or text.endswith("_t")


def statement_changes(tokens, text, returns):
    for first, semicolon in statements(tokens):
        start, end = tokens[first].start, tokens[semicolon].end
        if tokens[first].text == "return":
            if first + 1 < semicolon and returns(start) == "qc_status":
                yield start, end, "return QC_OK;"
            elif first + 1 == semicolon:
                yield start, end, ";"
        elif not is_declaration(tokens, first) and text[start:end] != ";":
            yield start, end, ";"


def functions(text):
    """[(start, end, name, type)] of the functions, by the braces in the first column."""
    found = []
    for match in re.finditer(r"^([a-z][\w ]*[ *])(\w+)\(([^;{}]*?)\)\n\{\n.*?^\}", text,
                             re.M | re.S):
        found.append((match.start(), match.end(), match[2], match[1].split()[-1]))
    return found


def mutants_of(path, text):
    """Every change of a file; its name holds though lines move."""
    code, places, seen, found = masked(text), functions(text), {}, []
    tokens = tokens_of(code)

    def place(offset):
        return next((entry for entry in places if entry[0] <= offset < entry[1]),
                    (0, 0, "file", ""))
    changes = [*operator_changes(code, tokens), *condition_changes(text, tokens),
               *statement_changes(tokens, code, lambda offset: place(offset)[3])]
    for start, end, new in changes:
        first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
        before = " ".join(text[first:last].split())
        after = " ".join((text[first:start] + new + text[end:last]).split())
        name = f"{path} {place(start)[2]}: {before} -> {after}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name += f" #{seen[name]}"
        found.append(Mutant(start, end, new, name))
    return found


# ---- trying them -----------------------------------------------------------------------------


class Tests:
    """What is run on every change: commands, how long each takes, and how many it found."""

    def __init__(self, folder):
        programs = sorted(folder.glob("test_*"))
        self.commands = [[str(program)] for program in programs if program.name not in OTHERS]
        self.commands += [[str(folder / "crash"), *run] for run in CRASH_RUNS]
        self.seconds = [float(RUN_TIMEOUT_S)] * len(self.commands)
        self.kills = [0] * len(self.commands)
        self.lock = threading.Lock()

    def measure(self, environment):
        """What is not changed passes everything; how long it takes bounds what is."""
        for i, command in enumerate(self.commands):
            begin = resource.getrusage(resource.RUSAGE_CHILDREN)
            if self.fails(i, environment):
                raise SystemExit(f"fails without any change: {' '.join(command)}")
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.seconds[i] = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime

    def fails(self, i, environment):
        process = subprocess.Popen(self.commands[i], env=environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            cpu_seconds = int(self.seconds[i] * CPU_FACTOR) + 1
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            return process.wait(timeout=RUN_TIMEOUT_S) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        except ProcessLookupError:
            return process.wait() != 0

    def killer(self, environment, is_listed):
        """The number of the first that fails, or None; what finds most a second is asked first.
        Of a change that is listed as equivalent a test must say so twice: where other machines
        take this one's processors away, a quick run may seem to hang."""
        def rate(i):
            return (self.kills[i] + 1) / (self.seconds[i] + 0.02)
        seconds_max = LISTED_S if is_listed else RUN_TIMEOUT_S
        asked = [i for i in range(len(self.commands)) if self.seconds[i] <= seconds_max]
        for i in sorted(asked, key=rate, reverse=True):
            if self.fails(i, environment) and (not is_listed or self.fails(i, environment)):
                with self.lock:
                    self.kills[i] += 1
                return i
        return None


class Bench:
    """Compiles and tries the changes of one file."""

    def __init__(self, folder, path, tests):
        self.folder, self.path, self.tests = folder, path, tests
        self.text = (ROOT / path).read_text()
        self.flags = (folder / "flags").read_text().split()
        self.library = f"lib{Path(path).stem}.so"
        self.scratch = folder / "tried" / str(os.getpid())
        self.listed = equivalents(EQUIVALENT.read_text())
        self.lock = threading.Lock()
        self.objects = {self.compile(self.text, self.folder_of())}
        tests.measure(self.link(self.folder_of()))

    def folder_of(self):
        scratch = self.scratch / str(threading.get_ident())
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def compile(self, text, scratch):
        """What tells one object from another; None where it does not compile."""
        target = scratch / "mutant.o"
        command = [*self.flags, "-x", "c", "-c", "-o", target, "-"]
        done = subprocess.run(command, input=text.encode(), stdout=subprocess.DEVNULL, cwd=ROOT,
                              stderr=subprocess.DEVNULL, timeout=COMPILE_TIMEOUT_S, check=False)
        return hashlib.sha256(target.read_bytes()).digest() if done.returncode == 0 else None

    def link(self, scratch):
        """The environment in which the programs use what was compiled."""
        subprocess.run(["ld", "-shared", "-soname", self.library, "-o", scratch / self.library,
                        scratch / "mutant.o"], check=True, timeout=COMPILE_TIMEOUT_S)
        return dict(os.environ, LD_LIBRARY_PATH=str(scratch))

    def try_one(self, mutant):
        """"none" where nothing changed, "survived", or the command that found it."""
        scratch = self.folder_of()
        text = self.text[:mutant.start] + mutant.new + self.text[mutant.end:]
        identity = self.compile(text, scratch)
        with self.lock:
            if identity is None or identity in self.objects:
                return "none"
            self.objects.add(identity)
        killer = self.tests.killer(self.link(scratch), mutant.name in self.listed)
        return "survived" if killer is None else " ".join(self.tests.commands[killer])


def equivalents(text):
    """The names in equivalent.txt; each stands below the reason it shares with its neighbours."""
    names, has_reason = [], False
    for line in text.splitlines():
        if line.startswith("#"):
            has_reason = True
        elif not line.strip():
            has_reason = False
        elif has_reason:
            names.append(line)
        else:
            raise ValueError(f"no reason: {line}")
    return names


@dataclass
class Result:
    path: str
    killed: list
    survived: list
    equivalent: list
    wrong: list  # lines of equivalent.txt that are not right
    seconds: float

    def share(self):
        return len(self.killed) / max(1, len(self.killed) + len(self.survived))

    def is_good(self):
        return self.share() >= KILLED_MIN and not self.wrong and len(self.killed) > 0


def judge(path, mutants, answers, listed, seconds):
    """What the answers to the changes mean, in the light of the list of equivalent ones."""
    listed = [name for name in listed if name.startswith(path + " ")]
    killed = [m.name for m, answer in zip(mutants, answers) if answer not in ("none", "survived")]
    left = [m.name for m, answer in zip(mutants, answers) if answer == "survived"]
    wrong = sorted(set(listed) - {m.name for m in mutants} | set(listed) & set(killed))
    return Result(path, killed, [name for name in left if name not in listed],
                  [name for name in left if name in listed], wrong, seconds)


def run_file(folder, path, tests, jobs):
    begin = time.monotonic()
    bench = Bench(folder, path, tests)
    mutants = mutants_of(path, bench.text)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        answers = list(pool.map(bench.try_one, mutants))
    result = judge(path, mutants, answers, bench.listed, time.monotonic() - begin)
    return result, dict(zip((mutant.name for mutant in mutants), answers))


def report(result):
    for title, names in (("survived", result.survived), ("not equivalent", result.wrong)):
        for name in names:
            print(f"{title}: {name}")
    print(f"{result.path}: {len(result.killed)} killed, {len(result.survived)} survived, "
          f"{len(result.equivalent)} equivalent: {100 * result.share():.1f} % "
          f"in {result.seconds:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--log", help="a file for what found each change")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    folder = (ROOT / args.build / "host" / "mutate").resolve()
    tests = Tests(folder)
    is_good = True
    for path in args.files:
        result, answers = run_file(folder, path, tests, args.jobs)
        report(result)
        is_good &= result.is_good()
        if args.log:
            with open(args.log, "a", encoding="utf-8") as log:
                log.writelines(f"{answer}\t{name}\n" for name, answer in answers.items())
    shutil.rmtree(folder / "tried" / str(os.getpid()), ignore_errors=True)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
