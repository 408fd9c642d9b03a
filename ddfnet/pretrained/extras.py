"""Imports of optional packages, which say what to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def import_extra(package: str, needed: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: name of the package, or of a module.
        needed: the error's line, which says how to install it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(needed, name=error.name) from error
