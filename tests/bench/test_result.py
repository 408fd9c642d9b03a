"""Summaries of results: geometric means, the worst case, and the cases that do not count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddfnet.bench.registry import CASES
from ddfnet.bench.result import summarise


def test_one_summary_per_direction(made_up) -> None:
    results = [
        made_up(CASES["c64"], ratio=0.5, share=0.7),
        made_up(CASES["c64"], "forward+backward", ratio=0.9),
        made_up(CASES["c128"], ratio=2.0, share=0.6),
        made_up(CASES["tiny"], ratio=1.0, share=0.01),
    ]
    forward, both = summarise(results)
    assert (forward.direction, forward.cases) == ("forward", 3)
    assert forward.ratio == pytest.approx(1.0)
    assert (forward.worst, forward.worst_case) == (pytest.approx(2.0), "c128")
    assert forward.others == {"depthwise": pytest.approx(1.0), "unfold": pytest.approx(16)}
    assert (forward.least_share, forward.least_share_case) == (0.6, "c128"), "tiny is too small to count"
    assert (both.direction, both.cases, both.ratio) == ("forward+backward", 1, pytest.approx(0.9))


def test_a_competitor_of_some_cases_counts_in_those(made_up) -> None:
    with_unfold, without = made_up(CASES["c64"]), made_up(CASES["c128"])
    without = replace(without, timings=without.timings[:2])
    [summary] = summarise([without, with_unfold])
    assert summary.others["unfold"] == pytest.approx(16)


def test_without_limits_there_is_no_share(made_up) -> None:
    [summary] = summarise([replace(made_up(CASES["c64"]), limit=None)])
    assert (summary.least_share, summary.least_share_case) == (None, None)
