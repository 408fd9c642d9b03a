"""The operator as PyTorch sees it: schemas, fakes, autograd of any order, autocast, vmap, FLOP formulas.

One pair, ``ddfnet::ddf`` and ``ddfnet::ddf_backward``, stands behind every public call. The output of the first is
linear in each of its tensors, so derivatives of any order and in either mode are the same two operators again, with
some tensor replaced: see `_replace`. Each of those rounds half types once; their sum is one rounding more.

Filters are laid out sub-pixel major, (N, S*C, kH, kW) and (N, S*G*kH*kW, Ho, Wo) with S = sh*sw sub-pixels; without
upscaling S = 1, which is the layout of ``ddf``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ddfnet.ops import backends
from ddfnet.ops.geometry import DTYPES, Combine, Geometry, empty_gradients, empty_result

_GEOMETRY = (
    "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt[2] upscale, str combine"
)
_FILTERS = "Tensor? channel_filter, Tensor? spatial_filter"

_library = torch.library.Library("ddfnet", "DEF")
_library.define(f"ddf(Tensor input, {_FILTERS}, {_GEOMETRY}) -> Tensor")
_library.define(
    f"ddf_backward(Tensor grad_output, Tensor input, {_FILTERS}, {_GEOMETRY}, bool[3] output_mask) "
    "-> (Tensor, Tensor, Tensor)"
)
ddf = torch.ops.ddfnet.ddf.default
ddf_backward = torch.ops.ddfnet.ddf_backward.default

OptTensor = Tensor | None
Gradients = Sequence[OptTensor]


# --- kernels and fakes --------------------------------------------------------------------------------------------


def _masked(gradients: Gradients, input: Tensor) -> tuple[Tensor, ...]:
    """A schema has no optional results: a gradient that was not asked for is an empty tensor."""
    return tuple(input.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _geometry(*flat: Any) -> Geometry:
    """Return the geometry that the schema has as five lists and a string."""
    *sizes, combine = flat
    return Geometry(*map(tuple, sizes), Combine(combine))


def _kernel(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    output: Tensor = backends.kernels(input.device).ddf(input, channel_filter, spatial_filter, _geometry(*flat))
    return output


def _backward_kernel(
    grad_output: Tensor, input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat_and_mask: Any
) -> tuple[Tensor, ...]:
    *flat, mask = flat_and_mask
    kernels, tensors = backends.kernels(input.device), (grad_output, input, channel_filter, spatial_filter)
    return _masked(kernels.ddf_backward(*tensors, _geometry(*flat), mask), input)


def _fake(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    return empty_result(input, _geometry(*flat))


def _backward_fake(
    grad_output: Tensor, input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat_and_mask: Any
) -> tuple[Tensor, ...]:
    return _masked(empty_gradients((input, channel_filter, spatial_filter), flat_and_mask[-1]), input)


_library.impl("ddf", _kernel, "CompositeExplicitAutograd")
_library.impl("ddf_backward", _backward_kernel, "CompositeExplicitAutograd")
torch.library.register_fake("ddfnet::ddf", _fake, lib=_library)
torch.library.register_fake("ddfnet::ddf_backward", _backward_fake, lib=_library)


# --- the shortest way to the kernel --------------------------------------------------------------------------------


@functools.cache
def _plain_keys() -> frozenset[int]:
    """The dispatch keys of ordinary dense tensors on the CPU, made outside of inference mode and inside."""
    keys = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            keys.append(torch._C._dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
    return frozenset(keys)


def is_plain(tensor: OptTensor) -> bool:
    """Whether the dispatcher would do nothing with this tensor but differentiate and compute.

    Not so for subclasses, fakes and meta tensors, batches under vmap, negated views and zeros that have no memory.
    """
    return tensor is None or (
        (type(tensor) is Tensor or type(tensor) is torch.nn.Parameter)
        and torch._C._dispatch_keys(tensor).raw_repr() in _plain_keys()
    )


def plain_kernels(input: OptTensor, channel_filter: OptTensor, spatial_filter: OptTensor) -> ModuleType | None:
    """The kernels that a call may go to at once; None where checks, casts or somebody who listens come first.

    An eager call on ordinary tensors of one dtype need not pass the dispatcher, whose layers in Python take longer than
    the kernel on a small map.
    """
    if (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._ops._len_torch_dispatch_stack_pre_dispatch()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or not (is_plain(input) and is_plain(channel_filter) and is_plain(spatial_filter))
        or input is None
        or input.dtype not in DTYPES
        or (channel_filter is not None and channel_filter.dtype is not input.dtype)
        or (spatial_filter is not None and spatial_filter.dtype is not input.dtype)
    ):
        return None
    return backends.kernels(input.device)


def call_plain(kernels: ModuleType, tensors: tuple[OptTensor, OptTensor, OptTensor], geometry: Geometry) -> Tensor:
    """`ddf` of tensors that `plain_kernels` found plain."""
    output: Tensor
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        output = _DDF.apply(*tensors, geometry, kernels)  # type: ignore[attr-defined]
    else:
        output = kernels.ddf(*tensors, geometry)
    return output


# --- derivatives --------------------------------------------------------------------------------------------------


def _replace(tensors: Gradients, index: int, direction: Tensor, combine: Combine) -> list[OptTensor]:
    """The tensors of the directional derivative in tensor ``index`` of (input, channel_filter, spatial_filter).

    The operator is linear in each: its derivative along a direction is itself with the direction in the tensor's place.
    Where the filters are not multiplied, the derivative in one does not contain the other, which then is missing.
    """
    replaced = list(tensors)
    replaced[index] = direction
    if index > 0 and not combine.is_bilinear:
        replaced[3 - index] = None
    return replaced


def _add(total: OptTensor, term: Tensor) -> Tensor:
    return term if total is None else total + term


@contextmanager
def _next_level() -> Iterator[None]:
    """Below this level of differentiation, where an outer one must find both modes on again: a function's forward turns
    them off, and nested torch.func transforms would see constants."""
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
        yield


# ``register_autograd`` would do for eager gradients, but on torch 2.14 a function under it makes torch.func.jvp return
# zeros and torch.func.grad raise. A function of a single level, applied at the Autograd key, is what functorch builds
# for each of its own levels, and gives grad, jvp and vmap in any nesting, in eager mode and compiled.
class _DDF(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        channel_filter: OptTensor,
        spatial_filter: OptTensor,
        geometry: Geometry,
        kernels: ModuleType | None,
    ) -> Tensor:
        """By these kernels, or where there are none by the dispatcher."""
        tensors = input, channel_filter, spatial_filter
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        output: Tensor
        if kernels is not None:
            output = kernels.ddf(*tensors, geometry)
        else:
            ctx.save_for_forward(*tensors)
            with _next_level():
                output = ddf(*tensors, *geometry)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: OptTensor) -> Any:
        if grad_output is None:
            return None, None, None, None, None
        tensors, mask = ctx.saved_tensors, ctx.needs_input_grad[:3]
        kernels = None if torch.is_grad_enabled() else plain_kernels(*tensors)
        if kernels is not None and is_plain(grad_output):
            gradients = kernels.ddf_backward(grad_output, *tensors, ctx.geometry, mask)
        else:
            gradients = ddf_backward(grad_output, *tensors, *ctx.geometry, mask)
        input, channel_filter, spatial_filter = (
            gradient if wanted else None for gradient, wanted in zip(gradients, mask, strict=True)
        )
        return input, channel_filter, spatial_filter, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> OptTensor:
        total: OptTensor = None
        for index, tangent in enumerate(tangents[:3]):
            if tangent is not None:
                replaced = _replace(ctx.saved_tensors, index, tangent, ctx.geometry.combine)
                total = _add(total, ddf(*replaced, *ctx.geometry))
        return total


class _DDFBackward(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        with _next_level():
            gradients: tuple[Tensor, ...] = ddf_backward(*args)
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.geometry, ctx.mask = _geometry(*inputs[4:-1]), inputs[-1]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(o for o, wanted in zip(output, ctx.mask, strict=True) if not wanted))
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, *directions: Any) -> Any:
        grad_output, *tensors = ctx.saved_tensors
        needs_grad_output, *needs = ctx.needs_input_grad[:4]
        grad_of_grad: OptTensor = None
        totals: list[OptTensor] = [None, None, None]
        for index, direction in enumerate(directions):
            if direction is None or not ctx.mask[index]:
                continue
            replaced = _replace(tensors, index, direction, ctx.geometry.combine)
            if needs_grad_output:
                grad_of_grad = _add(grad_of_grad, ddf(*replaced, *ctx.geometry))
            mask = _others(index, needs, replaced)
            if any(mask):
                terms = ddf_backward(grad_output, *replaced, *ctx.geometry, mask)
                _accumulate(totals, terms, mask)
        return (grad_of_grad, *totals, *(None for _ in ctx.geometry), None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[OptTensor, ...]:
        grad_output, *tensors = ctx.saved_tensors
        totals: list[OptTensor] = [None, None, None]
        if tangents[0] is not None:
            _accumulate(totals, ddf_backward(tangents[0], *tensors, *ctx.geometry, ctx.mask), ctx.mask)
        for index, tangent in enumerate(tangents[1:4]):
            if tangent is None:
                continue
            replaced = _replace(tensors, index, tangent, ctx.geometry.combine)
            mask = _others(index, ctx.mask, replaced)
            if any(mask):
                _accumulate(totals, ddf_backward(grad_output, *replaced, *ctx.geometry, mask), mask)
        return tuple(totals)


def _others(index: int, wanted: Sequence[bool], tensors: Gradients) -> list[bool]:
    """The wanted tensors, less the one that was replaced and those that are missing."""
    return [
        bool(want) and i != index and tensor is not None
        for i, (want, tensor) in enumerate(zip(wanted, tensors, strict=True))
    ]


def _accumulate(totals: list[OptTensor], terms: Sequence[Tensor], mask: Sequence[bool]) -> None:
    for i, (term, wanted) in enumerate(zip(terms, mask, strict=True)):
        if wanted:
            totals[i] = _add(totals[i], term)


def _at_autograd_key(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    geometry = _geometry(*flat)
    with enable_single_level_autograd_function():
        output: Tensor = _DDF.apply(input, channel_filter, spatial_filter, geometry, None)  # type: ignore[attr-defined]
    return output


def _backward_at_autograd_key(*args: Any) -> tuple[Tensor, ...]:
    with enable_single_level_autograd_function():
        gradients: tuple[Tensor, ...] = _DDFBackward.apply(*args)  # type: ignore[attr-defined]
    return gradients


_library.impl("ddf", _at_autograd_key, "Autograd")
_library.impl("ddf_backward", _backward_at_autograd_key, "Autograd")


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


torch.library.register_vmap("ddfnet::ddf", _vmap, lib=_library)
torch.library.register_vmap("ddfnet::ddf_backward", _backward_vmap, lib=_library)


# --- autocast and FLOPs -------------------------------------------------------------------------------------------


def autocast(*tensors: OptTensor) -> tuple[OptTensor, ...]:
    """The tensors as conv2d would see them under autocast: in the autocast dtype where it is on, except double ones."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        tensor.to(dtype)
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    )


def _flops_a_result(channel_shape: Any, spatial_shape: Any, kernel_size: Sequence[int]) -> int:
    """A multiply and an add a tap, and one operation more where two filters meet."""
    both = channel_shape is not None and spatial_shape is not None
    return (3 if both else 2) * kernel_size[0] * kernel_size[1]


def _flops(
    input_shape: Any, channel_shape: Any, spatial_shape: Any, kernel_size: Any, *_: Any, out_shape: Any, **__: Any
) -> int:
    count: int = torch.Size(out_shape).numel() * _flops_a_result(channel_shape, spatial_shape, kernel_size)
    return count


def _backward_flops(
    grad_shape: Any, input_shape: Any, channel_shape: Any, spatial_shape: Any, kernel_size: Any, *rest: Any, **__: Any
) -> int:
    """As much as the forward pass for each gradient."""
    mask = rest[-1]
    count: int = torch.Size(grad_shape).numel() * _flops_a_result(channel_shape, spatial_shape, kernel_size) * sum(mask)
    return count


register_flop_formula(torch.ops.ddfnet.ddf)(_flops)
register_flop_formula(torch.ops.ddfnet.ddf_backward)(_backward_flops)
