"""Launches of the kernels that serve one call of the operator."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from ddfnet.ops.geometry import Combine, Geometry, accumulate_dtype, empty_output, empty_result
from ddfnet.ops.triton.bwd_filters import ddf_bwd_filters_kernel
from ddfnet.ops.triton.bwd_filters_planar import ddf_bwd_filters_planar_kernel
from ddfnet.ops.triton.bwd_input import ddf_bwd_input_kernel
from ddfnet.ops.triton.common import Map, Sizes, StaticGeometry
from ddfnet.ops.triton.config import AnyTile, LaunchConfig, PlanarTile, Problem, Tile, choose
from ddfnet.ops.triton.fwd import ddf_fwd_kernel

_MIN_CAPABILITY = (8, 0)  # the oldest compute capability that Triton supports
_ACC_DTYPE = {torch.float32: tl.float32, torch.float64: tl.float64}
_INT32_MAX = 2**31 - 1
_MARGIN = 4096  # pixels that a tile may reach over the end of a map


def can_run(device: torch.device) -> tuple[bool, str]:
    """Return whether the kernels can serve this device, and the reason."""
    if triton.knobs.runtime.interpret:
        return True, f"Triton {triton.__version__}, interpreted (TRITON_INTERPRET=1)"
    if device.type not in ("cuda", "xpu"):
        return (
            False,
            f"the Triton kernels serve GPUs; {device.type} only where TRITON_INTERPRET=1 is set from the start",
        )
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < _MIN_CAPABILITY:
            return False, "Triton needs compute capability {}.{}, this GPU has {}.{}".format(
                *_MIN_CAPABILITY, *capability
            )
    return True, f"Triton {triton.__version__}, {_architecture(device)}"


@functools.cache
def _architecture(device: torch.device) -> str:
    """Return the name that the table knows the device's kind by."""
    if device.type == "cuda" and torch.version.hip is None:
        return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    return device.type


@functools.cache
def _num_sms(device: torch.device) -> int:
    """Return the number of multiprocessors; 1 for the interpreter, which runs one program after another."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return torch.xpu.get_device_properties(device).gpu_subslice_count if device.type == "xpu" else 1


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    """Compute the operator."""
    output = empty_result(input, geometry)
    if output.numel():
        _Launcher(output, input, channel_filter, spatial_filter, geometry).forward()
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients of input, channel filter and spatial filter that the mask asks for, else None."""
    wants_input, wants_channel, wants_spatial = output_mask
    launcher = _Launcher(grad_output, input, channel_filter, spatial_filter, geometry)
    grad_input = launcher.backward_input() if wants_input else None
    grad_channel, grad_spatial = launcher.backward_filters(wants_channel, wants_spatial)
    return grad_input, grad_channel, grad_spatial


