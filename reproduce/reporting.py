"""Helpers for the tables of several folders."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (headers, ["---"] * len(headers), *rows)]


def spread(values: Mapping[str, float]) -> dict[str, Any]:
    """Return the values by seed, their mean and their standard deviation."""
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"by_seed": dict(values), "mean": statistics.mean(numbers), "std": deviation}
