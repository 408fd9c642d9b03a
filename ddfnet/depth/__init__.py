"""Guided upsampling of depth maps: the depth tool, its network, its files and its batch jobs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddfnet.depth.network import GuidedUpsampler
    from ddfnet.depth.upsample import upsample_depth

_HOMES = {"GuidedUpsampler": "ddfnet.depth.network", "upsample_depth": "ddfnet.depth.upsample"}

__all__ = ["GuidedUpsampler", "upsample_depth"]


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: files are read and paired without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ddfnet.depth' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
