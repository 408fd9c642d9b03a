"""Operator in pure PyTorch: the specification, and the kernel of every device without a kernel of its own.

    out[n,c,y,x] = sum_t w[n,c,t,y,x] * in[n, c, y*sy - py + ky*dy, x*sx - px + kx*dx],     t = ky*kW + kx

where the weight ``w`` combines the channel filter's tap and the spatial filter's tap (`ddfnet.ops.geometry.Combine`).
The input is shifted, weighted and accumulated one tap at a time, where the tap is inside the map. It is never unfolded
and never padded, so nothing of kH*kW times the input's size exists. With ``upscale = (sh, sw)`` there are sh*sw such
filters per pixel, and filter ``q = qy*sw + qx`` writes the output pixels ``(y*sh + qy, x*sw + qx)``.

Half types are combined and accumulated in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddfnet.ops.geometry import Geometry, accumulate_dtype, empty_output, empty_result

Region = tuple[slice, slice]  # rows and columns


def _at(map: Tensor, region: Region) -> Tensor:
    return map[..., region[0], region[1]]


class _Taps:
    """Positions that each tap joins and its weight there: views that forward and backward loop over.

    Maps are viewed as (N, G, C/G, H, W) and weights as tensors that broadcast to that; G is the number of heads.
    """

    def __init__(
        self, input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry
    ) -> None:
        self.geometry = geometry
        self.batch, self.channels, *self.size = input.shape
        self.positions = geometry.positions(self.size)
        self.dtype = accumulate_dtype(input.dtype)

        heads = geometry.heads(spatial_filter)
        width, taps = self.channels // heads, geometry.taps()
        self.channel_shape = (self.batch, geometry.subpixels(), heads, width, taps)
        self.spatial_shape = (self.batch, geometry.subpixels(), heads, taps, *self.positions)
        self.channel = None if channel_filter is None else channel_filter.to(self.dtype).reshape(self.channel_shape)
        self.spatial = None if spatial_filter is None else spatial_filter.to(self.dtype).reshape(self.spatial_shape)
        self.map_shape = (self.batch, heads, width)

    def split_heads(self, map: Tensor) -> Tensor:
        """Return (N, C, H, W) as (N, G, C/G, H, W)."""
        return map.unflatten(1, self.map_shape[1:])

    def __iter__(self) -> Iterator[tuple[int, Region, Region]]:
        """Yield each tap's index, the positions where it is inside the map, and the pixels that it reads there."""
        for tap in range(self.geometry.taps()):
            offsets = divmod(tap, self.geometry.kernel_size[1])
            (rows, pixel_rows), (columns, pixel_columns) = map(self._slices, (0, 1), offsets)
            yield tap, (rows, columns), (pixel_rows, pixel_columns)

    def _slices(self, axis: int, offset: int) -> tuple[slice, slice]:
        """Return positions and pixels along one axis: p reads pixel ``first + p * stride``, which is in [0, size)."""
        geometry = self.geometry
        stride, first = geometry.stride[axis], offset * geometry.dilation[axis] - geometry.padding[axis]
        begin = max(0, -(first // stride))
        end = max(begin, min(self.positions[axis], (self.size[axis] - 1 - first) // stride + 1))
        start = first + begin * stride
        return slice(begin, end), slice(start, start + (end - begin - 1) * stride + 1 if end > begin else start, stride)

    def channel_tap(self, subpixel: int, tap: int) -> Tensor | None:
        return None if self.channel is None else self.channel[:, subpixel, :, :, tap, None, None]

    def spatial_tap(self, subpixel: int, tap: int, positions: Region) -> Tensor | None:
        return None if self.spatial is None else _at(self.spatial[:, subpixel, :, None, tap], positions)

    def weight(self, subpixel: int, tap: int, positions: Region) -> Tensor:
        channel, spatial = self.channel_tap(subpixel, tap), self.spatial_tap(subpixel, tap, positions)
        if channel is None or spatial is None:
            weight = spatial if channel is None else channel
            assert weight is not None  # the public functions refuse a call without any filter
            return weight
        return self.geometry.combine(channel, spatial)

    def subpixel_map(self, output: Tensor, subpixel: int) -> Tensor:
        """Return the view of the output that one sub-pixel's filter writes: (N, G, C/G, Ho, Wo)."""
        sh, sw = self.geometry.upscale
        return output.unflatten(1, self.map_shape[1:])[..., subpixel // sw :: sh, subpixel % sw :: sw]


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    """Compute the output."""
    taps = _Taps(input, channel_filter, spatial_filter, geometry)
    pixel_map = taps.split_heads(input.to(taps.dtype))
    output = empty_result(input, geometry)
    for subpixel in range(geometry.subpixels()):
        total = pixel_map.new_zeros(*taps.map_shape, *taps.positions)
        for tap, positions, pixels in taps:
            _at(total, positions).add_(taps.weight(subpixel, tap, positions) * _at(pixel_map, pixels))
        taps.subpixel_map(output, subpixel).copy_(total)
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients of input, channel filter and spatial filter; None where ``output_mask`` is False."""
    wants_input, wants_channel, wants_spatial = output_mask
    taps = _Taps(input, channel_filter, spatial_filter, geometry)
    pixel_map = taps.split_heads(input.to(taps.dtype))
    grad_map = torch.zeros_like(pixel_map) if wants_input else None
    grad_channel = pixel_map.new_zeros(taps.channel_shape) if wants_channel else None
    grad_spatial = pixel_map.new_zeros(taps.spatial_shape) if wants_spatial else None
    for subpixel in range(geometry.subpixels()):
        every_grad = taps.subpixel_map(grad_output, subpixel).to(taps.dtype)
        for tap, positions, pixels in taps:
            grad = _at(every_grad, positions)
            if grad_map is not None:
                _at(grad_map, pixels).add_(taps.weight(subpixel, tap, positions) * grad)
            if grad_channel is None and grad_spatial is None:
                continue
            product = grad * _at(pixel_map, pixels)  # d out / d weight, summed over what shares the weight
            channel, spatial = taps.channel_tap(subpixel, tap), taps.spatial_tap(subpixel, tap, positions)
            if not geometry.combine.is_bilinear:
                channel = spatial = None
            if grad_channel is not None:
                term = product if spatial is None else product * spatial
                grad_channel[:, subpixel, ..., tap] = term.sum((-2, -1))
            if grad_spatial is not None:
                term = product if channel is None else product * channel
                _at(grad_spatial[:, subpixel, :, tap], positions).copy_(term.sum(2))

    def finish(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
        return None if grad is None or like is None else empty_output(like, like.shape).copy_(grad.reshape(like.shape))

    return (
        finish(grad_map, input),
        finish(grad_channel, channel_filter),
        finish(grad_spatial, spatial_filter),
    )


def can_run(device: torch.device) -> tuple[bool, str]:
    """Return True for every device, and why."""
    return True, "pure PyTorch"
