"""Benchmark of the family: all operators, both directions, and a wrong operator that is found."""

from __future__ import annotations

import pytest

from ddfnet import family
from ddfnet.bench import family as benchmark
from ddfnet.bench import memory
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import FAMILY_GROUPS

TINY = FAMILY_GROUPS["tiny"]
# Not `dysample`: it reads moved points by ``F.grid_sample`` and has no windows that ``F.unfold`` could store.
OPERATORS = {name for name in family.__all__ if name.islower()} - {"dysample"}


def test_every_operator_takes_part() -> None:
    for group, cases in FAMILY_GROUPS.items():
        assert {case.operator for case in cases} == OPERATORS, group
    assert {case.shape for case in FAMILY_GROUPS["default"]} == {(2, 256, 100, 152)}


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_both_agree_forward_and_backward(case) -> None:
    results = list(benchmark.run([case], rounds=1, backward=True))
    assert [result.direction for result in results] == ["forward", "forward+backward"]
    for result in results:
        assert [timing.competitor for timing in result.timings] == ["ddfnet", "unfold"]
        assert (result.ours, result.baseline) == ("ddfnet", "unfold")
        assert 0 <= result.error < 1


def test_a_wrong_operator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = family.pac
    monkeypatch.setattr(family, "pac", lambda *arguments: right(*arguments) * 1.001)
    [case] = [case for case in TINY if case.operator == "pac"]
    with pytest.raises(WrongResultError, match="ddfnet does not agree with the unfold form on pac-tiny"):
        benchmark.measure(case, "forward", rounds=1)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    with pytest.raises(memory.MemoryUnavailableError, match="carafe-tiny.* would need"):
        benchmark.measure(TINY[0], "forward", rounds=1)
