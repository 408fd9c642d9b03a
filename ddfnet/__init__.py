"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

import importlib
from types import ModuleType

from ddfnet import nn, ops
from ddfnet._version import __version__
from ddfnet.ops import ddf, ddf_upsample

__all__ = ["__version__", "compat", "ddf", "ddf_upsample", "models", "nn", "ops"]


def __getattr__(name: str) -> ModuleType:
    """`ddfnet.compat` and `ddfnet.models` are imported when they are first used: the latter needs timm."""
    if name in ("compat", "models"):
        return importlib.import_module(f"ddfnet.{name}")
    raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
