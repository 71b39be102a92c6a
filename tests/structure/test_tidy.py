# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The house rules as tests: who may include whom, how long things may get, words kept out.

Each rule is a function from (path, text) to complaints, applied to every file of the tree that is
not generated; below the rules, each is shown a made-up offender, because a rule that cannot fail
says nothing.
"""

import ast
import os
import posixpath
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GENERATED = {".git", "build", "__pycache__", ".pytest_cache"}

TOP_LEVEL = {"Makefile", "README.md", "LICENSE", "efi", "core", "drivers", "tests", "images"}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
FILE_BYTES_MAX = 100 * 1024
HEAD_LINES_MAX = 20

FREESTANDING = {"limits.h", "stdbool.h", "stddef.h", "stdint.h", "stdarg.h"}
FILE_DRIVERS = ("drivers/extents.", "drivers/fat.")  # they run in the firmware too
DECODERS = {"zlib.h", "zstd.h"}
DECODERS_USER = "core/decode.c"

# A file of core/ may include what stands on its own floor or below. A new file gets a floor here; a
# header of types gets one of its own where what is done with them stands higher.
FLOORS = {
    "status": 0, "bytes": 0, "seeded": 0, "shims": 0, "detail": 1, "disk": 1,
    "check.h": 1, "plot.h": 1, "snapshot.h": 1,  # parts of the public face
    "cache": 2,
    "epoch": 3, "header": 3, "extensions": 3, "decode": 3, "packed.h": 3,
    "qcow2": 4,  # the public types; what they are done with stands above
    "layers": 5, "table": 5, "blank": 5, "sure": 5,
    "counts": 6, "map": 6, "window": 6,
    "guard": 7, "packed": 7, "patch": 7, "plot": 7, "read": 7, "walk": 7,
    "commit": 8, "tally": 8, "ledger": 8, "snaptable": 8,
    "alloc": 9, "change": 9, "refs": 9,
    "cluster": 10, "resize": 10, "job": 10, "relocate": 10,
    "compose": 11, "snapshot": 11, "shared": 11,
    "write": 12, "repair": 12, "verify": 12, "erase": 13, "check": 13, "image": 14,
}

# Spelled in halves, so that this file does not offend.
BANNED_WORDS = ["TO" + "DO", "FIX" + "ME", "X" + "XX"]
ALLOCATORS = ["malloc", "calloc", "realloc", "alloca", "AllocatePool", "AllocatePages"]


def tree():
    """Every file that is part of the project, as paths below the root."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - GENERATED)
        found += [Path(folder, name).relative_to(ROOT).as_posix() for name in sorted(names)]
    return found


# ---- the rules -------------------------------------------------------------------------------


def includes(path, text):
    """[(how it is quoted, path below the root or system name)]"""
    found = re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', text, re.MULTILINE)
    folder = posixpath.dirname(path)
    return [(quote, posixpath.normpath(posixpath.join(folder, name)) if quote == '"' else name)
            for quote, name in found]


def may_include(path, quote, target):
    layer = path.split("/")[0]
    if quote == "<":
        hosted = target not in FREESTANDING and not target.startswith("efi")
        if layer == "core":
            return target in FREESTANDING or (target in DECODERS and path == DECODERS_USER)
        inside = layer == "efi" or path.startswith(("drivers/efi_", *FILE_DRIVERS))
        return not hosted if inside else True
    if layer == "core":
        return target.startswith("core/")
    if layer == "drivers":
        return target in ("core/disk.h", "core/status.h") or target.startswith("drivers/")
    if layer == "efi":
        public = ("core/qcow2.h", "core/plot.h")
        return target in public or target.startswith(("drivers/efi_", "efi/", *FILE_DRIVERS))
    return layer == "tests"


def check_layers(path, text):
    if path.endswith((".c", ".h")):
        for quote, target in includes(path, text):
            if not may_include(path, quote, target):
                yield f"{path} includes {target}"


def floor_of(path):
    return FLOORS.get(Path(path).name, FLOORS.get(Path(path).stem))


def check_floors(path, text):
    if not path.startswith("core/") or not path.endswith((".c", ".h")):
        return
    floor = floor_of(path)
    if floor is None:
        yield f"{path} has no floor"
        return
    for quote, target in includes(path, text):
        if quote == '"' and (floor_of(target) or 0) > floor:
            yield f"{path} includes {target}, which stands above it"


def check_lengths(path, text):
    if not path.endswith((".c", ".h", ".py")):
        return
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield f"{path} has {len(lines)} lines"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield f"{path}:{number} has {len(line)} columns"
    for name, length in python_functions(text) if path.endswith(".py") else c_functions(lines):
        if length > FUNCTION_LINES_MAX:
            yield f"{path}: {name} has {length} lines"


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.end_lineno - node.lineno + 1


