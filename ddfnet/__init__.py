"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

import importlib
from typing import TYPE_CHECKING, Any

from ddfnet import nn, ops
from ddfnet._version import __version__
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.profiler.estimate import plan

if TYPE_CHECKING:
    from ddfnet.depth.upsample import upsample_depth

_LAZY = ("compat", "export", "family", "models", "surgery")

__all__ = ["__version__", "ddf", "ddf_upsample", "nn", "ops", "plan", "upsample_depth", *_LAZY]


def __getattr__(name: str) -> Any:
    """What is imported when it is first used: `models` and what stands on it bring timm with them where it is."""
    if name in _LAZY:
        return importlib.import_module(f"ddfnet.{name}")
    if name == "upsample_depth":
        return importlib.import_module("ddfnet.depth").upsample_depth
    raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
