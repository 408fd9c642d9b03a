"""Options in the headers of files, which may come from anywhere: they are checked before any class sees them."""

from __future__ import annotations

import inspect
import math
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_DEPTH = 8  # lists in each other
_ENTRIES = 100_000  # entries of any list, such as a detector's classes
_LISTED = 64  # entries of a list of sizes
_CHARACTERS = 1000  # characters of a name


def check_options(arguments: Any, factory: Callable[..., Any]) -> None:
    """Check the arguments that a file gives to the class of its network.

    Args:
        arguments: the arguments, which must be a dictionary of what JSON can hold.
        factory: the class or function. Where its annotations are simple types, the arguments must be of these.

    Raises:
        ValueError: an argument is none of these; ``pretrained`` is not False: a file brings its own weights.

    Example:
        >>> def build(width: int, names: list[str] | None = None): ...
        >>> check_options({"width": 8, "names": ["a"]}, build)
        >>> check_options({"width": "8"}, build)
        Traceback (most recent call last):
        ValueError: its option width must be int, got '8'
    """
    if not isinstance(arguments, Mapping):
        raise ValueError(f"its init_args must be a dictionary, got {type(arguments).__name__}")
    if arguments.get("pretrained"):
        raise ValueError(
            f"its option pretrained must be False, for a file brings its own weights, got "
            f"{shown(arguments['pretrained'])}"
        )
    hints = _hints(factory)
    for name, value in arguments.items():
        if not isinstance(name, str) or len(name) > _CHARACTERS:
            raise ValueError(f"the names of its options must be text, got {shown(name)}")
        check_plain(name, value)
        if name in hints and not _is_of(value, hints[name]):
            required = getattr(hints[name], "__name__", None) if isinstance(hints[name], type) else None
            raise ValueError(f"its option {name} must be {required or hints[name]}, got {shown(value)}")


def check_plain(name: str, value: Any, depth: int = 0) -> None:
    """Check that a value is such as JSON can hold, and of an ordinary size.

    Args:
        name: name of the option.
        value: the value.
        depth: lists and dictionaries around it.

    Raises:
        ValueError: it is not.
    """
    if depth > _DEPTH:
        raise ValueError(f"its option {name} must have at most {_DEPTH} lists in each other")
    if isinstance(value, Mapping | list | tuple):
        if len(value) > _ENTRIES:
            raise ValueError(f"its option {name} must have at most {_ENTRIES} entries, got {len(value)}")
        entries: Iterable[Any] = (*value.keys(), *value.values()) if isinstance(value, Mapping) else value
        for each in entries:
            check_plain(name, each, depth + 1)
    elif isinstance(value, str):
        if len(value) > _CHARACTERS:
            raise ValueError(f"its option {name} must be at most {_CHARACTERS} characters, got {len(value)}")
    elif isinstance(value, int):
        if value.bit_length() > 63:
            raise ValueError(f"its option {name} must be a number of 64 bits, got {shown(value)}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"its option {name} must be finite, got {value}")
    elif value is not None:
        raise ValueError(f"its option {name} must be a number, a name or a list of them, got {type(value).__name__}")


# --- rules for the options of a kind ----------------------------------------------------------------------------------

Rule = tuple[Callable[[Any], bool], str]
"""Requirement of an option, in code and in words."""


def integer(low: int, high: int) -> Rule:
    """Require a whole number in a range."""
    return lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}"


def number(low: float, high: float) -> Rule:
    """Require a number in a range."""
    return lambda value: type(value) in (int, float) and low <= value <= high, f"a number from {low:g} to {high:g}"


def choice(*choices: Any) -> Rule:
    """Require one of some values."""
    words = ", ".join(map(repr, choices[:-1])) + " or " * (len(choices) > 1) + repr(choices[-1])
    return lambda value: any(type(value) is type(each) and value == each for each in choices), words


def several(one: Rule, *, alone: bool = False, count: int | None = None) -> Rule:
    """Require a list, of ``count`` values where that is given; with ``alone`` one value by itself too."""
    check, words = one

    def each(value: Any) -> bool:
        if alone and check(value):
            return True
        fits = isinstance(value, list | tuple) and 0 < len(value) <= _LISTED and count in (None, len(value))
        return fits and all(map(check, value))

    return each, f"{words}, or " * alone + f"a list{f' of {count}' * bool(count)}, each of it {words}"


def check_option(name: Any, value: Any, rules: Mapping[str, Rule], what: str = "option") -> None:
    """Check one entry of a file's header.

    Args:
        name: its name.
        value: its value; None leaves it to the default.
        rules: rules by name.
        what: the kind of entry, for the message.

    Raises:
        ValueError: there is no such rule, or the value breaks it.
    """
    if name not in rules:
        named = name if isinstance(name, str) and len(name) < 64 else shown(name)
        raise ValueError(f"its {what} {named} is none that a file may have; build the network in Python")
    check, required = rules[name]
    if value is not None and not check(value):
        raise ValueError(f"its {what} {name} must be {required}, got {shown(value)}")


# --- types ------------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """Return a value for a message: in one line, however long it is."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return " ".join(reprlib.repr(value).split())


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a factory's arguments, or none where they cannot be evaluated here."""
    function: Any = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    own = {each.name for each in inspect.signature(function).parameters.values() if each.kind in named}
    try:
        return {name: hint for name, hint in get_type_hints(inspect.unwrap(function)).items() if name in own}
    except Exception:  # names that are imported for type checkers alone, for example
        return {}


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a value that JSON gave is of an annotation; those of other classes are left to the class."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is Annotated:
        return _is_of(value, inner[0])
    plain = origin or hint
    if plain is type(None):
        return value is None
    if not isinstance(plain, type) or isinstance(plain, TypeVar):
        return True
    if issubclass(plain, bool):
        return isinstance(value, bool)
    if issubclass(plain, int | float):
        return isinstance(value, int if issubclass(plain, int) else int | float) and not isinstance(value, bool)
    if issubclass(plain, str):
        return isinstance(value, str)
    if issubclass(plain, Mapping):
        return isinstance(value, Mapping)
    if issubclass(plain, Iterable):
        return isinstance(value, list | tuple) or (isinstance(value, str) and inner[:1] == (str,))
    return True