class _Launcher:
    """One call of the operator, forward or backward, as the kernels take it.

    Args:
        output: (N, C, Ho*uy, Wo*ux), the result or its gradient.
        input: (N, C, H, W).
        channel_filter: (N, S*C, kH, kW), or None.
        spatial_filter: (N, S*G*kH*kW, Ho, Wo), or None.
        geometry: the geometry of the call.
    """

    def __init__(
        self,
        output: Tensor,
        input: Tensor,
        channel_filter: Tensor | None,
        spatial_filter: Tensor | None,
        geometry: Geometry,
    ) -> None:
        kernel_size, stride, padding, dilation, scale, combine = geometry
        heads = geometry.heads(spatial_filter)
        self.output, self.input = output, input
        self.channel_filter, self.spatial_filter = channel_filter, spatial_filter
        self.geometry = StaticGeometry(
            kernel_h=kernel_size[0],
            kernel_w=kernel_size[1],
            stride_h=stride[0],
            stride_w=stride[1],
            dilation_h=dilation[0],
            dilation_w=dilation[1],
            scale_h=scale[0],
            scale_w=scale[1],
            add=combine is Combine.add,
        )
        self.subpixels = geometry.subpixels()
        self.sizes = Sizes(
            heads=heads,
            channels=input.shape[1] // heads,
            input_height=input.shape[2],
            input_width=input.shape[3],
            height=output.shape[2] // scale[0],
            width=output.shape[3] // scale[1],
            padding_h=padding[0],
            padding_w=padding[1],
        )
        self.acc_dtype = accumulate_dtype(input.dtype)

    # --- the three passes ---------------------------------------------------------------------------------------------

    def forward(self) -> None:
        """Fill the output."""
        height, width = self.sizes.height, self.sizes.width
        config = choose(self._problem("fwd", self.input, height, width))
        tile = cast(Tile, config.tile)
        programs = self._programs(tile, height, width) * (self.subpixels // tile.SUBPIXELS)
        ddf_fwd_kernel[(programs,)](
            input=_map(self.input),
            channel_filter=_map(self._channel_filter_for(tile)),
            spatial_filter=_map(self.spatial_filter),
            output=_map(self.output),
            sizes=self.sizes,
            **self._meta(config),
        )

    def backward_input(self) -> Tensor:
        """Return the gradient of the input."""
        grad = empty_output(self.input, self.input.shape)
        if not grad.numel():
            return grad
        (height, width), g = self.input.shape[2:], self.geometry
        phases = min(g.stride_h, height) * min(g.stride_w, width)
        height, width = triton.cdiv(height, g.stride_h), triton.cdiv(width, g.stride_w)
        config = choose(self._problem("bwd_input", grad, height, width))
        tile = cast(Tile, config.tile)
        ddf_bwd_input_kernel[(self._programs(tile, height, width) * phases,)](
            grad_output=_map(self.output),
            channel_filter=_map(self._channel_filter_for(tile)),
            spatial_filter=_map(self.spatial_filter),
            grad_input=_map(grad),
            sizes=self.sizes,
            **self._meta(config, grad),
        )
        return grad

    def backward_filters(self, wants_channel: bool, wants_spatial: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of both filters, each None where it is not wanted."""
        channel = self.channel_filter if wants_channel else None
        spatial = self.spatial_filter if wants_spatial else None
        if channel is None and spatial is None:
            return None, None
        height, width = self.sizes.height, self.sizes.width
        tile, num_warps = choose(self._problem("bwd_filters", self.input, height, width))
        kernel = ddf_bwd_filters_kernel
        if isinstance(tile, PlanarTile):
            kernel = ddf_bwd_filters_planar_kernel
            tile = tile._replace(BLOCK_H=min(tile.BLOCK_H, height))  # that of a table may be for a larger map
        columns, channels = tile.extent
        tiles = triton.cdiv(height, tile.BLOCK_H) * triton.cdiv(width, columns)
        blocks = triton.cdiv(self.sizes.channels, channels)
        cf_partials = self._partials(channel, tiles)
        sf_partials = self._partials(spatial, blocks)
        if self.input.numel():
            tap_groups = self.geometry.kernel_h // cast(Any, tile).TAP_ROWS
            kernel[(self._programs(tile, height, width) * self.subpixels * tap_groups,)](
                grad_output=_map(self.output),
                input=_map(self.input),
                channel_filter=_map(self.channel_filter),
                spatial_filter=_map(self.spatial_filter),
                cf_partials=_partials_map(cf_partials),
                sf_partials=_partials_map(sf_partials),
                sizes=self.sizes,
                **self._meta(LaunchConfig(tile, num_warps), cf_partials, sf_partials),
            )
        return _sum_partials(cf_partials, channel), _sum_partials(sf_partials, spatial)

    # --- arguments of the kernels -------------------------------------------------------------------------------------

    def _meta(self, config: LaunchConfig, *written: Tensor | None) -> dict[str, Any]:
        """Return the compile-time arguments of a kernel that writes these tensors beside those of the call."""
        tensors = self.output, self.input, self.channel_filter, self.spatial_filter, *written
        is_large = max(self._max_coordinate(), *map(_extent, tensors)) > _INT32_MAX
        return {
            "GEOMETRY": self.geometry,
            "TILE": config.tile,
            "INDEX_DTYPE": tl.int64 if is_large else tl.int32,
            "ACC_DTYPE": _ACC_DTYPE[self.acc_dtype],
            "num_warps": config.num_warps,
        }

    def _max_coordinate(self) -> int:
        """Return an upper bound of the coordinates that a kernel computes, on a map or outside."""
        s, g = self.sizes, self.geometry
        rows = (s.height + _MARGIN) * max(g.stride_h, g.scale_h) + g.kernel_h * g.dilation_h
        columns = (s.width + _MARGIN) * max(g.stride_w, g.scale_w) + g.kernel_w * g.dilation_w
        return max(rows + s.padding_h + s.input_height + _MARGIN, columns + s.padding_w + s.input_width + _MARGIN)

    def _problem(self, kernel: str, walked: Tensor, height: int, width: int) -> Problem:
        """Return the facts for `choose`, of a kernel that walks over height x width positions of this map."""
        return Problem(
            kernel,
            channels_last=walked.stride(1) == 1 and self.sizes.channels > 1,
            itemsize=walked.element_size(),
            batch=self.input.shape[0],
            heads=self.sizes.heads,
            channels=self.sizes.channels,
            height=height,
            width=width,
            geometry=self.geometry,
            architecture=_architecture(self.input.device),
            num_sms=_num_sms(self.input.device),
        )

    def _programs(self, tile: AnyTile, height: int, width: int) -> int:
        """Return the number of tiles of all samples and heads, on maps of this size."""
        columns, channels = tile.extent
        tiles = triton.cdiv(height, tile.BLOCK_H) * triton.cdiv(width, columns)
        return self.input.shape[0] * self.sizes.heads * triton.cdiv(self.sizes.channels, channels) * tiles

    def _channel_filter_for(self, tile: Tile) -> Tensor | None:
        """Return the channel filter, with adjacent channels if the kernel loads its taps at every step.

        A tap of several channels is one load then. The filter is small beside the map, and the copy beside the kernel.
        """
        filter = self.channel_filter
        return filter if filter is None or tile.KEEP_CF else filter.contiguous(memory_format=torch.channels_last)

    def _partials(self, filter: Tensor | None, count: int) -> Tensor | None:
        """Return uninitialised memory for ``count`` partial sums. A single one is the gradient itself."""
        if filter is None:
            return None
        if count == 1:
            return empty_output(filter, filter.shape).unsqueeze(0)
        return torch.empty((count, *filter.shape), dtype=self.acc_dtype, device=filter.device)


def _sum_partials(partials: Tensor | None, filter: Tensor | None) -> Tensor | None:
    if partials is None or filter is None:
        return None
    return partials[0] if len(partials) == 1 else empty_output(filter, filter.shape).copy_(partials.sum(0))


def _map(tensor: Tensor | None) -> Map | None:
    return None if tensor is None else Map(tensor, *tensor.stride())


def _partials_map(partials: Tensor | None) -> tuple[Map, int] | None:
    """Return the first partial sum, and the stride from one to the next."""
    return None if partials is None else (Map(partials, *partials.stride()[1:]), partials.stride(0))


def _extent(tensor: Tensor | None) -> int:
    """Return the largest distance between two elements, in elements."""
    if tensor is None or not tensor.numel():
        return 0
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
