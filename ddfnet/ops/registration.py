"""Registration of the operator with PyTorch: schemas, Python kernels, fakes, vmap, autocast and FLOP formulas.

One pair, ``ddfnet::ddf`` and ``ddfnet::ddf_backward``, is behind every public call. `ddfnet.ops.autograd` has their
derivatives, ``csrc/binding`` their kernels for the CPU.

Filters are laid out sub-pixel major, (N, S*C, kH, kW) and (N, S*G*kH*kW, Ho, Wo) with S = sh*sw sub-pixels; without
upscaling S = 1, which is the layout of ``ddf``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ddfnet.ops import backends
from ddfnet.ops.checks import check_backward, check_call
from ddfnet.ops.geometry import empty_gradients, empty_result
from ddfnet.ops.library import NAMESPACE, define

OptTensor = Tensor | None

GEOMETRY_SCHEMA = "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, int[2] upscale, str combine"
_FILTERS = "Tensor? channel_filter, Tensor? spatial_filter"

ddf = define("ddf", f"(Tensor input, {_FILTERS}, {GEOMETRY_SCHEMA}) -> Tensor")
ddf_backward = define(
    "ddf_backward",
    f"(Tensor grad_output, Tensor input, {_FILTERS}, {GEOMETRY_SCHEMA}, bool[3] output_mask) "
    "-> (Tensor, Tensor, Tensor)",
)


# --- kernels and fakes --------------------------------------------------------------------------------------------


def _masked(gradients: Sequence[OptTensor], input: Tensor) -> tuple[Tensor, ...]:
    """Return an empty tensor for each gradient that was not asked for: a schema has no optional results."""
    return tuple(input.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _kernel(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    tensors = input, channel_filter, spatial_filter
    geometry = check_call(*tensors, *flat)
    kernels = backends.kernels(input.device)
    # An empty batch may have any number of taps, since its filters take no memory: no loop over them.
    output: Tensor = kernels.ddf(*tensors, geometry) if len(input) else empty_result(input, geometry)
    return output


def _backward_kernel(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: OptTensor,
    spatial_filter: OptTensor,
    *flat_and_mask: Any,
) -> tuple[Tensor, ...]:
    *flat, mask = flat_and_mask
    tensors = input, channel_filter, spatial_filter
    geometry = check_call(*tensors, *flat)
    check_backward(grad_output, input, geometry, mask)
    kernels = backends.kernels(input.device)
    if not len(input):
        return _masked(empty_gradients(tensors, mask), input)
    return _masked(kernels.ddf_backward(grad_output, *tensors, geometry, mask), input)


def _fake(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    return empty_result(input, check_call(input, channel_filter, spatial_filter, *flat))


def _backward_fake(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: OptTensor,
    spatial_filter: OptTensor,
    *flat_and_mask: Any,
) -> tuple[Tensor, ...]:
    *flat, mask = flat_and_mask
    tensors = input, channel_filter, spatial_filter
    check_backward(grad_output, input, check_call(*tensors, *flat), mask)
    return _masked(empty_gradients(tensors, mask), input)


backends.register_kernel("ddf", _kernel)
backends.register_kernel("ddf_backward", _backward_kernel)
torch.library.register_fake("ddfnet::ddf", _fake, lib=NAMESPACE)
torch.library.register_fake("ddfnet::ddf_backward", _backward_fake, lib=NAMESPACE)


# --- vmap: the mapped dimension joins the batch -------------------------------------------------------------------


def _join(tensor: OptTensor, dim: int | None, size: int) -> OptTensor:
    if tensor is None:
        return None
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.flatten(0, 1)


def _split(tensor: Tensor, size: int) -> Tensor:
    return tensor.unflatten(0, (size, tensor.shape[0] // size if size else 0))


def _vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
    tensors = [_join(tensor, dim, info.batch_size) for tensor, dim in zip(args[:3], in_dims[:3], strict=True)]
    return _split(ddf(*tensors, *args[3:]), info.batch_size), 0


def _backward_vmap(info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    tensors = [_join(tensor, dim, info.batch_size) for tensor, dim in zip(args[:4], in_dims[:4], strict=True)]
    mask = args[-1]
    gradients = ddf_backward(*tensors, *args[4:])
    split = tuple(
        _split(gradient, info.batch_size) if wanted else gradient
        for gradient, wanted in zip(gradients, mask, strict=True)
    )
    return split, tuple(0 if wanted else None for wanted in mask)


torch.library.register_vmap("ddfnet::ddf", _vmap, lib=NAMESPACE)
torch.library.register_vmap("ddfnet::ddf_backward", _backward_vmap, lib=NAMESPACE)


# --- autocast and FLOPs -------------------------------------------------------------------------------------------


def autocast(
    input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor
) -> tuple[Tensor, OptTensor, OptTensor]:
    """Return the tensors as conv2d would see them under autocast: in the autocast dtype, except double ones."""
    device = "cpu" if input.is_cpu else input.device.type  # the type takes four times as long to read
    if device != "cpu" and not torch.amp.is_autocast_available(device):
        return input, channel_filter, spatial_filter
    if not torch.is_autocast_enabled(device):
        return input, channel_filter, spatial_filter
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor

    return (
        cast(input),
        None if channel_filter is None else cast(channel_filter),
        None if spatial_filter is None else cast(spatial_filter),
    )


def _flops_per_result(channel_shape: Any, spatial_shape: Any, kernel_size: Sequence[int]) -> int:
    """Return a multiply and an add per tap, and one more operation where two filters meet."""
    both = channel_shape is not None and spatial_shape is not None
    return (3 if both else 2) * kernel_size[0] * kernel_size[1]


def _flops(
    input_shape: Any, channel_shape: Any, spatial_shape: Any, kernel_size: Any, *_: Any, out_shape: Any, **__: Any
) -> int:
    count: int = torch.Size(out_shape).numel() * _flops_per_result(channel_shape, spatial_shape, kernel_size)
    return count


def _backward_flops(
    grad_shape: Any, input_shape: Any, channel_shape: Any, spatial_shape: Any, kernel_size: Any, *rest: Any, **__: Any
) -> int:
    """Return the FLOPs of the forward pass for each gradient."""
    results, mask = torch.Size(grad_shape).numel(), rest[-1]
    count: int = results * _flops_per_result(channel_shape, spatial_shape, kernel_size) * sum(mask)
    return count


register_flop_formula(torch.ops.ddfnet.ddf)(_flops)
register_flop_formula(torch.ops.ddfnet.ddf_backward)(_backward_flops)
