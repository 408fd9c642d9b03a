"""Translations of our operator to standard operators of ONNX, for `torch.onnx.export`.

The sum is made tap by tap, as in `ddfnet.ops.reference`: a Slice of the padded map, a product with each filter's tap,
and an Add, so that nothing of kH*kW times the map's size is stored. ONNX has no filters that differ between pixels, and
its Conv has one weight for all samples.
"""

# Annotations are not postponed, because the exporter tells tensors from attributes by them.
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import torch
from onnxscript import BFLOAT16, FLOAT, FLOAT16
from onnxscript import opset18 as op
from onnxscript.onnx_types import TensorType

from ddfnet.ops.geometry import Combine

Ints = Sequence[int]

_HALF = (FLOAT16.dtype, BFLOAT16.dtype)  # dtypes that are combined and summed in float32
_END = 2**31 - 1  # index beyond every map


def ddf(
    input: TensorType,
    channel_filter: Optional[TensorType],  # noqa: UP045  (likewise)
    spatial_filter: Optional[TensorType],  # noqa: UP045
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    upscale: Sequence[int],
    combine: str,
) -> TensorType:
    """Translate ``ddfnet::ddf``, see `ddfnet.ops.registration`, for any N, H and W."""
    mode = Combine(combine)
    channels, taps, subpixels = input.shape[1], math.prod(kernel_size), math.prod(upscale)
    heads = 1 if spatial_filter is None else spatial_filter.shape[1] // (subpixels * taps)
    dtype = input.dtype
    if dtype in _HALF:
        input, channel_filter, spatial_filter = (
            None if each is None else op.Cast(each, to=FLOAT.dtype) for each in (input, channel_filter, spatial_filter)
        )
    padded = _pad(input, padding)
    lead = [channels]
    if subpixels * heads > 1:  # maps are (N, sub-pixels, heads, channels per head, H, W)
        lead = [subpixels, heads, channels // heads]
        padded = _reshape(padded, [1, *lead[1:]])
        spatial_filter = None if spatial_filter is None else _reshape(spatial_filter, [subpixels, heads, taps])
    channel_taps: Sequence[Any] = [None] * taps
    spatial_taps: Sequence[Any] = [None] * taps
    if channel_filter is not None:
        channel_taps = _split(op.Reshape(channel_filter, [0, *lead, taps, 1]), -2, taps)
    if spatial_filter is not None:
        spatial_taps = _split(spatial_filter, -3, taps)
    total = None
    for pixels, channel, spatial in zip(
        _windows(padded, kernel_size, stride, dilation), channel_taps, spatial_taps, strict=True
    ):
        if mode is Combine.add and channel is not None and spatial is not None:
            term = op.Mul(pixels, op.Add(channel, spatial))
        else:  # first what reads the least besides
            term = pixels if channel is None else op.Mul(pixels, channel)
            term = term if spatial is None else op.Mul(term, spatial)
        total = term if total is None else op.Add(total, term)
    if subpixels > 1:
        total = _interleave(total, channels, upscale)
    elif heads > 1:
        total = _reshape(total, [channels])
    return op.Cast(total, to=dtype) if dtype in _HALF else total


def im2col(
    self: TensorType,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> TensorType:
    """Translate ``aten::im2col``, which the depth network has for its mask, to slices; the exporter's own gathers."""
    windows = [op.Unsqueeze(each, [2]) for each in _windows(_pad(self, padding), kernel_size, stride, dilation)]
    return op.Reshape(op.Concat(*windows, axis=2), [0, self.shape[1] * len(windows), -1])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.ddfnet.ddf.default: ddf,
    torch.ops.aten.im2col.default: im2col,
}
"""For ``torch.onnx.export(..., custom_translation_table=TRANSLATIONS)``."""


def _pad(map: Any, padding: Ints) -> Any:
    return op.Pad(map, [0, 0, *padding, 0, 0, *padding]) if any(padding) else map


def _windows(padded: Any, kernel_size: Ints, stride: Ints, dilation: Ints) -> Iterator[Any]:
    """Yield the pixels that each tap reads: the map from the tap's offset on, up to the last window."""
    spans = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
    for tap in range(math.prod(kernel_size)):
        starts = [d * place for d, place in zip(dilation, divmod(tap, kernel_size[1]), strict=True)]
        ends = [start - span or _END for start, span in zip(starts, spans, strict=True)]
        yield op.Slice(padded, starts, ends, [-2, -1], list(stride))


def _split(filters: Any, axis: int, taps: int) -> Sequence[Any]:
    return op.Split(filters, axis=axis, num_outputs=taps) if taps > 1 else [filters]


def _reshape(map: Any, lead: Ints) -> Any:
    """Reshape (N, ..., H, W) to (N, *lead, H, W)."""
    return op.Reshape(map, op.Concat(_constant([0, *lead]), op.Shape(map, start=-2), axis=0))


def _interleave(subpixels: Any, channels: int, upscale: Ints) -> Any:
    """Interleave sub-pixels: (N, sh*sw, G, C/G, H, W) to (N, C, sh*H, sw*W)."""
    size = op.Mul(op.Shape(subpixels, start=-2), list(upscale))
    apart = op.Transpose(_reshape(subpixels, [*upscale, channels]), perm=[0, 3, 4, 1, 5, 2])
    return op.Reshape(apart, op.Concat(_constant([0, channels]), size, axis=0))


def _constant(values: Ints) -> Any:
    return op.Constant(value_ints=list(values))
