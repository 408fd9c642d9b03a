"""The layer in one call of the compiled kernel, for inference: what `DDF2d` does in some twenty small operations.

The filters are never handed out, so nobody must be waiting for them: no hook on a branch, no gradient, no transform.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registry

from ddfnet.nn.branches import ChannelBranch, SpatialBranch
from ddfnet.nn.filter_norm import FilterNorm
from ddfnet.ops import registration
from ddfnet.ops.geometry import Geometry, is_channels_last

if TYPE_CHECKING:
    from ddfnet.nn.ddf import DDF2d

_TINY = torch.finfo(torch.float32).tiny


def filter_whole(layer: DDF2d, x: Tensor) -> Tensor | None:
    """The layer's output, or None where it must be computed step by step."""
    if x.dtype is not torch.float32 or not layer.centred:
        return None
    kernels = registration.plain_kernels(x, None, None)
    if not hasattr(kernels, "layer") or not is_channels_last(x):
        return None
    spatial: Any = layer.spatial
    channel: Any = layer.channel
    if not (_runs_unseen(spatial, SpatialBranch) and _runs_unseen(channel, ChannelBranch)):
        return None
    norms = spatial.norm, channel.norm
    width = channel.reduce.out_channels
    if not (
        _is_pointwise(spatial.conv, layer.channels, layer.heads * math.prod(layer.kernel_size), layer.stride)
        and _is_pointwise(channel.reduce, layer.channels, width, (1, 1))
        and _is_pointwise(channel.expand, width, layer.channels * math.prod(layer.kernel_size), (1, 1))
        and all(_runs_unseen(norm, FilterNorm) for norm in norms)
        and _runs_unseen(channel.act, nn.ReLU)
    ) or (registry._global_forward_hooks or registry._global_forward_pre_hooks):
        return None
    weights = [t for conv in (spatial.conv, channel.reduce, channel.expand) for t in (conv.weight, conv.bias)]
    scales = [value if isinstance(value, Tensor) else None for norm in norms for value in (norm.scale, norm.shift)]
    after = [layer.after_scale, layer.after_shift]
    if any(t is None for t in weights) or not all(_is_plain_float(t) for t in (*weights, *scales, *after)):
        return None
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights, *scales, *after)):
        return None
    geometry = Geometry(layer.kernel_size, layer.stride, layer.padding, layer.dilation, combine=layer.combine)
    numbers = [
        number
        for norm in norms
        for number in (1.0 if isinstance(norm.scale, Tensor) else float(norm.scale), max(norm.eps, _TINY))
    ]
    output: Tensor = kernels.layer(x, weights, *scales, *after, geometry, *numbers, layer.relu_after)  # type: ignore[union-attr]
    return output


def _runs_unseen(module: Any, kind: type[nn.Module]) -> bool:
    """Whether a module is just what `DDF2d` made, and nobody hears of its being called."""
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in vars(module)
    )


def _is_pointwise(conv: Any, channels: int, outputs: int, stride: tuple[int, int]) -> bool:
    """Whether a 1x1 convolution does what its weight says, and no more."""
    return (
        _runs_unseen(conv, nn.Conv2d)
        and conv.weight.shape == (outputs, channels, 1, 1)
        and conv.stride == stride
        and conv.padding == (0, 0)
        and conv.groups == 1
    )


def _is_plain_float(tensor: Tensor | None) -> bool:
    return tensor is None or (
        tensor.dtype is torch.float32 and tensor.is_contiguous() and registration.is_plain(tensor)
    )
