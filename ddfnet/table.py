"""Plain-text tables and numbers with unit prefixes, without any library."""

from __future__ import annotations

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Align columns: the first ``left`` to the left, the others to the right.

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


def format_si(number: float) -> str:
    """Format a number with an SI prefix.

    Example:
        >>> format_si(999), format_si(25_557_032)
        ('999', '25.56 M')
    """
    return format_scaled(number, 1000, ("", "k", "M", "G", "T", "P"))


def format_bytes(number: float) -> str:
    """Format a number of bytes with a binary prefix.

    Example:
        >>> format_bytes(25_557_032)
        '24.37 MiB'
    """
    return format_scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def format_scaled(number: float, base: int, units: Sequence[str]) -> str:
    """Format a number to four digits with the largest unit that leaves at least one.

    Args:
        number: value in the first unit, in which it has no decimals.
        base: ratio of each unit to the one before it.
        units: names, smallest first.
    """
    index = 0
    while index + 1 < len(units) and abs(number) >= base:
        number, index = number / base, index + 1
    digits = 0 if index == 0 else 2 if number < 100 else 1
    return f"{number:.{digits}f} {units[index]}".rstrip()
