"""Public calls of the operator: ``ddf`` and ``ddf_upsample``, with their argument checks."""

from __future__ import annotations

from torch import Tensor

from ddfnet.ops import autograd
from ddfnet.ops.checks import check_filters, check_input, check_one_dtype, check_tensors, shape_of
from ddfnet.ops.geometry import Combine, Geometry, Pair, Shape, cache_static_args, default_padding, pair
from ddfnet.ops.recording import is_recorded, record_call
from ddfnet.ops.registration import autocast


def ddf(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    *,
    kernel_size: Pair | None = None,
    stride: Pair = 1,
    padding: Pair | None = None,
    dilation: Pair = 1,
    combine: str = "mul",
) -> Tensor:
    r"""Filter each pixel and channel with its own kernel: a channel filter and a spatial filter, met tap by tap.

    .. math::
        out[n,c,y,x] = \sum_{k_y,k_x} comb(cf[n,c,k_y,k_x],\ sf[n,\,g(c) K + k_y k_W + k_x,\,y,\,x]) \cdot
        in[n,\,c,\,y s_y - p_y + k_y d_y,\,x s_x - p_x + k_x d_x]

    with K = kH*kW, zeros outside the input, and head g(c) = c // (C/G). The combined filter is never stored. Where a
    tap lies outside, its filters must be finite: whether zero times infinity is counted there is not specified.

    Args:
        input: (N, C, H, W); float64, float32, float16 or bfloat16; of any strides, on any device. N may be 0.
        channel_filter: (N, C, kH, kW), one filter per channel; or None.
        spatial_filter: (N, G*kH*kW, Ho, Wo), one filter per output pixel and head, tap ``ky*kW + kx`` within a head; or
            None. The number of heads G is read off the shape and divides C.
        kernel_size: taps, an int or (h, w), from 1 on, odd or even. Needed only without a channel filter; otherwise it
            must agree with that.
        stride: pixels, an int or (h, w), from 1 on.
        padding: pixels of zeros on each side, an int or (h, w), from 0 on; None is ``(dilation*(kernel_size - 1))//2``.
        dilation: pixels between taps, an int or (h, w), from 1 on.
        combine: how the filters meet before they are applied, ``"mul"`` or ``"add"``. A missing filter is the identity
            (1 for mul, 0 for add); not both may be missing.

    Returns:
        (N, C, Ho, Wo) in the input's dtype, with the size of ``conv2d``; channels_last for channels_last input,
        contiguous for any other. Half types are combined and summed in float32 and rounded once. Under autocast the
        inputs are cast to the autocast dtype first, as those of ``conv2d`` are.

    Raises:
        ValueError: a wrong shape or value (nothing broadcasts), an empty output, devices that differ.
        TypeError: not a tensor, not one of the four dtypes, dtypes that differ, a sparse tensor.
        NotImplementedError: a backend that was chosen by name and cannot serve the device.

    Example:
        >>> import torch, ddfnet
        >>> x = torch.randn(2, 16, 32, 32)
        >>> channel, spatial = torch.randn(2, 16, 3, 3), torch.randn(2, 9, 32, 32)
        >>> ddfnet.ddf(x, channel, spatial).shape
        torch.Size([2, 16, 32, 32])
        >>> ddfnet.ddf(x, None, torch.randn(2, 4 * 9, 16, 16), kernel_size=3, stride=2).shape  # 4 heads
        torch.Size([2, 16, 16, 16])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, equation 2; "add" and heads are the official
    code's.
    """
    try:
        check_tensors(input, channel_filter, spatial_filter)
    except TypeError:
        if not is_recorded(input, channel_filter, spatial_filter):
            raise
        given = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        return record_call(ddf, input, channel_filter, spatial_filter, **given, combine=combine)
    shapes = input.shape, shape_of(channel_filter), shape_of(spatial_filter)
    geometry = _ddf_geometry(*shapes, kernel_size, stride, padding, dilation, combine)
    return _call(input, channel_filter, spatial_filter, geometry)


