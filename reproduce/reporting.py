"""Helpers for the tables of several folders."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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


def lead(own: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float | None]:
    """Return the mean difference over the seeds that both have, and its standard error; None for one seed."""
    differences = [own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {"mean": statistics.mean(differences), "standard_error": error, "seeds": len(differences)}


def with_error(found: Mapping[str, Any] | None) -> str:
    """Return a `lead` as text."""
    if found is None:
        return ""
    return f"{found['mean']:+.2f}" + ("" if found["standard_error"] is None else f" ± {found['standard_error']:.2f}")


def finished_runs(folder: str) -> list[dict[str, Any]]:
    """Return the runs of a study on the test part, one file of JSON each.

    Raises:
        ValueError: no runs, or some on the validation part.
    """
    runs = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    validated = sum(run["validate"] for run in runs)
    if not runs or validated:
        raise ValueError(f"{folder} must hold runs without --validate, got {validated} with it of {len(runs)}")
    return runs


def commits(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commits that runs were made at."""
    return sorted({run["machine"].get("commit", "") for run in runs})
