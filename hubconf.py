"""Entry points of ``torch.hub.load(REPOSITORY, NAME)``: the networks, and the depth network with its weights."""

from __future__ import annotations

import copy
from typing import Any

from ddfnet import models
from ddfnet.depth.network import GuidedUpsampler, default_model

dependencies = ["torch"]  # entry points that need timm, torchvision or safetensors say so when they are called
_ENTRIES = [name for name in models.__all__ if name.islower()]


def guided_upsampler(pretrained: bool = True, **options: Any) -> GuidedUpsampler:
    """Create DDF-Up-Net, which upsamples a depth map with the help of an image, in evaluation mode.

    Args:
        pretrained: whether to load the weights of the package, for 2x, 4x, 8x and 16x.
        options: arguments of `ddfnet.depth.GuidedUpsampler`, for a network without weights.

    Returns:
        The network, see `ddfnet.depth.GuidedUpsampler`; ``ddfnet.upsample_depth(..., model=it)`` takes it too.

    Raises:
        ValueError: options with ``pretrained=True``.
    """
    if pretrained and options:
        raise ValueError(f"pretrained=True has options of its own; give pretrained=False, or leave out {list(options)}")
    return copy.deepcopy(default_model()) if pretrained else GuidedUpsampler(**options).eval()


def __dir__() -> list[str]:
    return ["dependencies", "guided_upsampler", *_ENTRIES]


def __getattr__(name: str) -> Any:
    if name in _ENTRIES:
        return getattr(models, name)
    raise AttributeError(f"module 'hubconf' has no attribute {name!r}")
