"""Operator ``ddfnet::ddf_layer``, which is a whole layer of decoupled dynamic filters, with what follows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import register_flop_formula

from ddfnet.nn import layer_gradient
from ddfnet.nn.branches import ChannelBranch, SpatialBranch
from ddfnet.nn.filter_norm import FilterNorm, filter_norm
from ddfnet.ops import backends, ddf
from ddfnet.ops.autograd import is_plain_eager
from ddfnet.ops.geometry import Combine, Geometry, empty_result, is_channels_last
from ddfnet.ops.library import NAMESPACE, define
from ddfnet.ops.recording import recordable

ddf_layer = define(
    "ddf_layer",
    "(Tensor input, Tensor[] weights, Tensor? spatial_scale, Tensor? spatial_shift, Tensor? channel_scale, "
    "Tensor? channel_shift, Tensor? epilogue_scale, Tensor? epilogue_shift, int[2] kernel_size, int[2] stride, "
    "int[2] padding, int[2] dilation, str combine, float spatial_gain, float spatial_eps, float channel_gain, "
    "float channel_eps, bool relu) -> Tensor",
)
"""A DDF layer as one operator.

``weights`` are the weight and bias of three 1x1 convolutions: that of the spatial branch and the two of the channel
branch.
"""

OptTensor = Tensor | None


def _reference(
    input: Tensor,
    weights: Sequence[Tensor],
    spatial_scale: OptTensor,
    spatial_shift: OptTensor,
    channel_scale: OptTensor,
    channel_shift: OptTensor,
    epilogue_scale: OptTensor,
    epilogue_shift: OptTensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    combine: str,
    spatial_gain: float,
    spatial_eps: float,
    channel_gain: float,
    channel_eps: float,
    relu: bool,
) -> Tensor:
    """Compute ``ddf_layer`` from the operations that it is made of."""
    taps = kernel_size[0] * kernel_size[1]
    spatial_weight, spatial_bias, reduce_weight, reduce_bias, expand_weight, expand_bias = weights
    spatial = F.conv2d(input, spatial_weight, spatial_bias, (stride[0], stride[1]))
    spatial = filter_norm(
        spatial,
        spatial.shape[1] // taps,
        taps,
        "spatial",
        spatial_gain if spatial_scale is None else spatial_scale,
        spatial_shift,
        spatial_eps,
    )
    hidden = F.conv2d(input.mean((2, 3), keepdim=True), reduce_weight, reduce_bias).relu()
    channel = filter_norm(
        F.conv2d(hidden, expand_weight, expand_bias),
        input.shape[1],
        taps,
        "channel",
        channel_gain if channel_scale is None else channel_scale,
        channel_shift,
        channel_eps,
    )
    y = ddf(
        input,
        channel.reshape(*input.shape[:2], *kernel_size),
        spatial,
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        combine=combine,
    )
    return apply_epilogue(y, epilogue_scale, epilogue_shift, relu)


@recordable
def apply_epilogue(y: Tensor, scale: OptTensor, shift: OptTensor, relu: bool) -> Tensor:
    """Return ``relu(scale * y + shift)``, without the parts that there are not."""
    if scale is not None and shift is not None:
        # In the dtype that the filter gave, which under autocast is another than theirs.
        y = (y * scale[:, None, None] + shift[:, None, None]).to(y.dtype)
    return F.relu(y) if relu else y


def _kernel(input: Tensor, weights: Sequence[Tensor], *arguments: Any) -> Tensor:
    tensors = input, *weights, *arguments[:6]
    if not backends.is_compiled(input.device) or any(t is not None and t.dtype is not torch.float32 for t in tensors):
        return _reference(input, weights, *arguments)
    inner = input.contiguous(memory_format=torch.channels_last)
    if not is_channels_last(inner):  # one channel or one pixel, which is contiguous too
        return _reference(input, weights, *arguments)
    output: Tensor = torch.ops.ddfnet._layer.default(inner, weights, *arguments)
    return output if inner is input else output.contiguous()


def _at_autograd_key(input: Tensor, weights: Sequence[Tensor], *arguments: Any) -> Tensor:
    """Compute the layer with its own gradient, or else from its pieces, which have theirs, where one is asked for."""
    tensors = [tensor for tensor in (input, *weights, *arguments[:6]) if tensor is not None]
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if wants_gradient and _has_gradient(input, tensors, stride=arguments[7]):
        return _layer_with_gradient(input, weights, *arguments)
    if wants_gradient or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        return _reference(input, weights, *arguments)
    with torch._C._AutoDispatchBelowAutograd():
        output: Tensor = ddf_layer(input, weights, *arguments)
    return output


def _has_gradient(input: Tensor, tensors: Sequence[Tensor], stride: Sequence[int]) -> bool:
    """Return whether `layer_gradient.Layer` computes this call."""
    return (
        is_plain_eager(*tensors)
        and backends.is_compiled(input.device)
        and all(tensor.dtype is torch.float32 for tensor in tensors)
        and layer_gradient.serves(input, stride)
    )


def _layer_with_gradient(input: Tensor, weights: Sequence[Tensor], *arguments: Any) -> Tensor:
    *norms, scale, shift = arguments[:6]
    numbers, relu = arguments[11:15], arguments[15]
    rest: tuple[Any, ...] = None, None, *arguments[6:15], False  # no epilogue, and no tensor that would be held

    def formula(input: Tensor, *tensors: Any) -> Tensor:
        weights, norms = tensors[:6], tensors[6:]
        return _reference(input, weights, *norms, *rest)

    y: Tensor = layer_gradient.Layer.apply(formula, _geometry(*arguments[6:11]), numbers, input, *weights, *norms)  # type: ignore[no-untyped-call]
    return apply_epilogue(y, scale, shift, relu)


def _fake(input: Tensor, *arguments: Any) -> Tensor:
    return empty_result(input, _geometry(*arguments[7:12]))


def _geometry(*flat: Any) -> Geometry:
    *pairs, combine = flat
    return Geometry.from_flat(*pairs, (1, 1), combine)


def _vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
    input, *rest = arguments
    if all(dim is None for dim in tree_leaves(in_dims[1:], is_leaf=lambda dim: dim is None)):
        # The mapped dimension joins the batch.
        joined = ddf_layer(input.movedim(in_dims[0], 0).flatten(0, 1), *rest)
        return joined.unflatten(0, (info.batch_size, -1)), 0

    def at(index: int, value: Any, dim: Any) -> Any:
        if isinstance(value, list):
            return [at(index, *each) for each in zip(value, dim, strict=True)]
        return value if dim is None else value.select(dim, index)

    each = [ddf_layer(*(at(i, *pair) for pair in zip(arguments, in_dims, strict=True))) for i in range(info.batch_size)]
    return torch.stack(each), 0


NAMESPACE.impl("ddf_layer", _kernel, "CompositeExplicitAutograd")
NAMESPACE.impl("ddf_layer", _at_autograd_key, "Autograd")
NAMESPACE.impl("ddf_layer", _reference, "AutocastCPU")  # its pieces are cast as those of a DDF2d are
torch.library.register_fake("ddfnet::ddf_layer", _fake, lib=NAMESPACE)
torch.library.register_vmap("ddfnet::ddf_layer", _vmap, lib=NAMESPACE)


@register_flop_formula(torch.ops.ddfnet.ddf_layer)  # type: ignore[untyped-decorator]
def _flops(input_shape: Any, weight_shapes: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Count the three convolutions, and three operations per tap of each result."""
    n, channels, height, width = out_shape
    (outputs, *_), _, reduce, _, expand, _ = weight_shapes
    taps = expand[0] // channels
    channel_macs = n * (math.prod(reduce) + math.prod(expand))
    return 2 * (n * height * width * outputs * channels + channel_macs) + 3 * taps * math.prod(out_shape)


