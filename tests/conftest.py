# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What every suite shares: where the binaries and the cached images lie, and the C unit tests.

Each cmocka program tests/unit/test_NAME.c is collected as one file whose tests are items of their
own, so that they are named, chosen and counted like those written in Python.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNIT_TIMEOUT_S = 300
# Properties of tests whose numbers are added up: refusals that one verified, states after a cut.
REFUSALS, STATES = "refusal cases", "crash states"

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "rig"))


def pytest_addoption(parser):
    parser.addoption("--build", default="build", help="where the binaries under test lie")
    parser.addoption("--long", action="store_true", help="the long runs of make test-all")
    parser.addoption("--only", help="the tests that have this in their name, - and _ alike")


counted = {}


def build_folder(config):
    return (ROOT / config.getoption("--build")).resolve()


@pytest.fixture(scope="session")
def build(request):
    return build_folder(request.config)


@pytest.fixture(scope="session")
def cache():
    """For what does not depend on the binaries: images, kernels, saved machines."""
    folder = ROOT / "build" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_runtest_logreport(report):
    """Adds up, where all reports come together, what tests say they counted."""
    for name, value in report.user_properties if report.when == "call" else ():
        if name in (REFUSALS, STATES):
            counted[name] = counted.get(name, 0) + value


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput") or not counted:
        return
    figures = build_folder(session.config) / "figures"
    figures.mkdir(exist_ok=True)
    lines = [f"{name} {value}\n" for name, value in counted.items()]
    (figures / "counted.txt").write_text("".join(lines))


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--only"):
        return
    wanted = config.getoption("--only").replace("-", "_")
    keep, drop = [], []
    for item in items:
        (keep if wanted in item.nodeid.replace("-", "_") else drop).append(item)
    config.hook.pytest_deselected(items=drop)
    items[:] = keep


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".c" and file_path.parent.name == "unit":
        if file_path.name.startswith("test_"):
            return UnitProgram.from_parent(parent, path=file_path)
    return None


class UnitProgram(pytest.File):
    """One cmocka program. It runs once; its items report what it said of each test."""

    results = None
    refusals_count = 0

    def collect(self):
        source = self.path.read_text()
        for name in re.findall(r"(?:cmocka_unit_test|RIG_TEST)\((\w+)\)", source):
            yield UnitTest.from_parent(self, name=name)

    def result_of(self, name):
        if self.results is None:
            self.results = self.run_program()
        return self.results.get(name, (False, "it did not get to this test\n" + self.output))

    def run_program(self):
        program = build_folder(self.config) / "host" / "unit" / self.path.stem
        env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
        run = subprocess.run([program], capture_output=True, text=True, errors="replace",
                             timeout=UNIT_TIMEOUT_S, env=env, check=False)
        self.output = run.stdout + run.stderr
        said = re.search(rf"^# {REFUSALS} (\d+)$", self.output, re.MULTILINE)
        self.refusals_count = int(said[1]) if said else 0
        return parse_tap(self.output)


def parse_tap(output):
    """{test name: (passed, what it said)}; a failed test's lines stand before or after its own."""
    results = {}
    for line in output.splitlines():
        match = re.match(r"(not ok|ok) \d+ - (\w+)", line)
        if match:
            results[match[2]] = (match[1] == "ok", output)
    return results


class UnitTest(pytest.Item):
    def runtest(self):
        passed, said = self.parent.result_of(self.name)
        # The program's whole number, with the first of its tests that ran.
        self.user_properties.append((REFUSALS, self.parent.refusals_count))
        self.parent.refusals_count = 0
        if not passed:
            raise UnitTestFailed(said)

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, UnitTestFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, None, f"{self.path.stem}::{self.name}"


class UnitTestFailed(Exception):
    pass
