"""Results of the benchmarks: one per case and direction, and the figures derived from several of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ddfnet.bench.limits import Limit
from ddfnet.bench.memory import Memory
from ddfnet.bench.registry import AnyCase, DepthCase
from ddfnet.bench.timing import Timing

LARGE = 1_000_000  # bytes; in smaller cases the cost of a call dominates, and the share of the limit says little


@dataclass(frozen=True)
class Result:
    """A case that was checked and timed: operator, layer, network or depth tool."""

    case: AnyCase
    direction: str  # "forward", "forward+backward", "inference", "inference compiled" or "training step"
    ours: str  # the competitor that is judged
    baseline: str  # the competitor that it is judged by
    timings: tuple[Timing, ...]
    skipped: dict[str, str]  # competitor -> the reason why it was left out
    error: float  # our largest error, as a share of the tolerance
    limit: Limit | None = None
    memory: tuple[Memory, ...] = ()
    backward_ratio: float | None = None  # our backward pass over our forward pass: the median over the rounds

    def timing(self, competitor: str) -> Timing:
        return next(timing for timing in self.timings if timing.competitor == competitor)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def one_line(failure: Exception) -> str:
    """Return an exception as one line, for `Result.skipped` and for messages."""
    text = str(failure).strip()
    return f"{type(failure).__name__}: {text.splitlines()[0]}" if text else type(failure).__name__


# --- all cases of a direction -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Geometric means and the worst case of one direction."""

    direction: str
    cases: int
    ratio: float  # the geometric mean over the cases of our time over the baseline's
    worst: float  # the largest of those ratios
    worst_case: str
    others: dict[str, float]  # competitor -> the geometric mean of its time over ours, over the cases that it is in
    least_share: float | None  # the least share of the machine's limit, among the cases above `LARGE` bytes
    least_share_case: str | None


def summarise(results: Sequence[Result]) -> tuple[Summary, ...]:
    """Return one summary per direction, in the order of the results.

    Args:
        results: the results of one run.

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
    """Return the mean of ratios whose inverse is the mean of the inverse ratios.

    Example:
        >>> geometric_mean([0.5, 2.0])
        1.0
    """
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def _summary(results: Sequence[Result]) -> Summary:
    ratios = {result.case.name: result.timing(result.ours).ratio for result in results}
    worst = max(ratios, key=lambda name: ratios[name])
    others: dict[str, list[float]] = {}
    for result in results:
        for timing in result.timings:
            if timing.competitor != results[0].ours:
                others.setdefault(timing.competitor, []).append(timing.over_ours)
    limits = {result.case.name: result.limit for result in results if result.limit is not None}
    shares = {name: limit.share for name, limit in limits.items() if limit.bytes > LARGE}
    least = min(shares, key=lambda name: shares[name]) if shares else None
    return Summary(
        direction=results[0].direction,
        cases=len(results),
        ratio=geometric_mean(ratios.values()),
        worst=ratios[worst],
        worst_case=worst,
        others={name: geometric_mean(values) for name, values in others.items()},
        least_share=None if least is None else shares[least],
        least_share_case=least,
    )


# --- the cost of a depth map --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Time and memory of one method on one depth map.

    Memory is the growth beyond inputs and result, None where it was not measured.
    """

    method: str
    shape: str  # the size of guide image and result, width first
    factor: int
    seconds: float
    seconds_per_megapixel: float
    mib: float | None
    mib_per_megapixel: float | None


def costs(result: Result) -> tuple[Cost, ...]:
    """Return the cost of each method in a result of `ddfnet.bench.depth`, in the order of its timings."""
    case = result.case
    if not isinstance(case, DepthCase):
        raise TypeError(f"a result of a DepthCase is required, got {case}")
    added = {memory.competitor: memory.added for memory in result.memory}
    found = []
    for timing in result.timings:
        seconds, mib = timing.median / 1e3, added.get(timing.competitor)
        found.append(
            Cost(
                method=timing.competitor,
                shape=case.shape,
                factor=case.factor,
                seconds=seconds,
                seconds_per_megapixel=seconds / case.megapixels,
                mib=mib,
                mib_per_megapixel=None if mib is None else mib / case.megapixels,
            )
        )
    return tuple(found)
