"""Regression check: the cases of a results file are timed again, and their ratios compared, never absolute times.

A ratio compares the operator with a baseline that was timed in the same rounds, so it holds on a busy or slower
machine. It does not hold for another instruction set, for which both sides have other code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ddfnet.bench import depth, export, family, layer, network, op
from ddfnet.bench.documents import Document
from ddfnet.bench.result import Result

BOUND = 0.15
_MEASURES: dict[str, Callable[..., Result]] = {
    "op": op.measure,
    "layer": layer.measure,
    "network": network.measure,
    "family": lambda case, direction, *, only, **options: family.measure(case, direction, **options),
    # Both have one direction, and OpenCV and exported networks run on the CPU only.
    "export": lambda case, direction, *, device, only, **options: export.measure(case, **options),
    "depth": lambda case, direction, *, device, **options: depth.measure(case, **options),
}


@dataclass(frozen=True)
class Comparison:
    """A case that was timed again."""

    case: str
    direction: str
    recorded: float  # our time over the baseline's, in the file
    measured: float  # the same now; the lower one if it was measured twice
    twice: bool

    @property
    def change(self) -> float:
        """Relative change of the ratio; above 0 is slower."""
        return self.measured / self.recorded - 1

    @property
    def is_regression(self) -> bool:
        return self.change > BOUND


def check(document: Document, *, rounds: int = 30) -> Iterator[Comparison]:
    """Time every case of a results file again, beside its baseline only.

    Noise is not a regression: a case beyond the bound is timed a second time, and counts if it is beyond it again.

    Args:
        document: the content of the file.
        rounds: the number of timings of each.

    Returns:
        One comparison per case and direction, as each is done.

    Raises:
        WrongResultError: a result is wrong now.
    """
    measure = _MEASURES[document.what]

    def ratio(result: Result) -> float:
        return result.timing(result.ours).ratio

    for result in document.results:

        def again(result: Result = result) -> float:
            options: dict[str, Any] = {"rounds": rounds, "only": (), "device": document.device}
            return ratio(measure(result.case, result.direction, **options))

        yield compare(result.case.name, result.direction, ratio(result), again)


def compare(case: str, direction: str, recorded: float, again: Callable[[], float]) -> Comparison:
    """Compare one case, which ``again`` times.

    Example:
        >>> times = iter([1.3, 1.1])
        >>> compare("c64", "forward", 1.0, lambda: next(times))
        Comparison(case='c64', direction='forward', recorded=1.0, measured=1.1, twice=True)
    """
    first = Comparison(case, direction, recorded, again(), twice=False)
    if not first.is_regression:
        return first
    return Comparison(case, direction, recorded, min(first.measured, again()), twice=True)
