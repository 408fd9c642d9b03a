"""The regression guard: times the cases of a results file again and compares ratios, never absolute times.

A ratio says how the operator stands to what was timed beside it in the same rounds, so it outlasts a busy or slower
machine; it does not outlast other vector instructions, for which both sides have other code.
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
    # Both have one direction, and neither OpenCV nor what is exported another device than the CPU.
    "export": lambda case, direction, *, device, only, **options: export.measure(case, **options),
    "depth": lambda case, direction, *, device, **options: depth.measure(case, **options),
}


@dataclass(frozen=True)
class Comparison:
    """A case that was timed again."""

    case: str
    direction: str
    recorded: float  # our time over the baseline's, in the file
    measured: float  # and now; the lower one where it was measured twice
    twice: bool

    @property
    def change(self) -> float:
        """Above 0 is slower."""
        return self.measured / self.recorded - 1

    @property
    def is_regression(self) -> bool:
        return self.change > BOUND


def check(document: Document, *, rounds: int = 30) -> Iterator[Comparison]:
    """Time every case of a results file again, beside its baseline only.

    Noise is no regression: a case that is beyond the bound is timed a second time, and counts if it is so again.

    Args:
        document: the file's.
        rounds: timings of each.

    Returns:
        One comparison a case and direction, as each is done.

    Raises:
        WrongResultError: what is timed is wrong by now.
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
    """One case; ``again`` times it.

    Example:
        >>> times = iter([1.3, 1.1])
        >>> compare("c64", "forward", 1.0, lambda: next(times))
        Comparison(case='c64', direction='forward', recorded=1.0, measured=1.1, twice=True)
    """
    first = Comparison(case, direction, recorded, again(), twice=False)
    if not first.is_regression:
        return first
    return Comparison(case, direction, recorded, min(first.measured, again()), twice=True)
