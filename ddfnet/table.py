"""Tables of plain text, which need no library."""

from __future__ import annotations

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Aligned columns, the first ``left`` to the left and the others to the right.

    Example:
        >>> print(table(["mixer", "ms"], [["conv", "12.0"], ["ddf", "3.5"]]))
        mixer    ms
        -----  ----
        conv   12.0
        ddf     3.5
    """
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = [headers, ["-" * width for width in widths], *rows]
    aligned = (
        (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)
