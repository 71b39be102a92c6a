# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The stack that the driver needs is small, and the tool that says so can say otherwise.

The tool is shown made-up graphs and objects of made-up sources, one for each thing it must notice.
"""

import subprocess

import pytest
from test_size import FLAGS, SECONDS_MAX

import stack
from stack import Function

RULES = {"b": ["visitor"]}
KINDS = {"visitor": ["c:visit"]}


def graph():
    """a:main calls b:walk, which calls c:visit through a pointer."""
    return {"a:main": Function(100, ["b:walk"]),
            "b:walk": Function(200, is_indirect=True),
            "c:visit": Function(300)}


def wrong_of(functions, taken=("c:visit",), rules=None, kinds=None):
    rules, kinds = rules or RULES, kinds or KINDS
    stack.follow_pointers(functions, rules, kinds)
    return stack.complaints(functions, set(taken), {"a:main"}, rules, kinds)


# ---- the driver ------------------------------------------------------------------------------


def test_driver_keeps_its_limit(build, capsys):
    assert stack.report(build / "x64"), capsys.readouterr().out


def test_paths_are_whole(build):
    """The deepest ones end where there is nothing below: in the disk or in a decoder's helper."""
    paths = stack.driver_paths(build / "x64", stack.CALLS, stack.KINDS)
    assert len(paths["core, decoders apart"][1]) > 10
    assert any(name.startswith("zstddeclib-in:") for name in paths["core"][1])
    assert not any(name.startswith("zstddeclib-in:") for name in paths["core, decoders apart"][1])
    assert paths["driver"][0] >= paths["driver, decoders apart"][0]


# ---- the tool can fail -----------------------------------------------------------------------


def test_depth_of_a_path():
    functions = graph()
    assert wrong_of(functions) == []
    assert stack.deepest_of(functions, functions) == \
        (600 + 3 * stack.RETURN_BYTES, ["a:main", "b:walk", "c:visit"])


def test_jump_gives_its_frame_up():
    functions = {"a:main": Function(100, ["c:small"], ["c:large"]),
                 "c:small": Function(10), "c:large": Function(105)}
    assert stack.deepest_of(functions, ["a:main"]) == (126, ["a:main", "c:small"])
    functions["c:large"].frame = 200
    assert stack.deepest_of(functions, ["a:main"]) == (208, ["a:main", "c:large"])


def test_ring_is_found():
    functions = {**graph(), "c:visit": Function(1, jumps=["d:last"]),
                 "d:last": Function(1, ["a:main"])}
    stack.follow_pointers(functions, RULES, KINDS)
    with pytest.raises(stack.Wrong, match="a:main -> b:walk -> c:visit -> d:last -> a:main"):
        stack.deepest_of(functions, functions)


def test_known_ring_counts_twice():
    functions = {"a:main": Function(100, ["a:main"])}
    stack.unroll(functions, {"a:main"})
    assert stack.deepest_of(functions, functions)[0] == 2 * (100 + stack.RETURN_BYTES)


def test_call_through_a_pointer_needs_a_rule():
    functions = {**graph(), "d:other": Function(1, is_indirect=True)}
    functions["a:main"].calls.add("d:other")
    assert wrong_of(functions) == ["d:other: no rule for its call through a pointer"]


def test_address_needs_a_kind():
    functions = {**graph(), "d:other": Function(1)}
    assert wrong_of(functions, ["c:visit", "d:other"]) == \
        ["d:other: no kind has it, and its address is taken"]


def test_rule_is_needed():
    assert wrong_of(graph(), rules={**RULES, "a": ["visitor"]}) == ["a: nothing needs this rule"]


def test_name_nobody_has():
    functions = graph()
    functions["a:main"].calls.add("memset")
    assert wrong_of(functions) == ["memset: nobody has it"]
    assert wrong_of(graph(), kinds={"visitor": ["c:visit", "c:gone"]}) == ["c:gone: nobody has it"]


def test_rule_of_a_function_is_before_its_file():
    rules = {"b": ["other"], "b:walk": ["visitor"]}
    functions = {**graph(), "b:run": Function(1, is_indirect=True), "d:other": Function(1)}
    functions["a:main"].calls.add("b:run")
    assert wrong_of(functions, rules=rules, kinds={**KINDS, "other": ["d:other"]}) == []
    assert functions["b:walk"].calls == {"c:visit"} and functions["b:run"].calls == {"d:other"}


def test_what_is_passed_is_called_and_nothing_else():
    """Two callers of one walk pass different visitors; one of them alone would be too deep."""
    kinds = {"visitor": ["c:visit", "c:deep"]}
    functions = {**graph(), "c:deep": Function(5000), "d:deep": Function(1, ["b:walk"])}
    functions["a:main"].taken.add("c:visit")
    functions["d:deep"].taken.add("c:deep")
    stack.follow_pointers(functions, RULES, kinds)
    assert stack.deepest_of(functions, ["a:main"])[0] == 624
    assert stack.deepest_of(functions, ["d:deep"])[1][-1] == "c:deep"


# ---- it reads objects ------------------------------------------------------------------------

SOURCE = """
int last(int *);
static int small(int n) { int a[4] = {n}; return last(a) + 1; }
int (*pointer)(int) = small;
int through(int n) { return pointer(n) + 1; }
int ring(int n) { int a[8] = {n}; return n == 0 ? last(a) : last(a) % ring(n - last(a)); }
int jumps(int n) { return last(&n + 1000); }
int plain(int n) { return through(n) + ring(n); }
int cases(int n)
{
    switch (n) {
    case 0: return last(&n); case 1: return ring(7) + 1; case 2: return through(3) * 2;
    case 3: return ring(8) + 9; case 4: return through(4) + 5; case 5: return ring(n) - 7;
    }
    return 0;
}
"""


@pytest.fixture
def sample(tmp_path):
    source = tmp_path / "sample.c"
    source.write_text(SOURCE)
    subprocess.run(["clang", *FLAGS, "-ffunction-sections", "-fno-inline", "-c", source,
                    "-o", source.with_suffix(".obj")], check=True, timeout=SECONDS_MAX)
    return stack.read_objects([source.with_suffix(".obj")])


def test_calls_of_objects(sample):
    functions, addressed = sample
    assert addressed == {"sample:small"}
    assert functions["sample:through"].is_indirect
    assert "sample:ring" in functions["sample:ring"].calls
    assert functions["sample:plain"].calls == {"sample:through", "sample:ring"}
    assert "last" in functions["sample:jumps"].calls | functions["sample:jumps"].jumps
    assert functions["sample:small"].frame >= 16
    with pytest.raises(stack.Wrong, match="a ring of calls: sample:ring -> sample:ring"):
        functions["sample:ring"].calls.discard("last")
        stack.deepest_of(functions, ["sample:ring"])


def test_switch_is_no_call_through_a_pointer(sample):
    """And the table behind it is not read as code."""
    function = sample[0]["sample:cases"]
    assert not function.is_indirect
    assert function.calls | function.jumps == {"last", "sample:ring", "sample:through"}
