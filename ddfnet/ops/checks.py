"""Checks of the operator's arguments, shared by the public calls and by every kernel in Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddfnet.ops.geometry import DTYPES, Combine, Geometry, Pair, Shape, pair

_NAMES = ("input", "channel_filter", "spatial_filter")
_MOST_VALUES = 2**57  # products of sizes, in bytes, stay within 64 bits


def check_call(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    upscale: Pair,
    combine: str,
) -> Geometry:
    """Check a call of the registered operator and return its geometry. ``csrc/binding/arguments.cpp`` checks the same.

    Raises:
        ValueError: a wrong shape or value.
        TypeError: a wrong type, dtype or layout.
    """
    check_tensors(input, channel_filter, spatial_filter)
    check_one_dtype(input, channel_filter, spatial_filter)
    shapes = input.shape, shape_of(channel_filter), shape_of(spatial_filter)
    check_input(*shapes)
    geometry = Geometry(
        pair("kernel_size", kernel_size, 1),
        pair("stride", stride, 1),
        pair("padding", padding, 0),
        pair("dilation", dilation, 1),
        pair("upscale", upscale, 1),
        Combine(combine),
    )
    check_filters(*shapes, geometry)
    return geometry


def check_backward(grad_output: Tensor, input: Tensor, geometry: Geometry, output_mask: Sequence[bool]) -> None:
    """Check what a call of the registered gradient has besides the operator's arguments.

    Raises:
        ValueError: another shape than the output's; not three values in the mask.
        TypeError: another dtype than the input's.
    """
    if len(output_mask) != 3:
        raise ValueError(f"output_mask must have 3 values, got {len(output_mask)}")
    _check_tensor("grad_output", grad_output, input)
    expected = (*input.shape[:2], *geometry.output_size(input.shape[2:]))
    if tuple(grad_output.shape) != expected:
        raise ValueError(f"grad_output must be {expected}, got {tuple(grad_output.shape)}")
    if grad_output.dtype != input.dtype:
        raise TypeError(f"grad_output and input must have one dtype, got {grad_output.dtype} and {input.dtype}")


# --- tensors --------------------------------------------------------------------------------------------------------


def check_tensors(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None) -> None:
    """Check that the tensors are dense and floating and lie on one device; their dtypes may differ.

    Raises:
        TypeError: not a tensor, not dense, not one of the four dtypes.
        ValueError: devices that differ.
    """
    _check_tensor("input", input, input)
    if channel_filter is not None:
        _check_tensor("channel_filter", channel_filter, input)
    if spatial_filter is not None:
        _check_tensor("spatial_filter", spatial_filter, input)


def check_dense(name: str, tensor: Tensor) -> None:
    """Check that a tensor is one, and dense.

    Raises:
        TypeError: no tensor; a nested or a sparse one, whose shape torch refuses with an internal error.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.is_nested:
        raise TypeError(f"{name} must be a dense (strided) tensor, got a nested one; use .to_padded_tensor(0)")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got {tensor.layout}; use .to_dense()")


def _check_tensor(name: str, tensor: Tensor, input: Tensor) -> None:
    check_dense(name, tensor)
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}")
    # Two devices are made to compare them, which takes as long as the rest of these checks.
    if not (tensor.is_cpu and input.is_cpu) and tensor.device != input.device:
        raise ValueError(
            f"input and filters must be on one device, got input on {input.device} and {name} on {tensor.device}; "
            f"move them with .to(device)"
        )


def check_one_dtype(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None) -> None:
    """Check that input, channel filter and spatial filter have one dtype.

    Raises:
        TypeError: dtypes that differ.
    """
    if (channel_filter is not None and channel_filter.dtype != input.dtype) or (
        spatial_filter is not None and spatial_filter.dtype != input.dtype
    ):
        tensors = input, channel_filter, spatial_filter
        got = ", ".join(f"{n} {t.dtype}" for n, t in zip(_NAMES, tensors, strict=True) if t is not None)
        raise TypeError(f"input and filters must have one dtype, got {got}; cast them with .to(dtype)")


