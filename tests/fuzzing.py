"""Seeded random cases within a time (``--fuzz-seconds``), for the tests in tests/fuzz."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

LEAST_CASES = 5


class Cases:
    """Random generators, one per case, until the time of the test is over.

    Case number i of a seed is the same in every run: ``--fuzz-seed SEED --fuzz-first i`` begins with it. At least five
    cases are drawn, however slow they are.

    Args:
        seed: Seed of all cases.
        first: Number of the first case.
        seconds: Time after which no case begins.
    """

    def __init__(self, seed: int, first: int, seconds: float) -> None:
        self.seed, self.first, self.seconds = seed, first, seconds
        self.number = first - 1

    @property
    def count(self) -> int:
        """Number of cases so far."""
        return self.number - self.first + 1

    def __iter__(self) -> Iterator[np.random.Generator]:
        end = time.monotonic() + self.seconds
        while self.count < LEAST_CASES or time.monotonic() < end:
            self.number += 1
            yield np.random.default_rng([self.seed, self.number])


def add_options(parser: pytest.Parser) -> None:
    """Add the options of the fuzzers to pytest."""
    group = parser.getgroup("fuzz", "random cases (tests/fuzz)")
    group.addoption("--fuzz-seconds", type=float, default=120, help="time of all fuzzers together, default 120")
    group.addoption("--fuzz-seed", type=int, default=0, help="seed of the cases, default 0")
    group.addoption("--fuzz-first", type=int, default=0, help="number of the first case, to repeat one that failed")


def draw_cases(request: pytest.FixtureRequest) -> Iterator[Cases]:
    """Yield the cases of one test, whose time is an equal share of ``--fuzz-seconds``."""
    option = request.config.getoption
    tests = sum("cases" in getattr(item, "fixturenames", ()) for item in request.session.items)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    seconds = option("--fuzz-seconds") * min(1, workers / tests)
    cases = Cases(option("--fuzz-seed"), option("--fuzz-first"), seconds)
    yield cases
    request.node.user_properties.append(("cases", cases.count))
    last = f"{cases.count} cases; repeat the last: --fuzz-seed {cases.seed} --fuzz-first {cases.number}"
    request.node.add_report_section("teardown", "fuzz", last)  # printed only when the test fails
    assert cases.count, "the fuzzer drew no case"


class CaseCounts:
    """Summary that names the number of cases of each fuzzer."""

    def pytest_terminal_summary(self, terminalreporter) -> None:
        counts = {
            report.nodeid: value
            for reports in terminalreporter.stats.values()
            for report in reports
            for key, value in getattr(report, "user_properties", ())
            if key == "cases"
        }
        if counts:
            terminalreporter.section("fuzzers")
            for test, count in sorted(counts.items()):
                terminalreporter.line(f"{count:>9,} cases  {test}")
