"""Operator in operations of PyTorch that every exporter knows: slices of the padded map, products and sums.

The sum is made tap by tap, as in `ddfnet.ops.reference`, so that nothing of kH*kW times the map's size is stored; but
nothing is written in place, and no length of the map is a number in the graph. ``torch.onnx.export`` gets it instead of
``ddfnet::ddf``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.ops.geometry import Geometry, accumulate_dtype

_kept = False


@contextmanager
def keep_operator() -> Iterator[None]:
    """Let an exporter to ONNX see ``ddfnet::ddf``; `ddfnet.export` has a translation of it, with fewer slices."""
    global _kept
    before, _kept = _kept, True
    try:
        yield
    finally:
        _kept = before


def must_decompose() -> bool:
    """Return whether one of PyTorch's exporters to ONNX, which know no operator of ours, traces or rewrites a call."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return tracing and not _kept and torch.onnx.is_in_onnx_export()


def decompose(
    input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry
) -> Tensor:
    """Compute ``ddfnet::ddf``; the output is contiguous. Maps are viewed as (N, sub-pixels, G, C/G, H, W).

    Example:
        >>> import torch
        >>> from ddfnet.ops.decomposition import decompose
        >>> from ddfnet.ops.geometry import Geometry
        >>> x, channel = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 3, 3)
        >>> y = decompose(x, channel, None, Geometry((3, 3), padding=(1, 1)))
        >>> torch.allclose(y, torch.ops.ddfnet.ddf(x, channel, None, 3, 1, 1, 1, 1, "mul"), atol=1e-6)
        True
    """
    channels, dtype = input.shape[1], accumulate_dtype(input.dtype)
    heads, subpixels, taps = geometry.heads(spatial_filter), geometry.subpixels(), geometry.taps()
    py, px = geometry.padding
    padded = F.pad(input.to(dtype), (px, px, py, py)) if py or px else input.to(dtype)
    lead = [channels]
    if subpixels * heads > 1:
        lead = [subpixels, heads, channels // heads]
        padded = padded.unflatten(1, [1, *lead[1:]])
    channel_taps: Sequence[Tensor | None] = [None] * taps
    spatial_taps: Sequence[Tensor | None] = [None] * taps
    if channel_filter is not None:
        channel_taps = channel_filter.to(dtype).reshape(-1, *lead, taps, 1).split(1, -2)
    if spatial_filter is not None:
        grouped = spatial_filter.to(dtype)
        spatial_taps = (grouped if len(lead) == 1 else grouped.unflatten(1, [*lead[:2], taps])).split(1, -3)
    total: Tensor | None = None
    for pixels, channel, spatial in zip(_windows(padded, geometry), channel_taps, spatial_taps, strict=True):
        if channel is not None and spatial is not None and not geometry.combine.is_bilinear:
            term = pixels * geometry.combine(channel, spatial)
        else:  # first what reads the least besides
            term = pixels if channel is None else pixels * channel
            term = term if spatial is None else term * spatial
        total = term if total is None else total + term
    assert total is not None
    if subpixels > 1:
        sh, sw = geometry.upscale
        apart = total.flatten(2, 3).unflatten(1, [sh, sw])  # (N, sh, sw, C, H, W)
        total = apart.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
    elif heads > 1:
        total = total.flatten(1, 3)
    return total.to(input.dtype)


def _windows(padded: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """Yield the pixels that each tap reads: the map from the tap's offset on, up to the last window."""
    for tap in range(geometry.taps()):
        rows, columns = (
            slice(place * d, place * d - d * (k - 1) or None, s)
            for place, d, k, s in zip(
                divmod(tap, geometry.kernel_size[1]),
                geometry.dilation,
                geometry.kernel_size,
                geometry.stride,
                strict=True,
            )
        )
        yield padded[..., rows, columns]
