"""Names, signatures and weights of the official code.

``from ddf import DDFPack`` becomes ``from ddfnet.compat import DDFPack``. The layers have the state-dict keys of
https://github.com/theFoxofSky/ddfnet and compute the same, on any device, without its known defects: sizes are conv2d's
where a stride does not divide the map, dtypes are conv2d's under autocast, the bottleneck has at least one channel,
constant filters have finite gradients, and ``DDFUpPack`` works: it uses ``joint_channels`` and ``dw_kernel_size``, and
resizes the guidance to the input.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet import nn as layers
from ddfnet import ops
from ddfnet.nn.branches import ChannelBranch, SpatialBranch, check_channels, check_map
from ddfnet.nn.filter_norm import filter_norm
from ddfnet.nn.upsample import resize
from ddfnet.ops.recording import recordable
from ddfnet.pretrained import load_state_dict_checked, parse_checkpoint, read, reading_weights

__all__ = ["DDFPack", "DDFUpPack", "FilterNorm", "ddf", "load_official"]

EPS = 1e-10
"""Number that the official code adds to the deviation of a filter."""


@recordable
def ddf(
    features: Tensor,
    channel_filter: Tensor,
    spatial_filter: Tensor,
    kernel_size: int = 3,
    dilation: int = 1,
    stride: int = 1,
    kernel_combine: str = "mul",
    version: str = "",
) -> Tensor:
    """Call `ddfnet.ddf` with the official signature.

    Args:
        features: (N, C, H, W).
        channel_filter: (N, C, k, k).
        spatial_filter: (N, k*k, Ho, Wo) with Ho = ceil(H/stride): conv2d's size, where the official code has the floor.
        kernel_size: k taps.
        dilation: pixels between taps.
        stride: pixels.
        kernel_combine: ``"mul"`` or ``"add"``.
        version: name of the official CUDA kernel, ``""``, ``"o"`` or ``"f"``; has no effect.

    Returns:
        (N, C, Ho, Wo), in the widest dtype of the three tensors, or the autocast dtype.

    Raises:
        ValueError, TypeError: as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.compat import ddf
        >>> ddf(torch.randn(2, 8, 14, 14), torch.randn(2, 8, 3, 3), torch.randn(2, 9, 7, 7), 3, 1, 2).shape
        torch.Size([2, 8, 7, 7])

    Source: theFoxofSky/ddfnet, ``ddf/ddf.py``.
    """
    if version not in ("", "o", "f"):
        raise ValueError(f"version must be '', 'o' or 'f', got {version!r}")
    tensors = (features, channel_filter, spatial_filter)
    if all(isinstance(tensor, Tensor) for tensor in tensors):
        # FilterNorm's parameters made the official filters wider than the map under mixed precision.
        dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
        features, channel_filter, spatial_filter = (tensor.to(dtype) for tensor in tensors)
    return ops.ddf(
        features,
        channel_filter,
        spatial_filter,
        kernel_size=kernel_size,
        stride=stride,
        dilation=dilation,
        combine=kernel_combine,
    )


class FilterNorm(nn.Module):
    """`ddfnet.nn.FilterNorm` with the official signature, its parameters named ``std`` and ``mean``.

    Args:
        in_channels: filters of a pixel (``"spatial"``) or a sample (``"channel"``).
        kernel_size: k; a filter has k*k taps.
        filter_type: ``"spatial"`` or ``"channel"``.
        nonlinearity: as in ``torch.nn.init.calculate_gain``.
        running_std: make ``std`` a parameter, one value per tap, instead of the constant ``gain/k``.
        running_mean: have the parameter ``mean``, one value per tap. It is initialised with zeros; the official one
            with noise far larger than the filters.

    Returns:
        Spatial filters as they came, (N, in_channels*k*k, H, W); channel filters as (N, in_channels*k*k).

    Raises:
        ValueError: as `ddfnet.nn.FilterNorm`.

    Example:
        >>> import torch
        >>> from ddfnet.compat import FilterNorm
        >>> FilterNorm(8, 3, "channel", running_std=True)(torch.randn(2, 72, 1, 1)).shape
        torch.Size([2, 72])

    Source: theFoxofSky/ddfnet, ``ddf/ddf.py``.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        filter_type: str,
        nonlinearity: str = "linear",
        running_std: bool = False,
        running_mean: bool = False,
    ) -> None:
        super().__init__()
        norm = layers.FilterNorm(
            in_channels,
            kernel_size,
            filter_type,
            nonlinearity=nonlinearity,
            learn_scale=running_std,
            learn_shift=running_mean,
            eps=EPS,
        )
        self.gain = norm.gain
        self.in_channels, self.filter_type, self.taps, self.eps = in_channels, filter_type, norm.taps, norm.eps
        self.std, self.mean = norm.scale, norm.shift

    def reset_parameters(self) -> None:
        """Initialize ``std`` with noise and ``mean`` with zeros, if they are parameters."""
        if isinstance(self.std, Tensor):
            nn.init.normal_(self.std, std=self.gain)
        if self.mean is not None:
            nn.init.zeros_(self.mean)

    def forward(self, x: Tensor) -> Tensor:
        x = filter_norm(x, self.in_channels, self.taps, self.filter_type, self.std, self.mean, self.eps)
        return x.flatten(1) if self.filter_type == "channel" else x


