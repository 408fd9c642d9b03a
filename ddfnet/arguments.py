"""Checks of arguments, for callers in Python and for the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def check_range(
    name: str, value: _Number, low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> _Number:
    """Check that a number is in its range, and return it as a plain int or float.

    The types of jsonargparse, which a command line gives, are subclasses that checkpoints must not hold.

    Args:
        name: argument name for the message.
        value: the number; nan and inf are out of every range.
        low: the smallest value.
        high: the largest value.
        open_low: ``low`` itself is too small.
        open_high: ``high`` itself is too large.

    Raises:
        ValueError: the value is out of range.

    Example:
        >>> check_range("momentum", 1.0, 0, 1, open_high=True)
        Traceback (most recent call last):
        ValueError: momentum must be from 0 to below 1, got 1.0
    """
    unbounded = high == math.inf
    if (low < value if open_low else low <= value) and (value < high if open_high or unbounded else value <= high):
        return int(value) if isinstance(value, int) else float(value)
    if not unbounded:
        required = f"from {'above ' * open_low}{low:g} to {'below ' * open_high}{high:g}"
    elif isinstance(low, int) and isinstance(value, int) and not open_low:
        required = f"at least {low}"
    else:
        required = (
            f"finite and {'above' if open_low else 'at least'} {low:g}"
            if low or open_low
            else "finite and not negative"
        )
    raise ValueError(f"{name} must be {required}, got {value}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: the value is none of them.

    Example:
        >>> check_choice("on_bad_box", "cut", ("stop", "skip"))
        Traceback (most recent call last):
        ValueError: on_bad_box must be 'stop' or 'skip', got 'cut'
    """
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)}{' or ' if others else ''}{last}, got {value!r}")


def positive_int(text: str) -> int:
    """Parse a command-line argument that is an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return value


def positive_float(text: str) -> float:
    """Parse a command-line argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def comma_separated(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return the parser of a command-line argument that lists known names, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, got {name!r}")
        return chosen

    return parse
