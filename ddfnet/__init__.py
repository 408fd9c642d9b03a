"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

import importlib
from types import ModuleType

from ddfnet import nn, ops
from ddfnet._version import __version__
from ddfnet.depth import upsample_depth
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.planner import plan

__all__ = ["__version__", "compat", "ddf", "ddf_upsample", "models", "nn", "ops", "plan", "surgery", "upsample_depth"]


def __getattr__(name: str) -> ModuleType:
    """`compat`, `models` and `surgery` are imported when they are first used: `models` needs timm."""
    if name in ("compat", "models", "surgery"):
        return importlib.import_module(f"ddfnet.{name}")
    raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
