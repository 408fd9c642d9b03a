"""What the tables of several folders are made with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (headers, ["---"] * len(headers), *rows)]


def spread(values: Mapping[str, float]) -> dict[str, Any]:
    """Values by seed, with their mean and standard deviation."""
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"by_seed": dict(values), "mean": statistics.mean(numbers), "std": deviation}
