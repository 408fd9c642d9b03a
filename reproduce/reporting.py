"""Helpers for the tables of several folders."""

from __future__ import annotations

import math
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


def with_deviation(values: Mapping[str, Any]) -> str:
    """Return the mean of a `spread` and its deviation, as text."""
    return f"{values['mean']:.2f}" + ("" if values["std"] is None else f" ± {values['std']:.2f}")


def lead(own: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return the mean difference over the seeds that both have, and its standard error."""
    differences = [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return {"mean": statistics.mean(differences), "standard_error": error, "seeds": len(differences)}


def with_error(found: Mapping[str, float] | None) -> str:
    """Return a `lead` as text."""
    return "" if found is None else f"{found['mean']:+.2f} ± {found['standard_error']:.2f}"
