"""Derivatives of the operator, of any order and in both modes, and the shortest way of a call to its kernel.

The output of ``ddfnet::ddf`` is linear in each of its tensors, so that every derivative is made of the same two
operators again, with some tensor replaced: see `_replace`. Each of them rounds half types once; their sum is one
rounding more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from ddfnet.ops.decomposition import decompose, must_decompose
from ddfnet.ops.geometry import Combine, Geometry
from ddfnet.ops.library import NAMESPACE
from ddfnet.ops.registration import OptTensor, ddf, ddf_backward

# --- the shortest way to a kernel -----------------------------------------------------------------------------------

# Private names of torch. Where one is missing every call goes through the Autograd key, which is right and slower.
try:
    _transforms_are_active = torch._C._are_functorch_transforms_active
    _below_autograd: Any = torch._C._AutoDispatchBelowAutograd
    forward_ad._current_level  # noqa: B018
except AttributeError:
    _below_autograd = None
_PLAIN_TYPES = {Tensor, torch.nn.Parameter, type(None)}


def is_plain_eager(*tensors: OptTensor) -> bool:
    """Return whether nothing but the tensors' own ``requires_grad`` asks for a derivative of an eager call.

    Such a call skips the Autograd key, whose kernel in Python takes as long as the CPU kernel on a small map. Not so
    under ``torch.compile`` and ``torch.jit.trace``, in a transform of ``torch.func``, inside a level of forward-mode
    differentiation, and for tensor subclasses.
    """
    return (
        _below_autograd is not None
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not _transforms_are_active()
        and forward_ad._current_level < 0
        and {*map(type, tensors)} <= _PLAIN_TYPES
    )


def is_batched(tensor: Tensor) -> bool:
    """Return whether a tensor is a batch of ``torch.autograd.grad(is_grads_batched=True)``.

    That is not a transform of torch.func, and the tensor has the plain type. It comes to gradients alone, by way of
    ``jacobian`` and ``hessian`` with ``vectorize=True`` too.
    """
    return "Batched" in str(torch._C._dispatch_keys(tensor))


def formula_gradients(
    formula: Callable[..., Tensor], tensors: Sequence[OptTensor], grad_output: Tensor
) -> list[OptTensor]:
    """Return the gradients of a formula's tensors, which have gradients and derivatives themselves; None of a None."""
    given = [tensor for tensor in tensors if tensor is not None]

    def call(*each: Tensor) -> Tensor:
        left = iter(each)
        return formula(*(None if tensor is None else next(left) for tensor in tensors))

    gradients = iter(torch.func.vjp(call, *given)[1](grad_output))
    return [None if tensor is None else next(gradients) for tensor in tensors]


def call(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, geometry: Geometry) -> Tensor:
    """Call the operator with arguments that were checked."""
    tensors = input, channel_filter, spatial_filter
    output: Tensor
    if not is_plain_eager(*tensors):
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            # A trace's shapes are tensors. The kernel size comes from one, and the trace is valid for it alone.
            geometry = Geometry.from_flat(*((int(h), int(w)) for h, w in geometry[:-1]), geometry.combine)
            if must_decompose():
                return decompose(*tensors, geometry)
        output = ddf(*tensors, *geometry.flat())
    elif torch.is_grad_enabled() and (
        input.requires_grad
        or (channel_filter is not None and channel_filter.requires_grad)
        or (spatial_filter is not None and spatial_filter.requires_grad)
    ):
        output = _DDF.apply(*tensors, geometry, True)  # type: ignore[attr-defined]
    else:
        with _below_autograd():
            output = ddf(*tensors, *geometry.flat())
    return output


# --- derivatives ----------------------------------------------------------------------------------------------------