# --- shapes ---------------------------------------------------------------------------------------------------------


def shape_of(tensor: Tensor | None) -> Shape | None:
    """Return the tensor's shape, None without a tensor."""
    return None if tensor is None else tensor.shape


def check_input(input: Shape, channel: Shape | None, spatial: Shape | None) -> None:
    """Check the shapes as far as no geometry is needed.

    Raises:
        ValueError: no filter; an input that is not (N, C, H, W) or has no channels.
    """
    if channel is None and spatial is None:
        raise ValueError("channel_filter and spatial_filter must not both be None: give at least one of them")
    if len(input) != 4:
        raise ValueError(f"input must be (N, C, H, W), got {tuple(input)}; add a batch dimension with unsqueeze(0)")
    if input[1] < 1:
        raise ValueError(f"input must have at least one channel, got (N, C, H, W) = {tuple(input)}")


def _check_size(name: str, shape: Shape) -> None:
    # Under a compiler, and symbolic or in a trace, sizes belong to tensors that exist. A size of 0 counts as 1: the
    # other sizes of an empty tensor are not bounded by any memory.
    if torch.compiler.is_compiling() or any(type(size) is not int for size in shape):
        return
    if math.prod(max(size, 1) for size in shape) > _MOST_VALUES:
        raise ValueError(f"the {name} would be too large: {tuple(shape)}; use smaller sizes")


def check_filters(
    input: Shape, channel: Shape | None, spatial: Shape | None, geometry: Geometry, *, upsamples: bool = False
) -> None:
    """Check that the filters fit the input exactly: nothing broadcasts.

    Args:
        input: (N, C, H, W).
        channel: (N, S*C, kH, kW), or (N, S, C, kH, kW) as `ddfnet.ddf_upsample` takes it; or None.
        spatial: (N, S*G*kH*kW, Ho, Wo), or None.
        geometry: geometry of the call; S is its number of sub-pixels.
        upsamples: whether the shapes are those of `ddfnet.ddf_upsample`, which the messages then name.

    Raises:
        ValueError: a filter of another shape, an empty output, or one that no memory holds.
    """
    batch, channels = input[:2]
    positions = geometry.positions(input[2:])
    _check_size("input", input)
    _check_size("output", (batch, channels, *geometry.output_size(input[2:])))
    _check_size("channel filter", (batch, geometry.subpixels() * channels, *geometry.kernel_size))
    subpixels, unit = geometry.subpixels(), geometry.subpixels() * geometry.taps()
    if channel is not None:
        layout = "(N, s*s, C, kH, kW)" if upsamples else "(N, C, kH, kW)"
        middle = (subpixels, channels) if upsamples else (subpixels * channels,)
        expected = (batch, *middle, *geometry.kernel_size)
        if tuple(channel) != expected:
            raise ValueError(f"channel_filter must be {layout} = {expected}, got {tuple(channel)}")
    if spatial is None:
        return
    layout = "(N, s*s*G*kH*kW, H, W)" if upsamples else "(N, G*kH*kW, Ho, Wo)"
    shape = tuple(spatial)
    if len(shape) != 4:
        raise ValueError(f"spatial_filter must be {layout}, got {shape}")
    if shape[0] != batch or shape[2:] != positions:
        raise ValueError(f"spatial_filter must be {layout} with N = {batch} and size {positions}, got {shape}")
    if shape[1] < 1 or shape[1] % unit:
        product = f"s*s*kH*kW = {unit}" if upsamples else f"kH*kW = {unit}"
        raise ValueError(f"spatial_filter must be {layout}, its channels a multiple of {product}, got {shape}")
    _check_size("spatial filter", shape)
    heads = shape[1] // unit
    if channels % heads:
        raise ValueError(
            f"the heads of spatial_filter must divide the {channels} channels of input, got {heads} of {shape}"
        )
