# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The proofs belong to the long runs of make test-all, and are not looked at without --long."""


def pytest_ignore_collect(config):
    return not config.getoption("--long") or None
