"""Gradient of a whole layer of decoupled dynamic filters, in few passes over its map.

The layer in pieces reads and writes a map for the gradient of each: of the operator, the 1x1 convolution, the mean, and
their sums. Here the gradients of the convolution and of the mean are one product of small matrices, added to the
operator's in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.ops.autograd import formula_gradients, is_batched, is_plain_eager
from ddfnet.ops.geometry import Geometry, is_channels_last
from ddfnet.ops.registration import OptTensor, ddf, ddf_backward

Numbers = tuple[float, float, float, float]  # gain and eps of the spatial FilterNorm, and of the channels'


def serves(input: Tensor, stride: Sequence[int]) -> bool:
    """Return whether `Layer` takes a map of these strides, which one of the two formats has, and a layer of stride 1.

    With a stride the 1x1 convolution reads a part of the map, and as a product of matrices needs a copy of it.
    """
    return tuple(stride) == (1, 1) and (is_channels_last(input) or input.is_contiguous())


class Layer(torch.autograd.Function):
    """Operator ``ddf_layer`` without an epilogue, in float32 on a device with the compiled kernel.

    ``apply(formula, geometry, numbers, input, *weights, spatial_scale, spatial_shift, channel_scale, channel_shift)``,
    with ``formula`` of all the tensors, for gradients of gradients.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, formula: Callable[..., Tensor], geometry: Geometry, numbers: Numbers, *tensors: OptTensor
    ) -> Tensor:
        input, *weights = _present(tensors[:7])
        spatial_weight, reduce_weight, expand_weight = (weight.flatten(1) for weight in weights[::2])
        spatial_bias, reduce_bias, expand_bias = weights[1::2]
        spatial_scale, spatial_shift, channel_scale, channel_shift = tensors[7:]
        spatial_gain, spatial_eps, channel_gain, channel_eps = numbers
        taps = geometry.taps()
        with torch._C._AutoDispatchBelowAutograd():
            norm = torch.ops.ddfnet._filter_norm.default
            raw_spatial = _predict(input, spatial_weight, spatial_bias)
            spatial = norm(raw_spatial, spatial_scale, spatial_shift, taps, spatial_gain, spatial_eps)
            pooled = input.mean((2, 3))
            hidden = F.linear(pooled, reduce_weight, reduce_bias).relu_()
            raw_channel = F.linear(hidden, expand_weight, expand_bias)
            channel = norm(raw_channel, channel_scale, channel_shift, taps, channel_gain, channel_eps)
            spatial = spatial.unflatten(2, input.shape[2:])
            channel = channel.reshape(*input.shape[:2], *geometry.kernel_size)
            output: Tensor = ddf(input, channel, spatial, *geometry.flat())
        ctx.formula, ctx.geometry, ctx.numbers = formula, geometry, numbers
        ctx.set_materialize_grads(False)
        # A constant shift has no part in a first gradient, and need not count as held for it.
        ctx.constant_shift = None if ctx.needs_input_grad[11] else spatial_shift
        saved = *tensors[:8], None if ctx.constant_shift is not None else spatial_shift, *tensors[9:]
        ctx.save_for_backward(*saved, raw_spatial, spatial, pooled, hidden, raw_channel, channel)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: OptTensor) -> Any:  # type: ignore[override]
        if grad_output is None:
            return (None,) * len(ctx.needs_input_grad)
        saved = ctx.saved_tensors  # once: a checkpoint computes them again, and gives each a single time
        # The layer was in float32, wherever its gradient is asked for.
        with torch.autocast(grad_output.device.type, enabled=False):
            if torch.is_grad_enabled() or is_batched(grad_output) or not is_plain_eager(grad_output, *saved):
                shift = saved[8] if ctx.constant_shift is None else ctx.constant_shift
                gradients = formula_gradients(ctx.formula, (*saved[:8], shift, *saved[9:11]), grad_output)
            else:
                with torch._C._AutoDispatchBelowAutograd():
                    gradients = _gradients(ctx, saved, grad_output)
        return None, None, None, *gradients