def ddf_upsample(
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    *,
    scale_factor: Pair,
    kernel_size: Pair | None = None,
    dilation: Pair = 1,
    combine: str = "mul",
) -> Tensor:
    r"""Upsample with one decoupled dynamic filter for each of the s*s sub-pixels, written straight to the enlarged map.

    .. math::
        out[n,\,c,\,y s_h + q_y,\,x s_w + q_x] = \mathrm{ddf}(in,\ cf[:,q],\ sf[:,q])[n,c,y,x], \quad q = q_y s_w + q_x

    Args:
        input: (N, C, H, W); float64, float32, float16 or bfloat16; of any strides, on any device. N may be 0.
        channel_filter: (N, s*s, C, kH, kW), one filter per sub-pixel and channel; or None.
        spatial_filter: (N, s*s*G*kH*kW, H, W), sub-pixel major, then head, then tap ``ky*kW + kx``; or None. The number
            of heads G is read off the shape and divides C.
        scale_factor: an int or (sh, sw), from 1 on; with two values s*s is sh*sw.
        kernel_size: taps, an odd int or (h, w). Needed only without a channel filter; otherwise it must agree with
            that.
        dilation: pixels between taps, an int or (h, w), from 1 on. The padding keeps the size.
        combine: how the filters meet before they are applied, ``"mul"`` or ``"add"``. A missing filter is the identity
            (1 for mul, 0 for add); not both may be missing.

    Returns:
        (N, C, sh*H, sw*W) in the input's dtype; channels_last for channels_last input, contiguous for any other. Half
        types and autocast as in `ddf`.

    Raises:
        ValueError: a wrong shape or value (nothing broadcasts), an even kernel, an empty output, devices that differ.
        TypeError: not a tensor, not one of the four dtypes, dtypes that differ, a sparse tensor.
        NotImplementedError: a backend that was chosen by name and cannot serve the device.

    Example:
        >>> import torch, ddfnet
        >>> x = torch.randn(2, 16, 8, 8)
        >>> channel, spatial = torch.randn(2, 4, 16, 3, 3), torch.randn(2, 4 * 9, 8, 8)
        >>> ddfnet.ddf_upsample(x, channel, spatial, scale_factor=2).shape
        torch.Size([2, 16, 16, 16])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6 and figure 5.
    """
    try:
        check_tensors(input, channel_filter, spatial_filter)
    except TypeError:
        if not is_recorded(input, channel_filter, spatial_filter):
            raise
        given = {"scale_factor": scale_factor, "kernel_size": kernel_size, "dilation": dilation}
        return record_call(ddf_upsample, input, channel_filter, spatial_filter, **given, combine=combine)
    shapes = input.shape, shape_of(channel_filter), shape_of(spatial_filter)
    geometry = _upsample_geometry(*shapes, scale_factor, kernel_size, dilation, combine)
    joined = None if channel_filter is None else channel_filter.flatten(1, 2)
    return _call(input, joined, spatial_filter, geometry)


def _call(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    tensors = autocast(input, channel_filter, spatial_filter)
    check_one_dtype(*tensors)
    return autograd.call(*tensors, geometry)


@cache_static_args
def _ddf_geometry(
    input: Shape,
    channel: Shape | None,
    spatial: Shape | None,
    kernel_size: Pair | None,
    stride: Pair,
    padding: Pair | None,
    dilation: Pair,
    combine: str,
) -> Geometry:
    """Check the shapes and values of a call of `ddf` and return its geometry."""
    check_input(input, channel, spatial)
    mode = Combine(combine)
    kernel = _kernel_size(kernel_size, channel, "(N, C, kH, kW)", 4)
    strides, dilations = pair("stride", stride, 1), pair("dilation", dilation, 1)
    paddings = default_padding(kernel, dilations) if padding is None else pair("padding", padding, 0)
    geometry = Geometry(kernel, strides, paddings, dilations, combine=mode)
    check_filters(input, channel, spatial, geometry)
    return geometry


@cache_static_args
def _upsample_geometry(
    input: Shape,
    channel: Shape | None,
    spatial: Shape | None,
    scale_factor: Pair,
    kernel_size: Pair | None,
    dilation: Pair,
    combine: str,
) -> Geometry:
    """Check the shapes and values of a call of `ddf_upsample` and return its geometry."""
    check_input(input, channel, spatial)
    mode = Combine(combine)
    scale = pair("scale_factor", scale_factor, 1)
    kernel = _kernel_size(kernel_size, channel, "(N, s*s, C, kH, kW)", 5)
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise ValueError(f"ddf_upsample needs an odd kernel, whose centre is the pixel, got kernel_size={kernel}")
    dilations = pair("dilation", dilation, 1)
    geometry = Geometry(kernel, (1, 1), default_padding(kernel, dilations), dilations, scale, mode)
    check_filters(input, channel, spatial, geometry, upsamples=True)
    return geometry


def _kernel_size(kernel_size: Pair | None, channel: Shape | None, layout: str, dimensions: int) -> tuple[int, int]:
    """Return the kernel size, which a channel filter has in its shape."""
    if channel is None:
        if kernel_size is None:
            raise ValueError("kernel_size is required where channel_filter is None: it cannot be read off a shape")
        return pair("kernel_size", kernel_size, 1)
    if len(channel) != dimensions:
        raise ValueError(f"channel_filter must be {layout}, got {tuple(channel)}")
    height, width = channel[-2:]
    if height < 1 or width < 1:
        raise ValueError(f"channel_filter must have at least one tap, got {layout} = {tuple(channel)}")
    if kernel_size is not None and pair("kernel_size", kernel_size, 1) != (height, width):
        raise ValueError(
            f"kernel_size must agree with channel_filter, whose last two sizes are {(height, width)}, "
            f"got {kernel_size=}; leave kernel_size out"
        )
    return height, width
