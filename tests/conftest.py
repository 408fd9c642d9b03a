"""Fixtures of all tests, and the support table that a run can write (``--support-table FILE``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddfnet.ops import backends
from tests import fuzzing

LABELS = {"reference": "reference (any device)", "triton": "GPU, Triton"}


def column_of(kernel: str) -> str:
    """Return the support table's heading for a kernel as `tests/ops/cases.py` names it."""
    return LABELS.get(kernel, kernel.replace("cpu-", "CPU, "))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Iterator[fuzzing.Cases]:
    """Draw random cases, each a generator of numpy, for a share of ``--fuzz-seconds``."""
    yield from fuzzing.draw_cases(request)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill every uninitialised tensor with NaN, which shows a pixel that a kernel does not write."""
    empty = torch.empty

    def empty_of_nan(*args, **kwargs):
        result = empty(*args, **kwargs)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    monkeypatch.setattr(torch, "empty", empty_of_nan)
    yield


@pytest.fixture
def registries() -> Iterator[None]:
    """Take back what a test registers: the test that comes after it in the process may be any other."""
    import ddfnet.depth.network
    import ddfnet.models.classifier
    import ddfnet.models.faster_rcnn  # noqa: F401  (the kinds of pretrained networks: imported later, they would be lost)
    from ddfnet.data.classification.sources import SOURCES
    from ddfnet.depth.io import FORMATS
    from ddfnet.models.upsamplers import UPSAMPLERS
    from ddfnet.pretrained import _KINDS
    from ddfnet.tasks import TASKS

    before = [(registry, registry.copy()) for registry in (_KINDS, FORMATS, SOURCES, TASKS, UPSAMPLERS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


# --- the support table ------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    fuzzing.add_options(parser)
    parser.addoption(
        "--support-table", type=Path, help="write the number of passed tests of each feature and kernel to FILE"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "supports(feature): the test shows a feature of the kernel named by its `name`")
    config.pluginmanager.register(fuzzing.CaseCounts())
    # The threads of pytest-xdist call no operator: the compiled kernel is tested as a program of one thread calls it.
    backends._only_one_thread = lambda: True
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
        record_property("supports", (feature, column_of(parameters["name"])))


class SupportTable:
    """Markdown table of the passed and failed tests of each feature and kernel.

    The column of a kernel that did not run stays unchanged: the GPU kernels have a run of their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before: dict[tuple[str, str], str] = {}
        self.columns: list[str] = []
        self._read()
        self.passed: dict[tuple[str, str], int] = defaultdict(int)
        self.failed: dict[tuple[str, str], int] = defaultdict(int)

    def _read(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
        if rows:
            _, *self.columns = rows[0]
        self.before = {
            (row[0], column): cell for row in rows[1:] for column, cell in zip(self.columns, row[1:], strict=True)
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties:
            if key == "supports" and (report.when == "call" or report.failed):
                counts = self.failed if report.failed else self.passed
                counts[tuple(value)] += 1

    def pytest_sessionfinish(self) -> None:
        counted = {*self.passed, *self.failed}
        ran = dict.fromkeys(column for _, column in [*self.passed, *self.failed])
        self.columns += [column for column in ran if column not in self.columns]
        kept = {feature for feature, column in self.before if column not in ran}
        features = sorted(kept.union(feature for feature, _ in counted))
        lines = [
            "# Support, as tested",
            "",
            "Written by the test run (`make test`), not by hand: the number of tests of each feature that passed on",
            "each kernel. A cell without a number was not run on the machine that wrote this page. The GPU kernels run",
            "in Triton's interpreter on the CPU, on smaller maps; they were not yet run on a GPU. The CPU kernel of",
            "64-bit ARM (NEON) runs under emulation, without torch (`make neon`), and is not timed.",
            "",
            "| feature | " + " | ".join(self.columns) + " |",
            "|---" * (len(self.columns) + 1) + "|",
        ]
        for feature in features:
            cells = []
            for column in self.columns:
                passed, failed = self.passed[feature, column], self.failed[feature, column]
                if column not in ran:
                    cells.append(self.before.get((feature, column), "not run"))
                else:
                    cells.append(f"**{failed} failed**" if failed else str(passed) if passed else "not run")
            lines.append(f"| {feature} | " + " | ".join(cells) + " |")
        self.path.write_text("\n".join(lines) + "\n")
