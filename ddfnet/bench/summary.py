"""What several cases say together: geometric means and the worst case of each direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ddfnet.bench.result import Result

LARGE = 1_000_000  # bytes; what is smaller is mostly the cost of a call, and its share of the limit says little


@dataclass(frozen=True)
class Summary:
    """All cases that were timed in one direction."""

    direction: str
    cases: int
    ratio: float  # the geometric mean over the cases of our time over the baseline's
    worst: float  # the largest of those ratios
    worst_case: str
    others: dict[str, float]  # competitor -> the geometric mean of its time over ours, over the cases that it is in
    least_share: float | None  # of the machine's limit, among the cases above `LARGE` bytes
    least_share_case: str | None


def summarise(results: Sequence[Result]) -> tuple[Summary, ...]:
    """One summary a direction, in the order in which they come.

    Args:
        results: of one run.

    Example:
        >>> from ddfnet.bench import op
        >>> from ddfnet.bench.registry import CASES
        >>> [summary] = summarise(list(op.run([CASES["tiny"]], rounds=1, only=["unfold"])))
        >>> summary.direction, summary.cases, summary.worst_case, list(summary.others)
        ('forward', 1, 'tiny', ['depthwise', 'unfold'])
    """
    directions = dict.fromkeys(result.direction for result in results)
    return tuple(_summary([result for result in results if result.direction == direction]) for direction in directions)


def geometric_mean(values: Iterable[float]) -> float:
    """The mean of ratios: that of their inverses is its inverse.

    Example:
        >>> geometric_mean([0.5, 2.0])
        1.0
    """
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def _summary(results: Sequence[Result]) -> Summary:
    ratios = {result.case.name: result.timing(result.ours).ratio for result in results}
    worst = max(ratios, key=lambda name: ratios[name])
    others = dict.fromkeys(timing.competitor for result in results for timing in result.timings)
    shares = {
        result.case.name: result.limit.share
        for result in results
        if result.limit is not None and result.limit.bytes > LARGE
    }
    least = min(shares, key=lambda name: shares[name]) if shares else None
    return Summary(
        results[0].direction,
        len(results),
        geometric_mean(ratios.values()),
        ratios[worst],
        worst,
        {
            name: geometric_mean(
                timing.over_ours for result in results for timing in result.timings if timing.competitor == name
            )
            for name in others
            if name != results[0].ours
        },
        None if least is None else shares[least],
        least,
    )
