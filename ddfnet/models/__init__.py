"""Networks. Importing this registers the classification networks with timm (``timm.list_models("ddf_*")``).

That is done when timm is imported, before this or after: `guided` needs torch alone, and timm takes seconds to import.
"""

import sys
from importlib import import_module
from typing import Any

from ddfnet.models.registration import when_imported

_RESNETS = (
    "DDFResNet",
    *(f"ddf_{combine}_resnet{depth}" for combine in ("mul", "add") for depth in (18, 50, 101, 152)),
)
_GUIDED = ("GuidedUpsampler",)
_DETECTION = ("Detector", "fasterrcnn_resnet50_fpn")

__all__ = [
    *_DETECTION,
    *_GUIDED,
    *_RESNETS,
]


def _register() -> None:
    if "ddfnet.models.resnet" not in sys.modules:  # or else it is what imports timm, and not ready for `small`
        for name in ("resnet", "small"):
            import_module(f"ddfnet.models.{name}")


when_imported("timm", _register)


def __getattr__(name: str) -> Any:
    if name in _GUIDED:
        return getattr(import_module("ddfnet.depth.network"), name)
    if name in _DETECTION:
        try:
            return getattr(import_module("ddfnet.models.faster_rcnn"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "ddfnet.models needs timm and torchvision for detection: pip install 'ddfnet[models]'", name=error.name
            ) from error
    if name in _RESNETS:
        try:
            import_module("timm")  # which registers all of them
            return getattr(import_module("ddfnet.models.resnet"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "ddfnet.models needs timm for the classification networks: pip install 'ddfnet[models]'",
                name=error.name,
            ) from error
    raise AttributeError(f"module 'ddfnet.models' has no attribute {name!r}")
