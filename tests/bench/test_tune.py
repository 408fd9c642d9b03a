"""Choice among candidate tiles, with made-up kernels; tests/cli/test_bench.py tunes the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import pytest
import torch

import ddfnet
from ddfnet.bench.registry import Case

pytest.importorskip("triton")
from ddfnet.bench import timing, tune
from ddfnet.ops import registration
from ddfnet.ops.triton import config
from ddfnet.ops.triton.common import StaticGeometry
from ddfnet.ops.triton.config import FilterTile, LaunchConfig, Problem

CASE = Case("small", (1, 4, 6, 5))


def numbered(warps: int) -> LaunchConfig:
    """Return a configuration that differs from others in its warps."""
    return LaunchConfig(FilterTile(1, 1, 1, 1, 1), warps)


HEURISTIC, SLOW, FAST, WRONG, BROKEN = map(numbered, (1, 2, 4, 8, 16))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[LaunchConfig]:
    """Replace kernels by the reference and clocks by made-up times; return the configurations that ran, in order."""
    call, ran = tune._call, []

    def _call(case: Case, kernel: str, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        geometry = StaticGeometry(*(case.kernel_size,) * 2, 1, 1, 1, 1, 1, 1, False)
        channels_last = tensors[-3].is_contiguous(memory_format=torch.channels_last)
        chosen = config.choose(Problem(kernel, channels_last, 4, 1, 1, 4, 6, 5, geometry, "sm_00", 1))
        ran.append(chosen)
        if chosen == BROKEN:
            raise RuntimeError("out of resource: shared memory\nand more")
        with ddfnet.ops.backend("reference"):
            results = call(case, kernel, tensors)
        return [result * 1.001 for result in results] if chosen == WRONG else results

    def clock(
        calls: Mapping[LaunchConfig, Callable[[], object]], rounds: int, device: torch.device
    ) -> dict[LaunchConfig, list[float]]:
        times = {HEURISTIC: 10.0, SLOW: 9.9, FAST: 8.0}
        for own in calls.values():
            own()
        return {key: [times[key]] * rounds for key in calls}

    monkeypatch.setattr(tune, "_call", _call)
    monkeypatch.setattr(tune, "interleave", clock)
    monkeypatch.setattr(config, "heuristic", lambda problem: HEURISTIC)
    return ran


def candidates(monkeypatch: pytest.MonkeyPatch, *configs: LaunchConfig) -> None:
    monkeypatch.setattr(tune, "candidates", lambda problem: [HEURISTIC, *configs])


def test_the_fastest_correct_candidate_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates(monkeypatch, SLOW, WRONG, FAST, BROKEN)
    results = list(tune.run([CASE], rounds=3, device="cpu"))
    assert [(result.problem.channels_last, result.problem.kernel) for result in results] == [
        (last, kernel) for last in (False, True) for kernel in ("fwd", "bwd_input", "bwd_filters")
    ]
    for result in results:
        assert (result.config, result.milliseconds, result.heuristic_milliseconds, result.ratio) == (FAST, 8, 10, 0.8)
        assert result.is_faster
        wrong, broken = result.rejected
        assert "TAP_ROWS=1), 8 warps does not agree with the heuristic's configuration on small" in wrong
        assert broken == "FilterTile(BLOCK_W=1, BLOCK_C=1, BLOCK_H=1, STEPS_W=1, TAP_ROWS=1), 16 warps: " + (
            "RuntimeError: out of resource: shared memory"
        )
        first, *others = str(result).splitlines()
        assert first == f"{result.problem.key}: heuristic 10.0000 ms, best 8.0000 ms (0.80), {FAST.tile}, 4 warps"
        assert others == [f"  left out: {wrong}", f"  left out: {broken}"]


def test_a_gain_that_may_be_chance_does_not_beat_the_heuristic(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates(monkeypatch, SLOW)
    assert {(result.config, result.is_faster) for result in tune.run([CASE], device="cpu")} == {(SLOW, False)}


def test_a_problem_is_measured_once_and_with_the_asked_number_of_candidates(
    monkeypatch: pytest.MonkeyPatch, made_up: list[LaunchConfig]
) -> None:
    candidates(monkeypatch, SLOW, FAST)
    results = list(tune.run([CASE, CASE], max_candidates=2, device="cpu"))
    assert len(results) == 6
    assert set(made_up) == {HEURISTIC, SLOW}


def test_calls_rotate_through_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates(monkeypatch)
    seen: list[int] = []

    def recorded(x: torch.Tensor, *others: object) -> torch.Tensor:
        seen.append(x.data_ptr())
        return registration.ddf(x, *others)

    def thrice(
        calls: Mapping[LaunchConfig, Callable[[], object]], rounds: int, device: torch.device
    ) -> dict[LaunchConfig, list[float]]:
        for call in (*calls.values(),) * 3:
            call()
        return {key: [1.0] for key in calls}

    monkeypatch.setattr(tune, "registration", SimpleNamespace(ddf=recorded))
    monkeypatch.setattr(tune, "interleave", thrice)
    monkeypatch.setattr(timing, "_cache", lambda device: 4 * (120 + 36 + 270))  # bytes that the kernel reads
    next(tune.run([CASE], device="cpu"))
    assert len(set(seen[-3:])) == 3
