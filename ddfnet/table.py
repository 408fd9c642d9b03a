"""Tables and figures of plain text, which need no library."""

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


def scaled(number: float, base: int, units: Sequence[str]) -> str:
    """Four digits and a unit; whole below the first one."""
    index = 0
    while index + 1 < len(units) and abs(number) >= base:
        number, index = number / base, index + 1
    digits = 0 if index == 0 else 2 if number < 100 else 1
    return f"{number:.{digits}f} {units[index]}".rstrip()


def amount(number: float) -> str:
    """A number as people say it.

    Example:
        >>> amount(999), amount(25_557_032)
        ('999', '25.56 M')
    """
    return scaled(number, 1000, ("", "k", "M", "G", "T", "P"))
