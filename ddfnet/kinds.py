"""Modules that register kinds of networks, by the kind: known before any of them, or torch, is imported."""

from __future__ import annotations

from collections.abc import Mapping

KIND_MODULES: dict[str, str] = {}
"""Module by kind; `ddfnet.pretrained` imports it when a file of that kind is read."""


def declare_kinds(modules: Mapping[str, str]) -> None:
    """Name the modules that register kinds.

    This file is on the ground floor and may not know them; whoever declares them stands above.

    Args:
        modules: module by kind.
    """
    KIND_MODULES.update(modules)
