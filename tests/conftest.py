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

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "rig"))


def pytest_addoption(parser):
    parser.addoption("--build", default="build", help="where the binaries under test lie")
    parser.addoption("--long", action="store_true", help="the long runs of make test-all")
    parser.addoption("--only", help="the tests that have this in their name, - and _ alike")


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
