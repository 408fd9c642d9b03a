"""The operator on a GPU: what can run, and how a call becomes launches of the three kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from ddfnet.ops.geometry import Combine, Geometry, accumulate_dtype, empty_output, empty_result
from ddfnet.ops.triton.bwd_filters import grad_filters
from ddfnet.ops.triton.bwd_filters_planar import grad_filters_planar
from ddfnet.ops.triton.bwd_input import grad_input
from ddfnet.ops.triton.common import Map, Sizes, Window
from ddfnet.ops.triton.config import FilterTile, Launch, PlanarTile, Problem, Tile, choose
from ddfnet.ops.triton.fwd import forward

_OLDEST = (8, 0)  # compute capability that Triton supports
_SUM = {torch.float32: tl.float32, torch.float64: tl.float64}
_FARTHEST = 2**31 - 1  # that 32 bits can count
_MARGIN = 4096  # a tile may reach this far over the end of a map


def can_run(device: torch.device) -> tuple[bool, str]:
    if triton.knobs.runtime.interpret:
        return True, f"Triton {triton.__version__}, interpreted (TRITON_INTERPRET=1)"
    if device.type not in ("cuda", "xpu"):
        return (
            False,
            f"the Triton kernels serve GPUs; {device.type} only where TRITON_INTERPRET=1 is set from the start",
        )
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST:
            return False, f"Triton needs compute capability {_version(_OLDEST)}, this GPU has {_version(capability)}"
    return True, f"Triton {triton.__version__}, {_architecture(device)}"


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


@functools.cache
def _architecture(device: torch.device) -> str:
    if device.type == "cuda" and torch.version.hip is None:
        return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    return device.type


@functools.cache
def _processors(device: torch.device) -> int:
    """Of the device, that run programs at the same time; an interpreter runs one after another."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return torch.xpu.get_device_properties(device).gpu_subslice_count if device.type == "xpu" else 1


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    output = empty_result(input, geometry)
    if output.numel():
        _Call(output, input, channel_filter, spatial_filter, geometry).forward()
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    wants_input, wants_channel, wants_spatial = output_mask
    call = _Call(grad_output, input, channel_filter, spatial_filter, geometry)
    of_input = call.grad_input() if wants_input else None
    of_channel, of_spatial = call.grad_filters(wants_channel, wants_spatial)
    return of_input, of_channel, of_spatial