def _spatial_branch(in_channels: int, kernel_size: int, head: int, nonlinearity: str, stride: int = 1) -> nn.Sequential:
    branch = SpatialBranch(
        in_channels, head, (kernel_size, kernel_size), stride=(stride, stride), norm="none", nonlinearity=nonlinearity
    )
    return nn.Sequential(branch.conv, FilterNorm(head, kernel_size, "spatial", nonlinearity))


def _channel_branch(in_channels: int, kernel_size: int, nonlinearity: str, se_ratio: float) -> nn.Sequential:
    branch = ChannelBranch(
        in_channels, (kernel_size, kernel_size), reduction=se_ratio, norm="none", nonlinearity=nonlinearity
    )
    norm = FilterNorm(in_channels, kernel_size, "channel", nonlinearity, running_std=True)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), branch.reduce, branch.act, branch.expand, norm)


def _check(in_channels: int, kernel_size: int, head: int) -> None:
    check_channels(in_channels, head)
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and at least 3, got {kernel_size}; ddfnet.nn.DDF2d takes even kernels"
        )


class DDFPack(nn.Module):
    """`ddfnet.nn.DDF2d` with the official signature and state-dict keys.

    Args:
        in_channels: C of the input (N, C, H, W).
        kernel_size: k taps, odd, at least 3.
        stride: pixels.
        dilation: pixels between taps.
        head: spatial filters per pixel; divides ``in_channels``.
        se_ratio: width of the channel branch's bottleneck as a share of ``in_channels``; at least one wide.
        nonlinearity: as in ``torch.nn.init.calculate_gain``.
        kernel_combine: ``"mul"`` or ``"add"``.

    Returns:
        (N, C, Ho, Wo) with Ho = ceil(H/stride), conv2d's size.

    Raises:
        ValueError: a wrong option; an input of another shape.

    Example:
        >>> import torch
        >>> from ddfnet.compat import DDFPack
        >>> DDFPack(64, stride=2)(torch.randn(2, 64, 7, 7)).shape
        torch.Size([2, 64, 4, 4])

    Source: theFoxofSky/ddfnet, ``ddf/ddf.py``.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        head: int = 1,
        se_ratio: float = 0.2,
        nonlinearity: str = "relu",
        kernel_combine: str = "mul",
    ) -> None:
        super().__init__()
        _check(in_channels, kernel_size, head)
        self.in_channels, self.kernel_size, self.stride, self.dilation = in_channels, kernel_size, stride, dilation
        self.head, self.kernel_combine = head, kernel_combine
        self.spatial_branch = _spatial_branch(in_channels, kernel_size, head, nonlinearity, stride)
        self.channel_branch = _channel_branch(in_channels, kernel_size, nonlinearity, se_ratio)

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of DDFPack", x, self.in_channels)
        k = self.kernel_size
        return ops.ddf(
            x,
            self.channel_branch(x).reshape(x.shape[0], self.in_channels, k, k),
            self.spatial_branch(x),
            stride=self.stride,
            dilation=self.dilation,
            combine=self.kernel_combine,
        )


@recordable
def _guidance(x: Tensor, joint_x: Tensor | None, channels: int) -> Tensor:
    """Return the guidance of `DDFUpPack` at the size of x: x itself where there is none."""
    joint_x = x if joint_x is None else joint_x
    check_map("the guidance of DDFUpPack", joint_x, channels)
    return resize(joint_x, *x.shape[2:])


class DDFUpPack(nn.Module):
    """`ddfnet.nn.DDFUpsample2d` with the official signature and keys, and a depthwise convolution per sub-pixel.

    Args:
        in_channels: C of the input (N, C, H, W).
        kernel_size: k taps, odd, at least 3.
        scale_factor: s, from 1 on.
        dilation: pixels between taps.
        head: spatial filters per sub-pixel; divides ``in_channels``.
        se_ratio: width of the channel branches' bottlenecks as a share of ``in_channels``; at least one wide.
        nonlinearity: as in ``torch.nn.init.calculate_gain``.
        dw_kernel_size: taps of the depthwise convolutions, odd; below 3 is 3.
        joint_channels: channels of the guidance; below 1 there is none, and the spatial filters are predicted from the
            depthwise convolutions of x.
        kernel_combine: ``"mul"`` or ``"add"``.

    ``forward(x, joint_x=None)`` resizes the guidance to x, bilinearly and with antialiasing; None is x itself.

    Returns:
        (N, C, s*H, s*W).

    Raises:
        ValueError: a wrong option; an input or guidance of another shape.

    Example:
        >>> import torch
        >>> from ddfnet.compat import DDFUpPack
        >>> DDFUpPack(32, joint_channels=3)(torch.randn(2, 32, 8, 8), torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 32, 16, 16])

    Source: theFoxofSky/ddfnet, ``ddf/ddf.py``.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        scale_factor: int = 2,
        dilation: int = 1,
        head: int = 1,
        se_ratio: float = 0.2,
        nonlinearity: str = "linear",
        dw_kernel_size: int = 3,
        joint_channels: int = -1,
        kernel_combine: str = "mul",
    ) -> None:
        super().__init__()
        _check(in_channels, kernel_size, head)
        if scale_factor < 1:
            raise ValueError(f"scale_factor must be at least 1, got {scale_factor}")
        self.in_channels, self.kernel_size, self.scale_factor = in_channels, kernel_size, scale_factor
        self.dilation, self.head, self.kernel_combine = dilation, head, kernel_combine
        self.joint_channels = joint_channels if joint_channels > 0 else in_channels
        dw_kernel_size = max(dw_kernel_size, 3)
        if dw_kernel_size % 2 == 0:
            raise ValueError(f"dw_kernel_size must be odd, for the convolution keeps the size, got {dw_kernel_size}")

        self.spatial_branch, self.channel_branch = nn.ModuleList(), nn.ModuleList()
        for _ in range(scale_factor**2):
            branch = _spatial_branch(self.joint_channels, kernel_size, head, nonlinearity)
            if joint_channels < 1:
                depthwise = nn.Conv2d(
                    in_channels, in_channels, dw_kernel_size, padding=dw_kernel_size // 2, groups=in_channels
                )
                branch = nn.Sequential(depthwise, branch)
            self.spatial_branch.append(branch)
            self.channel_branch.append(_channel_branch(in_channels, kernel_size, nonlinearity, se_ratio))

    def forward(self, x: Tensor, joint_x: Tensor | None = None) -> Tensor:
        check_map("the input of DDFUpPack", x, self.in_channels)
        joint_x = _guidance(x, joint_x, self.joint_channels)
        k = self.kernel_size
        channel = torch.cat([branch(x) for branch in self.channel_branch], 1)
        return ops.ddf_upsample(
            x,
            channel.reshape(x.shape[0], self.scale_factor**2, self.in_channels, k, k),
            torch.cat([branch(joint_x) for branch in self.spatial_branch], 1),
            scale_factor=self.scale_factor,
            dilation=self.dilation,
            combine=self.kernel_combine,
        )


