"""Tables of measurements, the result of every task's evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ddfnet.errors import UserError
from ddfnet.table import table


@dataclass(frozen=True)
class EvaluationTable:
    """Scores of several networks, as text and as JSON.

    Args:
        rows: dataclasses, one per line.
        columns: the text of a row's cell, by the title of the column.
        title: a paragraph above the table.
        left: number of columns that are aligned to the left.
        facts: data, networks and the like, for the results file.
        shown: the rows of the text, where all are too many.

    Example:
        >>> from dataclasses import make_dataclass
        >>> Scores = make_dataclass("Scores", [("name", str), ("top1", float)])
        >>> columns = {"network": lambda row: row.name, "top-1": lambda row: f"{row.top1:.1%}"}
        >>> print(EvaluationTable([Scores("mine", 0.756)], columns).text)
        network  top-1
        -------  -----
        mine     75.6%
    """

    rows: Sequence[Any]
    columns: Mapping[str, Callable[[Any], str]]
    title: str = ""
    left: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[Any] | None = None

    @property
    def text(self) -> str:
        """Title, if there is one, and aligned columns."""
        rows = self.rows if self.shown is None else self.shown
        cells = [[cell(row) for cell in self.columns.values()] for row in rows]
        return "\n\n".join(filter(None, [self.title, table(list(self.columns), cells, left=self.left)]))

    def as_dict(self) -> dict[str, Any]:
        """Return the facts and all rows."""
        return {**self.facts, "rows": [asdict(row) for row in self.rows]}

    def json(self) -> str:
        """Return `as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2)


def distinct_paths(checkpoints: Sequence[Path]) -> list[Path]:
    """Return the absolute paths.

    Raises:
        UserError: a file is given twice.
    """
    paths = [file.resolve() for file in checkpoints]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UserError(f"--checkpoint {checkpoints[number]} is given twice; give it once")
    return paths


def short_names(checkpoints: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """Return the shortest ends of the paths that differ from each other and from names that are taken.

    Suffixes are dropped unless only they differ.

    Raises:
        UserError: a file is given twice.

    Example:
        >>> short_names([Path("runs/a/model.safetensors"), Path("runs/b/model.safetensors")])
        ['a/model', 'b/model']
    """
    paths = distinct_paths(checkpoints)
    stems = [path.with_suffix("") for path in paths]
    parts = [path.parts for path in (stems if len(set(stems)) == len(stems) else paths)]
    ends = (["/".join(own[-length:]) for own in parts] for length in count(1))
    return next(names for names in ends if len({*names, *taken}) == len(names) + len(taken))