class _Call:
    """A call of the operator, forward or backward, as the kernels take it. ``output`` is the result or its gradient."""

    def __init__(
        self,
        output: Tensor,
        input: Tensor,
        channel_filter: Tensor | None,
        spatial_filter: Tensor | None,
        geometry: Geometry,
    ) -> None:
        kernel_size, stride, padding, dilation, scale, combine = geometry
        self.output, self.input = output, input
        self.channel_filter, self.spatial_filter = channel_filter, spatial_filter
        self.window = Window._make((*kernel_size, *stride, *dilation, *scale, combine is Combine.add))
        self.taps, self.subpixels = geometry.taps, geometry.subpixels
        heads = geometry.heads(spatial_filter)
        height, width = output.shape[2] // scale[0], output.shape[3] // scale[1]
        self.sizes = Sizes._make((heads, input.shape[1] // heads, *input.shape[2:], height, width, *padding))
        self.sum_dtype = accumulate_dtype(input.dtype)

    def _options(self, launch: Launch, *others: Tensor | None) -> dict[str, Any]:
        """Everything that a kernel is compiled for; ``others`` are what it writes beside the call's tensors."""
        tensors = self.output, self.input, self.channel_filter, self.spatial_filter, *others
        far = max(self._reach(), *map(_extent, tensors)) > _FARTHEST
        return {
            "WINDOW": self.window,
            "TILE": launch.tile,
            "INDEX": tl.int64 if far else tl.int32,
            "SUM": _SUM[self.sum_dtype],
            "num_warps": launch.warps,
        }

    def _reach(self) -> int:
        """The largest coordinate that a kernel computes, on a map or not."""
        sizes, window = self.sizes, self.window
        vertical = (sizes.height + _MARGIN) * max(window.stride_y, window.scale_y) + window.kernel_y * window.dilation_y
        horizontal = (sizes.width + _MARGIN) * max(
            window.stride_x, window.scale_x
        ) + window.kernel_x * window.dilation_x
        return max(
            vertical + sizes.padding_y + sizes.input_height + _MARGIN,
            horizontal + sizes.padding_x + sizes.input_width + _MARGIN,
        )

    def _problem(self, kernel: str, walked: Tensor, height: int, width: int) -> Problem:
        return Problem(
            kernel,
            channels_inner=walked.stride(1) == 1 and self.sizes.channels > 1,
            item=walked.element_size(),
            batch=self.input.shape[0],
            heads=self.sizes.heads,
            channels=self.sizes.channels,
            height=height,
            width=width,
            window=self.window,
            architecture=_architecture(self.input.device),
            processors=_processors(self.input.device),
        )

    def _programs(self, tile: Tile | FilterTile | PlanarTile, height: int, width: int) -> int:
        """Of all tiles of a map of that size, in all heads and pictures."""
        columns, channels = tile.extent
        tiles = triton.cdiv(height, tile.rows) * triton.cdiv(width, columns)
        return self.input.shape[0] * self.sizes.heads * triton.cdiv(self.sizes.channels, channels) * tiles

    def forward(self) -> None:
        """Fill the output."""
        height, width = self.sizes.height, self.sizes.width
        launch = choose(self._problem("forward", self.input, height, width))
        tile = cast(Tile, launch.tile)
        programs = self._programs(tile, height, width) * (self.subpixels // tile.subpixels)
        forward[(programs,)](
            _map(self.input),
            _map(self._taps_of(tile)),
            _map(self.spatial_filter),
            _map(self.output),
            self.sizes,
            **self._options(launch),
        )

    def grad_input(self) -> Tensor:
        grad = empty_output(self.input, self.input.shape)
        if not grad.numel():
            return grad
        (height, width), (stride_y, stride_x) = self.input.shape[2:], self.window[2:4]
        phases = min(stride_y, height) * min(stride_x, width)
        height, width = triton.cdiv(height, stride_y), triton.cdiv(width, stride_x)
        launch = choose(self._problem("grad_input", grad, height, width))
        tile = cast(Tile, launch.tile)
        grad_input[(self._programs(tile, height, width) * phases,)](
            _map(self.output),
            _map(self._taps_of(tile)),
            _map(self.spatial_filter),
            _map(grad),
            self.sizes,
            **self._options(launch, grad),
        )
        return grad

    def grad_filters(self, wants_channel: bool, wants_spatial: bool) -> tuple[Tensor | None, Tensor | None]:
        channel = self.channel_filter if wants_channel else None
        spatial = self.spatial_filter if wants_spatial else None
        if channel is None and spatial is None:
            return None, None
        height, width = self.sizes.height, self.sizes.width
        launch = choose(self._problem("grad_filters", self.input, height, width))
        tile = cast("FilterTile | PlanarTile", launch.tile)
        kernel = grad_filters
        if isinstance(tile, PlanarTile):
            kernel = grad_filters_planar
            tile = tile._replace(rows=min(tile.rows, height))  # a table's may be of a larger map
        columns, channels = tile.extent
        tiles = triton.cdiv(height, tile.rows) * triton.cdiv(width, columns)
        blocks = triton.cdiv(self.sizes.channels, channels)
        of_channel = self._parts(channel, tiles)
        of_spatial = self._parts(spatial, blocks)
        if self.input.numel():
            programs = self._programs(tile, height, width) * self.subpixels
            kernel[(programs * (self.window.kernel_y // tile.tap_rows),)](
                _map(self.output),
                _map(self.input),
                _map(self.channel_filter),
                _map(self.spatial_filter),
                _parts_map(of_channel),
                _parts_map(of_spatial),
                self.sizes,
                **self._options(Launch(tile, launch.warps), of_channel, of_spatial),
            )
        return _total(of_channel, channel), _total(of_spatial, spatial)

    def _taps_of(self, tile: Tile) -> Tensor | None:
        """The channel filter, for a kernel that loads its taps at every step with its channels next to each other: then
        a tap of several channels is one load. The filter is small beside the map, and the copy beside the kernel."""
        filter = self.channel_filter
        return filter if filter is None or tile.keep else filter.contiguous(memory_format=torch.channels_last)

    def _parts(self, filter: Tensor | None, count: int) -> Tensor | None:
        """Uninitialised sums of ``count`` programs that `_total` adds up. A single one is the gradient itself."""
        if filter is None:
            return None
        if count == 1:
            return empty_output(filter, filter.shape).unsqueeze(0)
        return torch.empty((count, *filter.shape), dtype=self.sum_dtype, device=filter.device)


def _total(parts: Tensor | None, filter: Tensor | None) -> Tensor | None:
    if parts is None or filter is None:
        return None
    return parts[0] if len(parts) == 1 else empty_output(filter, filter.shape).copy_(parts.sum(0))


def _map(tensor: Tensor | None) -> Map | None:
    return None if tensor is None else Map(tensor, *tensor.stride())


def _parts_map(parts: Tensor | None) -> tuple[Any, ...] | None:
    """The first part, and the stride from part to part."""
    return None if parts is None else (Map(parts, *parts.stride()[1:]), parts.stride(0))


def _extent(tensor: Tensor | None) -> int:
    """The largest distance between two elements, in elements."""
    if tensor is None or not tensor.numel():
        return 0
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