_PARTS = {
    "spatial_branch.0": "spatial.conv",
    "channel_branch.1": "channel.reduce",
    "channel_branch.3": "channel.expand",
    "channel_branch.4.std": "channel.norm.scale",
}
_PART = re.compile(rf"(?<![^.])({'|'.join(map(re.escape, _PARTS))})(?![^.])")


def load_official(
    checkpoint: str | PathLike[str] | Mapping[str, Any], network: nn.Module | None = None
) -> dict[str, Tensor]:
    """Turn an official DDF-ResNet checkpoint into the state dict of the same network of `ddfnet.models`.

    Multiplied and added filters have the same keys, so the checkpoint does not say which: take the network it is named
    after. The state dict of a `DDFPack` becomes that of a `ddfnet.nn.DDF2d` in the same way.

    The official code adds 1e-10 to the deviation of a filter. Our networks of the same name do too; other layers whose
    ``load_state_dict`` gets the result take it from there. Weights alone do not keep it: where they are saved from such
    a layer, the next one needs ``norm_eps=1e-10``.

    Args:
        checkpoint: a state dict, a dict that holds one (as timm's training checkpoints do), or a file with either, see
            `ddfnet.pretrained.read`.
        network: a network to load it into, or None.

    Returns:
        The state dict, on the CPU where it was read from a file; for ``model.load_state_dict``.

    Raises:
        ValueError: the file is missing or broken, or needs code that is not run; a value is no tensor; nothing in it is
            named like an official DDF layer's weights; it does not fit the network, which then stays as it is.
        ModuleNotFoundError: a ``.safetensors`` file without the package safetensors.

    Example:
        >>> from ddfnet.compat import DDFPack, load_official
        >>> from ddfnet.nn import DDF2d
        >>> sorted(load_official(DDFPack(16).state_dict(), DDF2d(16)))[:2]
        ['channel.expand.bias', 'channel.expand.weight']

    Source: theFoxofSky/ddfnet, ``ddf_resnet.py``.
    """
    if isinstance(checkpoint, Mapping):
        state = parse_checkpoint(checkpoint).weights
    else:
        with reading_weights(Path(checkpoint)):
            state = read(Path(checkpoint)).weights
    if not is_official(state):
        raise ValueError(
            f"this is no checkpoint of the official DDF networks: no name holds any of {', '.join(_PARTS)}; it has "
            f"{', '.join(list(state)[:3]) or 'no entries'}"
        )
    converted, metadata = OrderedDict(), {}
    for name, tensor in state.items():
        before, part, after = _split(name)
        converted[before + part + after] = tensor
        if part:
            metadata[before + part.partition(".")[0] + ".norm"] = {"eps": EPS}
    converted._metadata = metadata  # type: ignore[attr-defined]  # load_state_dict hands it to the modules by their names
    if network is not None:
        load_state_dict_checked(network, converted)
    return converted


def _split(name: str) -> tuple[str, str, str]:
    """Return what is before the name of an official layer's part, our name of the part, and what is after it."""
    found = _PART.search(name)
    return (name, "", "") if found is None else (name[: found.start()], _PARTS[found[0]], name[found.end() :])


def is_official(state: Mapping[str, Any]) -> bool:
    """Return whether any name of a state dict is that of a weight of an official DDF layer."""
    return any(_PART.search(name) for name in state)