def c_functions(lines):
    """A body opens and closes with a brace in the first column; nothing else does."""
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start is not None:
            yield f"the function at line {start}", number - start + 1
            start = None


def check_head(path, text):
    """The licence first, then what the file is, within its first lines."""
    lines = text.splitlines()
    if path.endswith((".c", ".h")):
        if not lines or lines[0] != "/* SPDX-License-Identifier: BSD-2-Clause-Patent */":
            yield f"{path} does not start with its licence"
        elif len(lines) < 2 or not lines[1].startswith("/*"):
            yield f"{path} has no head comment"
        elif not any("*/" in line for line in lines[1:HEAD_LINES_MAX]):
            yield f"{path}: the head comment is longer than {HEAD_LINES_MAX} lines"
    elif path.endswith((".py", ".sh")):
        if not any("SPDX-License-Identifier: BSD-2-Clause-Patent" in line for line in lines[:2]):
            yield f"{path} does not start with its licence"
        if path.endswith(".py") and text.strip() and not ast.get_docstring(ast.parse(text)):
            yield f"{path} has no docstring"


def check_words(path, text):
    for word in BANNED_WORDS:
        if re.search(rf"\b{word}\b", text):
            yield f"{path} says {word}"
    if path.startswith(("core/", "drivers/", "efi/")) and path.endswith((".c", ".h")):
        for name in ALLOCATORS:
            if re.search(rf"\b{name}\s*\(", text):
                yield f"{path} calls {name}"


def check_imports(path, text):
    """images/ stands on its own: what makes an image knows nothing of who tests with it."""
    if not path.startswith("images/") or not path.endswith(".py"):
        return
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in ("tests", "rig", "conftest"):
                yield f"{path} imports {name}"


RULES = [check_layers, check_floors, check_lengths, check_head, check_words, check_imports]


def complaints(rule, sources):
    return [line for path, text in sources for line in rule(path, text)]


def include_cycle(graph):
    """The files that include each other in a ring, or []: what is left without the leaves."""
    left = {path: set(targets) & set(graph) for path, targets in graph.items()}
    while True:
        leaves = [path for path, targets in left.items() if not targets]
        if not leaves:
            return sorted(left)
        for leaf in leaves:
            del left[leaf]
        for targets in left.values():
            targets.difference_update(leaves)


def check_content(path, content):
    """No binary and no large file: what can be made is made."""
    if len(content) > FILE_BYTES_MAX:
        return [f"{path} has {len(content)} bytes"]
    try:
        return [f"{path} is binary"] if "\0" in content.decode() else []
    except UnicodeDecodeError:
        return [f"{path} is binary"]


def check_top(names):
    return [name for name in names if name not in TOP_LEVEL and not name.startswith(".")]


# ---- the tree keeps them ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources():
    return [(path, (ROOT / path).read_text(errors="replace")) for path in tree()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule, sources):
    assert "\n".join(complaints(rule, sources)) == ""


def test_tree_is_seen(sources):
    """The rules above have something to look at."""
    paths = [path for path, _text in sources]
    for needed in ("Makefile", "core/image.c", "core/qcow2.h", "drivers/posix_file.c",
                   "efi/blockio.c", "images/matrix.py", "tests/structure/test_tidy.py"):
        assert needed in paths
    assert not any(path.startswith("build/") for path in paths)


def test_no_include_cycle(sources):
    graph = {path: [target for _quote, target in includes(path, text)]
             for path, text in sources if path.endswith((".c", ".h"))}
    assert include_cycle(graph) == []


def test_no_binary_file():
    found = [line for path in tree() for line in check_content(path, (ROOT / path).read_bytes())]
    assert "\n".join(found) == ""


def test_top_level():
    assert check_top(sorted({path.split("/")[0] for path in tree()})) == []


# ---- the rules can fail ----------------------------------------------------------------------

HEAD = "/* SPDX-License-Identifier: BSD-2-Clause-Patent */\n/* Is a file. */\n"
BODY = "int f(void)\n{\n" + "    g();\n" * (FUNCTION_LINES_MAX - 2) + "}\n"
LONGER_BODY = BODY.replace("{\n", "{\n    g();\n")
PYTHON = '# SPDX-License-Identifier: BSD-2-Clause-Patent\n"""Is a file."""\n'
DEF = "def f():\n" + "    g()\n" * (FUNCTION_LINES_MAX - 1)

