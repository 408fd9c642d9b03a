"""Benchmark of the depth tool: its methods, its checks, and its cost per megapixel."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ddfnet.bench import depth, memory
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import CASES, DEPTHS
from ddfnet.bench.result import costs, summarise
from ddfnet.ops import backends
from tests.guided_networks import network

cv2 = pytest.importorskip("cv2")
pytest.importorskip("skimage")
if not hasattr(cv2, "ximgproc"):
    pytest.skip("this OpenCV was built without ximgproc", allow_module_level=True)

TINY = DEPTHS["tiny"]
TIMED = partial(depth.run, [TINY], rounds=1, measure_memory=False)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr("ddfnet.depth.network.default_model", lambda: model)


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, change) -> None:
    """Change the result of this method."""
    method = depth._METHODS[name]
    monkeypatch.setitem(depth._METHODS, name, lambda *inputs, **options: change(method(*inputs, **options)))


def nan_in_one_pixel(values: torch.Tensor) -> torch.Tensor:
    values[7, 5] = torch.nan
    return values


def test_the_cases() -> None:
    sizes = [(case.shape, case.factor) for name, case in DEPTHS.items() if name != "tiny"]
    assert sizes == [(shape, factor) for shape in ("640x480", "1920x1088") for factor in (4, 8, 16)]


def test_all_take_part() -> None:
    [result] = TIMED()
    assert (result.ours, result.baseline, result.direction) == ("ddfnet", "guided-filter", "inference")
    assert tuple(timing.competitor for timing in result.timings) == depth.NAMES
    assert 0 < result.error < 1
    assert all(0 < timing.median == timing.other_median for timing in result.timings)
    [summary] = summarise([result])
    assert summary.ratio == pytest.approx(result.timing("ddfnet").ratio)
    assert set(summary.others) == set(depth.NAMES[1:])


def test_all_methods_have_the_same_scene() -> None:
    (low, valid, offset), guide, factor = depth._Inputs.for_case(TINY)
    assert (low.shape, valid.shape, guide.shape) == ((12, 16), (12, 16), (3, 48, 64))
    assert (factor, offset) == (4, 1)
    assert guide.permute(1, 2, 0).is_contiguous(), "as files have it"
    assert torch.equal(depth._Inputs.for_case(TINY).guide, guide)


def test_opencv_has_the_threads_of_torch() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(torch.get_num_threads() + 1)
    try:
        list(TIMED(only=[]))
        assert cv2.getNumThreads() == torch.get_num_threads()
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("name", ["guided-filter", "bilinear"])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda values: values[1:], r"\(47, 64\), from "),
        (lambda values: 2 * values, r"\(48, 64\), from "),
        (nan_in_one_pixel, r"\(48, 64\), from nan to nan"),
    ],
    ids=["smaller", "beyond the range", "nan"],
)
def test_an_impossible_result_is_not_timed(monkeypatch: pytest.MonkeyPatch, name: str, change, got: str) -> None:
    spoil(monkeypatch, name, change)
    message = rf"^{name} does not agree with its samples on tiny: 64x48, 4x: required is a map \(48, 64\), .* got {got}"
    with pytest.raises(WrongResultError, match=message):
        list(TIMED(only=[name]))


@pytest.mark.parametrize("name", ["ddfnet", "ddfnet-tile256"])
def test_a_wrong_depth_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    spoil(monkeypatch, name, lambda values: values if backends.chosen() == "reference" else values * (1 + 1e-4))
    with pytest.raises(WrongResultError, match=f"^{name} does not agree with the reference operator on tiny: "):
        list(TIMED(only=[name]))


def test_the_cost_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, memory_format: str, prepare, *arguments) -> memory.Memory:
        [result] = prepare(*arguments)()
        return memory.Memory(name, memory_format, 3.0, result.nbytes / memory.MIB)

    monkeypatch.setattr(memory, "measure", here)
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    [result] = depth.run([TINY], rounds=1, only=["ddfnet-tile256"])
    rows = costs(result)
    assert [row.method for row in rows] == ["ddfnet", "ddfnet-tile256", "guided-filter"]
    assert [row.competitor for row in result.memory] == [row.method for row in rows]
    for row, timing in zip(rows, result.timings, strict=True):
        assert (row.shape, row.factor, row.mib) == ("64x48", 4, 3.0)
        assert row.seconds == timing.median / 1000
        assert row.seconds_per_megapixel == pytest.approx(row.seconds / 0.003072)
        assert row.mib_per_megapixel == pytest.approx(3.0 / 0.003072)


def test_where_memory_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "can_measure", lambda device: (False, "not here"))
    [result] = depth.run([TINY], rounds=1, only=[])
    assert (result.memory, result.skipped) == ((), {"memory": "not here"})
    assert {(row.mib, row.mib_per_megapixel) for row in costs(result)} == {(None, None)}


def test_only_depth_maps_have_costs(made_up) -> None:
    with pytest.raises(TypeError, match="a result of a DepthCase is required, got c64"):
        costs(made_up(CASES["c64"]))
