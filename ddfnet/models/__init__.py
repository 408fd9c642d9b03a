"""Networks. Importing this registers the classification networks with timm (``timm.list_models("ddf_*")``).

That is done when timm is imported, before this or after: `guided` needs torch alone, and timm takes seconds to import.
"""

from importlib import import_module
from typing import Any

from ddfnet.models.registration import when_imported

_RESNETS = tuple(f"ddf_{combine}_resnet{depth}" for combine in ("mul", "add") for depth in (18, 50, 101, 152))
_GUIDED = ("GuidedUpsampler",)
_DETECTION = ("Detector", "fasterrcnn_resnet50_fpn")

__all__ = [
    *_DETECTION,
    *_GUIDED,
    *_RESNETS,
]

when_imported("timm", lambda: [import_module(f"ddfnet.models.{name}") for name in ("resnet", "small")])


def __getattr__(name: str) -> Any:
    if name in _GUIDED:
        return getattr(import_module("ddfnet.models.guided"), name)
    if name in _DETECTION:
        try:
            return getattr(import_module("ddfnet.models.detection"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "ddfnet.models needs timm and torchvision for detection: pip install 'ddfnet[models]'", name=error.name
            ) from error
    if name in _RESNETS:
        try:
            return getattr(import_module("ddfnet.models.resnet"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "ddfnet.models needs timm for the classification networks: pip install 'ddfnet[models]'",
                name=error.name,
            ) from error
    raise AttributeError(f"module 'ddfnet.models' has no attribute {name!r}")