# --- the operator of a layer's branches ---------------------------------------------------------------------------


def is_hooked(module: nn.Module) -> bool:
    """Return whether a call of the module runs hooks, as those of ``torch.nn.utils.prune`` are, too."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_one_operator(spatial: Any, channel: Any) -> bool:
    """Return whether the operator computes the filters of two branches, which are as they were built.

    A part that was exchanged, or that has a hook or a forward pass of its own, as offloading gives it, must be called.
    """
    if type(spatial) is not SpatialBranch or type(channel) is not ChannelBranch or _has_any_global_hook():
        return False
    parts = (
        *((spatial, SpatialBranch), (spatial.conv, nn.Conv2d), (spatial.norm, FilterNorm)),
        *((channel, ChannelBranch), (channel.reduce, nn.Conv2d), (channel.act, nn.ReLU)),
        *((channel.expand, nn.Conv2d), (channel.norm, FilterNorm)),
    )
    for part, kind in parts:
        own = part.__dict__
        if type(part) is not kind or is_hooked(part):
            return False
        if "forward" in own or "_conv_forward" in own:
            return False
    return spatial.conv.kernel_size == (1, 1)


def filter_layer(
    x: Tensor,
    spatial: Any,
    channel: Any,
    static: OptTensor,
    geometry: Sequence[Any],
    scale: OptTensor = None,
    shift: OptTensor = None,
    relu: bool = False,
) -> Tensor:
    """Call the operator with the weights of two branches.

    Args:
        x: (N, C, H, W).
        spatial, channel: branches for which `is_one_operator` is true.
        static: the weight (C, 1, kH, kW) that the channel filters are added to, as the identity of ``combine`` is to
            the spatial ones; None for predicted filters alone.
        geometry: kernel size, stride, padding, dilation and combine.
        scale, shift, relu: the epilogue.
    """
    convolutions = spatial.conv, channel.reduce, channel.expand
    weights = [tensor for conv in convolutions for tensor in (conv.weight, conv.bias)]
    norms = spatial.norm, channel.norm
    shifts = [norm.shift for norm in norms]
    if static is not None:
        identity = Combine(geometry[-1]).identity
        shifts = [static.new_full((spatial.conv.out_channels,), identity) if identity else None, static.flatten()]
    scales = [
        value if isinstance(value, Tensor) else None
        for norm, shift in zip(norms, shifts, strict=True)
        for value in (norm.scale, shift)
    ]
    numbers = [number for norm in norms for number in (1.0 if isinstance(norm.scale, Tensor) else norm.scale, norm.eps)]
    output: Tensor = ddf_layer(x, weights, *scales, scale, shift, *geometry, *numbers, relu)
    return output
