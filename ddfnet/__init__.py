"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

import importlib
from typing import TYPE_CHECKING, Any

from ddfnet import nn, ops
from ddfnet._version import __version__
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.pretrained import declare_kinds

if TYPE_CHECKING:
    from ddfnet.depth.upsample import upsample_depth

_LAZY = ("compat", "export", "family", "models", "profiler", "surgery")

# Only this file may name modules of all floors: it stands above them. Python runs it before any other of the package,
# so that every file of weights finds its class, and nothing is imported before one is read.
declare_kinds(
    {
        "classification": "ddfnet.models.classifier",
        "detection": "ddfnet.models.faster_rcnn",
        "depth": "ddfnet.depth.network",
    }
)

__all__ = ["__version__", "ddf", "ddf_upsample", "nn", "ops", "upsample_depth", *_LAZY]


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: `models`, for example, needs timm."""
    if name in _LAZY:
        return importlib.import_module(f"ddfnet.{name}")
    if name == "upsample_depth":
        return importlib.import_module("ddfnet.depth").upsample_depth
    raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
