"""Upsamplers by a factor of two, for the top-down path of a feature pyramid (table 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ddfnet.family import CARAFE, DySample
from ddfnet.nn import DDFUpsample2d
from ddfnet.nn.starts import with_start

Upsampler = Callable[[int], nn.Module]
"""Function from channels C to a module from (N, C, H, W) to (N, C, 2H, 2W)."""


def _nearest(channels: int) -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="nearest")


def _bilinear(channels: int) -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def _deconv(channels: int) -> nn.Module:
    return with_start(nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1), _xavier)


def _pixelshuffle(channels: int) -> nn.Module:
    return nn.Sequential(with_start(nn.Conv2d(channels, 4 * channels, 3, padding=1), _xavier), nn.PixelShuffle(2))


def _carafe(channels: int) -> nn.Module:
    return CARAFE(channels, compressed_channels=max(1, channels // 4))  # CARAFE's own 64 for the 256 of its pyramid


def _xavier(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Initialize a layer as mmdetection's pyramid does, with which the paper's table was made."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


UPSAMPLERS: dict[str, Upsampler] = {
    "nearest": _nearest,
    "bilinear": _bilinear,
    "deconv": _deconv,
    "pixelshuffle": _pixelshuffle,
    "carafe": _carafe,
    "dysample": DySample,
    "ddf": DDFUpsample2d,
}
"""Upsamplers by name. A new one needs its line here, or `register_upsampler` in a file of its own."""


def register_upsampler(name: str) -> Callable[[Upsampler], Upsampler]:
    """Register an upsampler, which `Detector` and ``ddfnet train detection`` then know by its name.

    Args:
        name: name of the upsampler.

    Raises:
        ValueError: the name belongs to another upsampler.

    Example:
        >>> from torch import nn
        >>> from ddfnet.models.upsamplers import UPSAMPLERS, register_upsampler
        >>> @register_upsampler("bicubic")
        ... def bicubic(channels):
        ...     return nn.Upsample(scale_factor=2, mode="bicubic")
        >>> UPSAMPLERS.pop("bicubic") is bicubic
        True
    """

    def register(make: Upsampler) -> Upsampler:
        if UPSAMPLERS.get(name, make) is not make:
            raise ValueError(f"upsampler {name!r} is registered already; choose another name")
        UPSAMPLERS[name] = make
        return make

    return register


def upsampler(name: str, channels: int) -> nn.Module:
    """Create the upsampler of this name, (N, C, H, W) to (N, C, 2H, 2W).

    Args:
        name: any of `UPSAMPLERS`. ``"nearest"`` and ``"bilinear"`` have no parameters; ``"deconv"`` is a transposed 3x3
            convolution of stride 2; ``"pixelshuffle"`` a 3x3 convolution to 4C channels, which are shuffled;
            ``"carafe"`` is `CARAFE` with C/4 channels between its convolutions; ``"dysample"`` is `DySample`, for
            channels that four divides; ``"ddf"`` is `DDFUpsample2d`.
        channels: C.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> import torch
        >>> from ddfnet.models.upsamplers import upsampler
        >>> upsampler("pixelshuffle", 8)(torch.randn(1, 8, 5, 7)).shape
        torch.Size([1, 8, 10, 14])
    """
    if name not in UPSAMPLERS:
        raise ValueError(f"upsampler must be one of {', '.join(map(repr, UPSAMPLERS))}, got {name!r}")
    return UPSAMPLERS[name](channels)
