"""Regression check of made-up documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ddfnet.bench import check
from ddfnet.bench.documents import Document
from ddfnet.bench.registry import CASES

RECORDED = {"c64": 0.8, "c128": 0.9}


@pytest.fixture
def checked(made_up, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[check.Comparison]]:
    """Return a function that checks made-up cases, which have the given ratios now, one after another."""

    def run(**ratios: list[float]) -> list[check.Comparison]:
        now: dict[str, Iterator[float]] = {name: iter(values) for name, values in ratios.items()}

        def measure(case, direction, *, rounds, only, device):
            assert (rounds, tuple(only), device) == (7, (), "cpu")
            return made_up(case, direction, ratio=next(now[case.name]))

        monkeypatch.setitem(check._MEASURES, "op", measure)
        results = [made_up(CASES[name], ratio=ratio) for name, ratio in RECORDED.items()]
        document = Document("op", "", 30, "cpu", "", {}, results)
        found = list(check.check(document, rounds=7))
        assert all(next(rest, None) is None for rest in now.values()), "no measurement more"
        return found

    return run


def test_an_equal_ratio_passes(checked) -> None:
    c64, c128 = checked(c64=[0.8], c128=[0.5])
    assert not (c64.is_regression or c128.is_regression)
    assert (c64.case, c64.direction, c64.recorded, c64.measured) == ("c64", "forward", 0.8, pytest.approx(0.8))
    assert c64.change == pytest.approx(0)
    assert c128.change == pytest.approx(0.5 / 0.9 - 1)


def test_within_the_bound_passes_and_is_measured_once(checked) -> None:
    c64, _ = checked(c64=[0.8 * 1.149], c128=[0.9])
    assert not c64.is_regression and not c64.twice


def test_noise_is_measured_a_second_time(checked) -> None:
    c64, c128 = checked(c64=[2.0, 0.81], c128=[0.9])
    assert not c64.is_regression and c64.twice and c64.measured == pytest.approx(0.81)
    assert not c128.twice


def test_a_regression_shows_in_two_measurements(checked) -> None:
    c64, c128 = checked(c64=[1.0, 0.95], c128=[0.9])
    assert c64.is_regression and c64.twice
    assert c64.measured == pytest.approx(0.95), "the better of the two"
    assert not c128.is_regression


def test_every_kind_of_result_can_be_measured_again() -> None:
    from ddfnet.bench.documents import _CASES

    assert set(check._MEASURES) == set(_CASES)
