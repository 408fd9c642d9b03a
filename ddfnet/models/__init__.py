"""Networks. Importing this package registers those for classification with timm (``timm.list_models("ddf_*")``)."""

from importlib import import_module
from typing import Any

_TIMM = (
    "DDFResNet",
    *(f"ddf_{combine}_resnet{depth}" for combine in ("mul", "add") for depth in (18, 50, 101, 152)),
    "small_resnet23",
)
_MODULES = {
    **dict.fromkeys(_TIMM, "ddfnet.models.resnet"),
    "Detector": "ddfnet.models.faster_rcnn",
    "fasterrcnn_resnet50_fpn": "ddfnet.models.faster_rcnn",
    "GuidedUpsampler": "ddfnet.depth.network",  # model cards on the hub import it from here
}

__all__ = sorted(_MODULES)

try:
    import_module("ddfnet.models.resnet")  # registers the networks with timm
except ModuleNotFoundError as missing:  # GuidedUpsampler needs no timm
    if not f"{missing.name}.".startswith("timm."):
        raise


def __getattr__(name: str) -> Any:
    """Import the module of a network when it is first used, for each needs libraries of its own."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ddfnet.models' has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ddfnet.models.{name} needs timm and torchvision: pip install 'ddfnet[models]'", name=error.name
        ) from error