def _replace(tensors: Sequence[OptTensor], index: int, direction: Tensor, combine: Combine) -> list[OptTensor]:
    """Return the tensors of the directional derivative in tensor ``index`` of (input, channel_filter, spatial_filter).

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
    """Call operators below this level of differentiation. An outer level must find both modes on again: a function's
    forward turns them off, and nested torch.func transforms would see constants."""
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
        yield


# ``register_autograd`` would do for eager gradients, but on torch 2.14 a function under it makes torch.func.jvp return
# zeros and torch.func.grad raise. A function of a single level, applied at the Autograd key, is what functorch builds
# for each of its own levels. It gives grad, jvp and vmap in any nesting, in eager mode and compiled.
class _Function(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[int, ...]:
        """Return what compiled autograd knows the function by; ``torch.autograd.Function`` has the same."""
        return (ctx._autograd_function_id,)


class _DDF(_Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        channel_filter: OptTensor,
        spatial_filter: OptTensor,
        geometry: Geometry,
        plain: bool,
    ) -> Tensor:
        """Compute the output; ``plain`` is what `is_plain_eager` says of the tensors."""
        tensors = input, channel_filter, spatial_filter
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        output: Tensor
        if plain:
            with _below_autograd():
                output = ddf(*tensors, *geometry.flat())
        else:
            ctx.save_for_forward(*tensors)
            with _next_level():
                output = ddf(*tensors, *geometry.flat())
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: OptTensor) -> Any:
        if grad_output is None:
            return None, None, None, None, None
        tensors, mask = ctx.saved_tensors, ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled() and is_plain_eager(grad_output, *tensors):
            with _below_autograd():
                gradients = ddf_backward(grad_output, *tensors, *ctx.geometry.flat(), mask)
        else:
            gradients = ddf_backward(grad_output, *tensors, *ctx.geometry.flat(), mask)
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
                total = _add(total, ddf(*replaced, *ctx.geometry.flat()))
        return total


class _DDFBackward(_Function):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        *tensors, geometry, mask = args
        with _next_level():
            gradients: tuple[Tensor, ...] = ddf_backward(*tensors, *geometry.flat(), mask)
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.geometry, ctx.mask = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(o for o, wanted in zip(output, ctx.mask, strict=True) if not wanted))
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

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
                grad_of_grad = _add(grad_of_grad, ddf(*replaced, *ctx.geometry.flat()))
            mask = _others(index, needs, replaced)
            if any(mask):
                terms = ddf_backward(grad_output, *replaced, *ctx.geometry.flat(), mask)
                _accumulate(totals, terms, mask)
        return grad_of_grad, *totals, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[OptTensor, ...]:
        grad_output, *tensors = ctx.saved_tensors
        totals: list[OptTensor] = [None, None, None]
        if tangents[0] is not None:
            _accumulate(totals, ddf_backward(tangents[0], *tensors, *ctx.geometry.flat(), ctx.mask), ctx.mask)
        for index, tangent in enumerate(tangents[1:4]):
            if tangent is None:
                continue
            replaced = _replace(tensors, index, tangent, ctx.geometry.combine)
            mask = _others(index, ctx.mask, replaced)
            if any(mask):
                _accumulate(totals, ddf_backward(grad_output, *replaced, *ctx.geometry.flat(), mask), mask)
        return tuple(totals)


def _others(index: int, wanted: Sequence[bool], tensors: Sequence[OptTensor]) -> list[bool]:
    """Return which tensors are wanted, without the one that was replaced and those that are missing."""
    return [
        bool(want) and i != index and tensor is not None
        for i, (want, tensor) in enumerate(zip(wanted, tensors, strict=True))
    ]


def _accumulate(totals: list[OptTensor], terms: Sequence[Tensor], mask: Sequence[bool]) -> None:
    for i, (term, wanted) in enumerate(zip(terms, mask, strict=True)):
        if wanted:
            totals[i] = _add(totals[i], term)


def _at_autograd_key(input: Tensor, channel_filter: OptTensor, spatial_filter: OptTensor, *flat: Any) -> Tensor:
    tensors = input, channel_filter, spatial_filter
    if must_decompose():
        return decompose(*tensors, Geometry.from_flat(*flat))
    with enable_single_level_autograd_function():
        output: Tensor = _DDF.apply(*tensors, Geometry.from_flat(*flat), False)  # type: ignore[attr-defined]
    return output


def _backward_at_autograd_key(*args: Any) -> tuple[Tensor, ...]:
    tensors, flat, mask = args[:4], args[4:-1], args[-1]
    with enable_single_level_autograd_function():
        gradients: tuple[Tensor, ...] = _DDFBackward.apply(*tensors, Geometry.from_flat(*flat), mask)  # type: ignore[attr-defined]
    return gradients


NAMESPACE.impl("ddf", _at_autograd_key, "Autograd")
NAMESPACE.impl("ddf_backward", _backward_at_autograd_key, "Autograd")
