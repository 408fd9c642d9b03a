"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddfnet._version import __version__
from ddfnet.kinds import declare_kinds

if TYPE_CHECKING:
    from ddfnet.depth.upsample import upsample_depth

_PARTS = ("compat", "export", "family", "models", "nn", "ops", "profiler", "surgery")
_FUNCTIONS = {"ddf": "ddfnet.ops", "ddf_upsample": "ddfnet.ops", "upsample_depth": "ddfnet.depth"}

# Only this file may name modules of all floors: it stands above them. Python runs it before any other of the package,
# so that every file of weights finds its class, and nothing is imported before one is read.
declare_kinds(
    {
        "classification": "ddfnet.models.classifier",
        "detection": "ddfnet.models.faster_rcnn",
        "depth": "ddfnet.depth.network",
    }
)

__all__ = [
    "__version__",
    "compat",
    "ddf",
    "ddf_upsample",
    "export",
    "family",
    "models",
    "nn",
    "ops",
    "profiler",
    "surgery",
    "upsample_depth",
]


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: `models`, for example, needs timm."""
    if name in _PARTS:
        value: Any = import_module(f"ddfnet.{name}")
    elif name in _FUNCTIONS:
        value = getattr(import_module(_FUNCTIONS[name]), name)
    else:
        raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Registers the operators: a program of `torch.export` has them by their names alone; ``import ddfnet`` must be enough
# to run one. The command answers a wrong argument before it imports torch.
if "ddfnet_command" not in sys.modules:
    from ddfnet import nn, ops
    from ddfnet.ops import ddf, ddf_upsample
