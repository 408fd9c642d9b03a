"""What a benchmark reports: one result a case and direction, the same for operator, layer, network and depth tool."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ddfnet.bench.limits import Limit
from ddfnet.bench.memory import Memory
from ddfnet.bench.registry import AnyCase
from ddfnet.bench.timing import Timing


@dataclass(frozen=True)
class Result:
    """A case that was checked and timed."""

    case: AnyCase
    direction: str  # "forward", "forward+backward", "inference", "inference compiled" or "training step"
    ours: str  # the competitor that is judged
    baseline: str  # the competitor that it is judged by
    timings: tuple[Timing, ...]
    skipped: dict[str, str]  # competitor -> why it did not take part
    error: float  # our largest error, as a share of what was tolerated
    limit: Limit | None = None
    memory: tuple[Memory, ...] = ()
    backward_ratio: float | None = None  # our backward pass alone over our forward pass: the median over the rounds

    def timing(self, competitor: str) -> Timing:
        return next(timing for timing in self.timings if timing.competitor == competitor)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def reason(failure: Exception) -> str:
    """An exception as one line, for `Result.skipped` and for messages."""
    text = str(failure).strip()
    return f"{type(failure).__name__}: {text.splitlines()[0]}" if text else type(failure).__name__