OFFENDERS = [
    (check_layers, "core/map.c", "#include <stdio.h>\n"),
    (check_layers, "core/map.c", "#include <efi.h>\n"),
    (check_layers, "core/packed.c", "#include <zstd.h>\n"),
    (check_layers, "core/decode.c", "#include <zlib.h>\n#include <stdio.h>\n"),
    (check_layers, "efi/entry.c", "#include <zlib.h>\n"),
    (check_layers, "core/map.c", '#include "../efi/driver.h"\n'),
    (check_layers, "core/map.c", '#  include "../drivers/posix_file.h"\n'),
    (check_layers, "drivers/posix_file.c", '#include "../core/qcow2.h"\n'),
    (check_layers, "drivers/efi_block.c", "#include <unistd.h>\n"),
    (check_layers, "drivers/fat.c", "#include <string.h>\n"),
    (check_layers, "efi/command/info.c", '#include "../../core/header.h"\n'),
    (check_layers, "efi/entry.c", '#include "../tests/unit/support.h"\n'),
    (check_layers, "efi/entry.c", '#include "../drivers/posix_file.h"\n'),
    (check_floors, "core/cache.c", '#include "map.h"\n'),
    (check_floors, "core/packed.h", '#include "map.h"\n'),
    (check_floors, "core/novelty.c", ""),
    (check_lengths, "core/map.c", "x\n" * (FILE_LINES_MAX + 1)),
    (check_lengths, "core/map.c", "x" * (COLUMNS_MAX + 1)),
    (check_lengths, "core/map.c", LONGER_BODY),
    (check_lengths, "images/demo.py", DEF + "    g()\n"),
    (check_head, "core/map.c", HEAD.splitlines()[0] + "\nint x;\n"),
    (check_head, "core/map.c", "\n" + HEAD),
    (check_head, "core/map.c", HEAD.replace(" */\n/* Is", " */\n/*" + "\n *" * 20 + " Is")),
    (check_head, "images/demo.py", PYTHON.splitlines()[0] + "\nx = 1\n"),
    (check_head, "images/demo.py", PYTHON.splitlines()[1] + "\n"),
    (check_words, "README.md", f"- {BANNED_WORDS[0]}: write this\n"),
    (check_words, "Makefile", f"# {BANNED_WORDS[2]} hm\n"),
    (check_words, "core/map.c", f"p = {ALLOCATORS[0]}(8);\n"),
    (check_words, "efi/entry.c", f"gBS->{ALLOCATORS[4]} (EfiBootServicesData, 8, &p);\n"),
    (check_imports, "images/demo.py", "from tests.rig import vm\n"),
    (check_imports, "images/demo.py", "import os, tests.conftest\n"),
]

KEEPERS = [
    (check_layers, "core/map.c", '#include <stdint.h>\n#include "cache.h"\n'),
    (check_layers, "core/decode.c", "#include <zlib.h>\n#include <zstd.h>\n"),
    (check_layers, "drivers/posix_file.c", '#include <unistd.h>\n#include "../core/disk.h"\n'),
    (check_layers, "efi/command/info.c", '#include <efi.h>\n#include "../../core/qcow2.h"\n'),
    (check_layers, "tests/unit/test_map.c", '#include "../../core/map.h"\n#include <stdio.h>\n'),
    (check_layers, "efi/file.c", '#include "../drivers/fat.h"\n'),
    (check_floors, "core/map.c", '#include "map.h"\n#include "cache.h"\n'),
    (check_floors, "core/qcow2.h", '#include "packed.h"\n'),
    (check_floors, "core/packed.c", '#include "map.h"\n'),
    (check_lengths, "core/map.c", "x\n" * FILE_LINES_MAX),
    (check_lengths, "core/map.c", "x" * COLUMNS_MAX),
    (check_lengths, "core/map.c", BODY),
    (check_lengths, "images/demo.py", DEF),
    (check_head, "core/map.c", HEAD),
    (check_head, "images/demo.py", PYTHON),
    (check_words, "core/map.c", f"/* no {ALLOCATORS[0]} here */\n"),
    (check_words, "tests/unit/support.c", f"p = {ALLOCATORS[0]}(8);\n"),
    (check_imports, "images/demo.py", "import os\nfrom images.matrix import cells\n"),
]


@pytest.mark.parametrize("rule, path, text", OFFENDERS)
def test_offender_is_named(rule, path, text):
    assert len(list(rule(path, text))) == 1


@pytest.mark.parametrize("rule, path, text", KEEPERS)
def test_keeper_is_left_alone(rule, path, text):
    assert list(rule(path, text)) == []


def test_cycle_is_found():
    ring = {"a.h": ["b.h"], "b.h": ["c.h"], "c.h": ["a.h"], "d.c": ["stdint.h"]}
    assert include_cycle(ring) == ["a.h", "b.h", "c.h"]
    assert include_cycle({**ring, "c.h": ["d.c"]}) == []


def test_content_and_top_can_fail():
    assert check_content("a", b"text\n") == []
    assert check_content("a", b"\x7fELF\0") and check_content("a", b"\xff\xfe")
    assert check_content("a", b"x" * (FILE_BYTES_MAX + 1))
    assert check_top(["core", ".ci", "build.log", "docs"]) == ["build.log", "docs"]