def _present(tensors: Sequence[OptTensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def _gradients(ctx: Any, saved: Sequence[Any], grad_output: Tensor) -> list[OptTensor]:
    """Return the gradients of the eleven tensors, each that is wanted."""
    geometry, needs = ctx.geometry, ctx.needs_input_grad[3:]
    input, *weights = saved[:7]
    spatial_scale, _, channel_scale, _ = saved[7:11]
    raw_spatial, spatial, pooled, hidden, raw_channel, channel = saved[11:]
    spatial_weight, reduce_weight, expand_weight = (weight.flatten(1) for weight in weights[::2])
    taps = geometry.taps()
    spatial_gain, spatial_eps, channel_gain, channel_eps = ctx.numbers
    wants_input = needs[0]
    mask = wants_input, wants_input or any(needs[3:7] + needs[9:]), wants_input or any(needs[1:3] + needs[7:9])
    grad_input, grad_channel, grad_spatial = ddf_backward(grad_output, input, channel, spatial, *geometry.flat(), mask)
    found: list[OptTensor] = [None] * 11
    norm_backward = torch.ops.ddfnet._filter_norm_backward.default
    if mask[2]:
        grad_spatial = grad_spatial.flatten(2)
        raw, products = norm_backward(
            grad_spatial, raw_spatial, spatial_scale, taps, spatial_gain, spatial_eps, True, needs[7]
        )
        found[7] = products.sum((0, 2)) if needs[7] else None
        found[8] = grad_spatial.sum((0, 2)) if needs[8] else None
        found[1] = _weight_gradient(raw, input).view_as(weights[0]) if needs[1] else None
        found[2] = raw.sum((0, 2)) if needs[2] else None
        grad_spatial = raw
    if mask[1]:
        grad_channel = grad_channel.flatten(1)
        raw, products = norm_backward(
            grad_channel, raw_channel, channel_scale, taps, channel_gain, channel_eps, True, needs[9]
        )
        found[9] = products.sum(0) if needs[9] else None
        found[10] = grad_channel.sum(0) if needs[10] else None
        found[5] = (raw.t() @ hidden).view_as(weights[4]) if needs[5] else None
        found[6] = raw.sum(0) if needs[6] else None
        grad_hidden = (raw @ expand_weight).masked_fill_(hidden == 0, 0)
        found[3] = (grad_hidden.t() @ pooled).view_as(weights[2]) if needs[3] else None
        found[4] = grad_hidden.sum(0) if needs[4] else None
        grad_channel = grad_hidden @ reduce_weight
    if wants_input:
        grad_mean = grad_channel / (input.shape[2] * input.shape[3])
        found[0] = _add_branches(grad_input, grad_spatial, spatial_weight, grad_mean)
    return found


# --- maps as matrices ---------------------------------------------------------------------------------------------


def _predict(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the 1x1 convolution of (N, C, H, W) by a weight (O, C), as (N, O, H*W), stored as x is."""
    if is_channels_last(x):
        return F.linear(_rows(x), weight, bias).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    return torch.baddbmm(bias[:, None], weight.expand(x.shape[0], -1, -1), x.flatten(2))


def _rows(x: Tensor) -> Tensor:
    """Return a channels_last map as a matrix of its pixels, (N*H*W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient (O, C) of a 1x1 convolution's weight from that of its result, (N, O, H*W)."""
    if is_channels_last(x):
        return grad.transpose(1, 2).flatten(0, 1).t() @ _rows(x)
    return torch.bmm(grad, x.flatten(2).transpose(1, 2)).sum(0)


def _add_branches(grad_input: Tensor, grad_spatial: Tensor, weight: Tensor, grad_mean: Tensor) -> Tensor:
    """Add the gradients of both branches to that of the operator, in place.

    Args:
        grad_input: (N, C, H, W), the operator's.
        grad_spatial: (N, O, H*W), that of the spatial branch's convolution.
        weight: (O, C) of this convolution.
        grad_mean: (N, C), that of each pixel by way of the mean.
    """
    n, outputs, pixels = grad_spatial.shape
    if outputs >= weight.shape[1]:  # the filters have more values than the map: they are not copied
        _add_product(grad_input, grad_spatial, weight.expand(n, -1, -1))
        return grad_input.add_(grad_mean[:, :, None, None])
    # The mean is one more output of the convolution, with a weight of its own in each sample.
    if is_channels_last(grad_input):
        factors = torch.cat([grad_spatial.transpose(1, 2), weight.new_ones(n, pixels, 1)], 2).transpose(1, 2)
    else:
        factors = torch.cat([grad_spatial, weight.new_ones(n, 1, pixels)], 1)
    _add_product(grad_input, factors, torch.cat([weight.expand(n, -1, -1), grad_mean[:, None]], 1))
    return grad_input


def _add_product(target: Tensor, factors: Tensor, weights: Tensor) -> None:
    """Add to (N, C, H, W) the sums over outputs of factors (N, O, H*W) times weights (N, O, C), in place."""
    if is_channels_last(target):
        target.permute(0, 2, 3, 1).flatten(1, 2).baddbmm_(factors.transpose(1, 2), weights)
    else:
        target.flatten(2).baddbmm_(weights.transpose(1, 2), factors)
