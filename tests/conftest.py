"""Fixtures of all tests, and the support table that a run can write (``--support-table FILE``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

COLUMNS = {
    "reference": "reference (any device)",
    "cpu-baseline": "CPU, baseline",
    "cpu-avx2": "CPU, AVX2",
    "cpu-avx512": "CPU, AVX-512",
    "triton": "GPU, Triton",
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill every uninitialised tensor with NaN, which shows a pixel that a kernel does not write."""
    empty = torch.empty

    def empty_of_nan(*args, **kwargs):
        result = empty(*args, **kwargs)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    monkeypatch.setattr(torch, "empty", empty_of_nan)
    yield


# --- the support table ------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--support-table", type=Path, help="write the number of passed tests of each feature and kernel to FILE"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "supports(feature): the test shows a feature of the kernel named by its `name`")
    path = config.getoption("--support-table")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SupportTable(path))


@pytest.fixture(autouse=True)
def _record_feature(request: pytest.FixtureRequest, record_property) -> None:
    marker = request.node.get_closest_marker("supports")
    if marker is not None:
        parameters = request.node.callspec.params
        dtype = parameters.get("dtype")
        feature = marker.args[0] if dtype is None else f"{marker.args[0]}, {str(dtype).removeprefix('torch.')}"
        record_property("supports", (feature, parameters["name"]))


class SupportTable:
    """Markdown table of the passed and failed tests of each feature and kernel.

    The column of a kernel that did not run stays unchanged: the GPU kernels have a run of their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = self._read()
        self.passed: dict[tuple[str, str], int] = defaultdict(int)
        self.failed: dict[tuple[str, str], int] = defaultdict(int)

    def _read(self) -> dict[tuple[str, str], str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")][1:]
        return {(row[0], column): cell for row in rows for column, cell in zip(COLUMNS, row[1:], strict=False)}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties:
            if key == "supports" and (report.when == "call" or report.failed):
                counts = self.failed if report.failed else self.passed
                counts[tuple(value)] += 1

    def pytest_sessionfinish(self) -> None:
        counted = {*self.passed, *self.failed}
        ran = {column for _, column in counted}
        kept = {feature for feature, column in self.before if column not in ran}
        features = sorted(kept.union(feature for feature, _ in counted))
        lines = [
            "# Support, as tested",
            "",
            "Written by the test run (`make test`), not by hand: the number of tests of each feature that passed on",
            "each kernel. A cell without a number was not run on the machine that wrote this page. The GPU kernels run",
            "in Triton's interpreter on the CPU, on smaller maps; they were not yet run on a GPU.",
            "",
            "| feature | " + " | ".join(COLUMNS.values()) + " |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        for feature in features:
            cells = []
            for column in COLUMNS:
                passed, failed = self.passed[feature, column], self.failed[feature, column]
                if column not in ran:
                    cells.append(self.before.get((feature, column), "not run"))
                else:
                    cells.append(f"**{failed} failed**" if failed else str(passed) if passed else "not run")
            lines.append(f"| {feature} | " + " | ".join(cells) + " |")
        self.path.write_text("\n".join(lines) + "\n")
