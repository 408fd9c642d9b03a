"""What a depth map costs, as a row a method and case: seconds and memory, and both a megapixel."""

from __future__ import annotations

from dataclasses import dataclass

from ddfnet.bench.registry import DepthCase
from ddfnet.bench.result import Result


@dataclass(frozen=True)
class Cost:
    """Of one method on one case; of memory what is added to the inputs and the result, None where not measured."""

    method: str
    shape: str  # of the photograph, and so of the result; width first
    factor: int
    seconds: float
    seconds_a_megapixel: float
    mib: float | None
    mib_a_megapixel: float | None


def costs(result: Result) -> tuple[Cost, ...]:
    """One row a method of a result of `ddfnet.bench.depth`, in the order of its timings."""
    case = result.case
    if not isinstance(case, DepthCase):
        raise TypeError(f"a result of a DepthCase is required, got {case}")
    added = {memory.competitor: memory.added for memory in result.memory}
    rows = []
    for timing in result.timings:
        seconds, mib = timing.median / 1e3, added.get(timing.competitor)
        rows.append(
            Cost(
                timing.competitor,
                case.shape,
                case.factor,
                seconds,
                seconds / case.megapixels,
                mib,
                None if mib is None else mib / case.megapixels,
            )
        )
    return tuple(rows)
