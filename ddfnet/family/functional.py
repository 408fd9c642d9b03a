"""Operators of other papers as calls of `ddfnet.ddf` and `ddfnet.ddf_upsample`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.family.taps import tap_views, window_geometry
from ddfnet.nn.upsample import to_subpixel_major
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.ops.checks import check_dense
from ddfnet.ops.geometry import Geometry, Pair, accumulate_dtype, is_channels_last, odd_pair, pair
from ddfnet.ops.recording import recordable

_GROUPS_AT_ONCE = 16  # a few megabytes of taps on maps of 100x152


@recordable
def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int = 1, scale_factor: int = 2) -> Tensor:
    r"""Upsample by content-aware reassembly: each output pixel is a weighted sum around the pixel that it lies in.

    .. math::
        out[n,c,Y,X] = \sum_{k_y,k_x} masks[n,\,g(c) K + k_y k + k_x,\,Y,\,X] \cdot
        features[n,c,\lfloor Y/s \rfloor + k_y - r,\ \lfloor X/s \rfloor + k_x - r], \qquad r = \lfloor k/2 \rfloor

    Args:
        features: (N, C, H, W).
        masks: (N, group_size*k*k, s*H, s*W), as they are: CARAFE normalises them before, by a softmax over the taps.
        kernel_size: k taps per side, odd.
        group_size: sets of masks, each for C/group_size channels in a row.
        scale_factor: s.

    Returns:
        (N, C, s*H, s*W), as ``mmcv.ops.carafe(features, masks, kernel_size, group_size, scale_factor)``.

    Raises:
        ValueError: masks of another shape, a group size that does not divide C; TypeError as `ddfnet.ddf_upsample`.

    Example:
        >>> import torch
        >>> from ddfnet.family import carafe
        >>> masks = torch.randn(2, 25, 16, 20).softmax(1)
        >>> carafe(torch.randn(2, 8, 8, 10), masks, kernel_size=5).shape
        torch.Size([2, 8, 16, 20])

    Source: Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019, equation 3.
    """
    n, _, height, width = _shape("features", features)
    needed = n, group_size * kernel_size**2, height * scale_factor, width * scale_factor
    if _shape("masks", masks) != needed:
        raise ValueError(f"masks must be (N, group_size*k*k, s*H, s*W) = {needed}, got {tuple(masks.shape)}")
    return ddf_upsample(
        features,
        None,
        to_subpixel_major(masks, (scale_factor, scale_factor)),
        scale_factor=scale_factor,
        kernel_size=kernel_size,
    )


@recordable
def dysample(x: Tensor, offset: Tensor, scale_factor: int = 2) -> Tensor:
    r"""Upsample by point samples: each output pixel is the map, interpolated bilinearly, at a place of its own.

    .. math::
        out[n,c,Y,X] = x\bigl[n,\,c,\ \tfrac{Y + 1/2}{s} - \tfrac12 + \Delta_y,\
        \tfrac{X + 1/2}{s} - \tfrac12 + \Delta_x\bigr], \qquad
        \Delta_{x,y} = offset[n,\ (0 \text{ or } 1)\,G s^2 + g(c)\,s^2 + i s + j,\ y,\ x]

    with :math:`Y = y s + i`, :math:`X = x s + j`. A place off the map is moved to the nearest one on it. Where all
    offsets are 0 it is ``F.interpolate(x, scale_factor=s, mode="bilinear")``.

    Args:
        x: (N, C, H, W).
        offset: (N, 2*G*s*s, H, W), in pixels of x, those along x first. G groups, each for C/G channels in a row, are
            read off the shape. Places are computed in float32 or better, whatever its dtype is.
        scale_factor: s, from 1 on.

    Returns:
        (N, C, s*H, s*W), in the dtype and the memory format of x. It has gradients and their gradients; the derivatives
        of forward mode (``torch.func.jvp``) are missing in torch's ``grid_sample``.

    Raises:
        ValueError: offsets of another shape, groups that do not divide C, a factor below 1; TypeError: not dense
            tensors.

    Example:
        >>> import torch
        >>> from ddfnet.family import dysample
        >>> dysample(torch.randn(2, 8, 8, 10), torch.randn(2, 2 * 4 * 4, 8, 10)).shape  # four groups
        torch.Size([2, 8, 16, 20])

    Source: Liu et al., Learning to Upsample by Learning to Sample, ICCV 2023, section 3.1; the order of the channels is
    its code's.
    """
    n, c, height, width = _shape("x", x)
    s = scale_factor
    if s < 1:
        raise ValueError(f"scale_factor must be at least 1, got {s}")
    given = _shape("offset", offset)
    c, channels = _fixed((c, given[1]))
    groups = channels // (2 * s * s)
    if groups < 1 or given != (n, 2 * groups * s * s, height, width):
        raise ValueError(f"offset must be (N, 2*G*s*s, H, W) with s = {s} for x {tuple(x.shape)}, got {given}")
    if c % groups:
        raise ValueError(f"the {groups} groups of offset must divide the {c} channels of x")
    dtype = accumulate_dtype(x.dtype)
    # Not by pixel_shuffle, whose gradient raises for an empty batch in torch 2.14.1.
    along = offset.to(dtype).unflatten(1, (2, groups, s, s)).permute(1, 0, 2, 5, 3, 6, 4)
    along_x, along_y = along.reshape(2, n * groups, s * height, s * width).unbind()
    # grid_sample counts from -1, the outer side of the first pixel, to 1. The sum comes last: of places that are a view
    # Inductor (torch 2.14.1) cannot tell the order of strides with symbols, in the training of two such layers.
    middles = [torch.arange(s * length, dtype=dtype, device=x.device) + 0.5 for length in (height, width)]
    rows, columns = (own * (2 / (s * length)) - 1 for own, length in zip(middles, (height, width), strict=True))
    centers = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    places = torch.stack([along_x * (2 / width), along_y * (2 / height)], -1) + centers
    maps = x.to(dtype).reshape(n * groups, c // groups, height, width)
    sampled = F.grid_sample(maps, places, "bilinear", "border", align_corners=False)
    sampled = sampled.reshape(n, c, s * height, s * width).to(x.dtype)
    return sampled.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else sampled


@recordable
def involution(x: Tensor, weight: Tensor, kernel_size: Pair, stride: Pair = 1, dilation: Pair = 1) -> Tensor:
    r"""Apply an involution: one filter per pixel and group of channels, shared by the channels of the group.

    .. math::
        out[n,c,y,x] = \sum_{k_y,k_x} weight[n,\,g(c) K + k_y k_W + k_x,\,y,\,x] \cdot
        in[n,\,c,\,y s + k_y d - p,\ x s + k_x d - p], \qquad p = d (k - 1)/2

    Args:
        x: (N, C, H, W).
        weight: (N, G*kH*kW, Ho, Wo), the filters of G groups, which are read off the shape.
        kernel_size: taps, an int or (h, w).
        stride: pixels.
        dilation: pixels between taps.

    Returns:
        (N, C, Ho, Wo).

    Raises:
        ValueError, TypeError: as `ddfnet.ddf`, whose spatial filter the weight is.

    Example:
        >>> import torch
        >>> from ddfnet.family import involution
        >>> involution(torch.randn(2, 32, 14, 14), torch.randn(2, 2 * 49, 14, 14), kernel_size=7).shape
        torch.Size([2, 32, 14, 14])

    Source: Li et al., Involution: Inverting the Inherence of Convolution for Visual Recognition, CVPR 2021, equation 4.
    """
    return ddf(x, None, weight, kernel_size=kernel_size, stride=stride, dilation=dilation)


@recordable
def adaptive_conv(input: Tensor, filters: Tensor) -> Tensor:
    r"""Apply FeatUp's adaptive convolution: one filter per pixel, on a map that is padded already.

    .. math::
        out[n,c,y,x] = \sum_{k_y,k_x} filters[n,y,x,k_y,k_x] \cdot input[n,c,y + k_y,x + k_x]

    Args:
        input: (N, C, H + kH - 1, W + kW - 1).
        filters: (N, H, W, kH, kW).

    Returns:
        (N, C, H, W), as ``featup.adaptive_conv_cuda.AdaptiveConv.apply(input, filters)``.

    Raises:
        ValueError: filters of another shape; TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import adaptive_conv
        >>> adaptive_conv(torch.randn(2, 8, 16, 18), torch.randn(2, 14, 16, 3, 3)).shape
        torch.Size([2, 8, 14, 16])

    Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024, section 3.2.
    """
    check_dense("filters", filters)
    if filters.dim() != 5:
        raise ValueError(f"filters must be (N, H, W, kH, kW), got {tuple(filters.shape)}")
    kernel = _fixed(filters.shape[3:])
    return ddf(input, None, filters.flatten(3).permute(0, 3, 1, 2), kernel_size=kernel, padding=0)


@recordable
def joint_bilateral(
    x: Tensor, guide: Tensor, kernel_size: Pair, sigma_space: float | Tensor = 1.0, sigma_range: float | Tensor = 1.0
) -> Tensor:
    r"""Filter or upsample with joint bilateral weights: they fall with the distance of pixels, and of their guides.

    .. math::
        out_p = \frac{\sum_q w_{pq}\, x_q}{\sum_q w_{pq}}, \qquad
        w_{pq} = \exp\left(-\frac{\lVert p - q \rVert^2}{2 \sigma_s^2} - \frac{\lVert g_p - g_q \rVert^2}{2 \sigma_r^2}
        \right)

    over the pixels q of the window around p that lie on the map. A smaller x is enlarged to the guide first, each pixel
    the nearest of x.

    Args:
        x: (N, C, h, w), of the guide's size or smaller by a whole factor.
        guide: (N, Cg, H, W).
        kernel_size: taps, an odd int or (h, w).
        sigma_space: in pixels of the guide, above 0.
        sigma_range: in units of the guide, above 0.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: shapes that do not fit, an even kernel, a sigma that is not above 0 (tensors are not looked into);
            TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import joint_bilateral
        >>> joint_bilateral(torch.randn(1, 1, 8, 8), torch.rand(1, 3, 16, 16), 5, sigma_range=0.1).shape
        torch.Size([1, 1, 16, 16])

    Source: Kopf et al., Joint Bilateral Upsampling, SIGGRAPH 2007, equation 3; there the sum is over pixels of x.
    """
    n, _, h, w = _shape("x", x)
    samples, _, height, width = _shape("guide", guide)
    if samples != n:
        raise ValueError(f"guide must have the {n} samples of x, got {samples}")
    if 0 in (h, w, height, width) or height % h or width % w:
        raise ValueError(
            f"no map may be empty, and the guide must be larger by a whole factor, got {(height, width)} and {(h, w)}"
        )
    for name, sigma in (("sigma_space", sigma_space), ("sigma_range", sigma_range)):
        if not isinstance(sigma, Tensor) and not sigma > 0:
            raise ValueError(f"{name} must be above 0, got {sigma}")
    if (h, w) != (height, width):
        x = F.interpolate(x, (height, width), mode="nearest")
    geometry = window_geometry((height, width), odd_pair("kernel_size", kernel_size))
    kh, kw = geometry.kernel_size
    views = list(tap_views(guide, geometry))
    away = _square_distances(kh, kw).to(guide) / (2 * sigma_space**2)
    logits = [
        -(view - guide).square().sum(1) / (2 * sigma_range**2) - there for view, there in zip(views, away, strict=True)
    ]
    return _filtered(x, (torch.stack(logits, 1)[:, None] + _outside(x, geometry)).softmax(2), geometry)


@recordable
def pac(
    x: Tensor,
    guide: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | None = None,
    dilation: Pair = 1,
) -> Tensor:
    r"""Apply a depthwise pixel-adaptive convolution: its windows are weighted by the similarity of their pixels.

    .. math::
        out_{c,p} = b_c + \sum_t \exp\left(-\tfrac12 \lVert g_{p} - g_{p+t} \rVert^2\right) W_{c,t}\, x_{c,p+t}

    Args:
        x: (N, C, H, W).
        guide: (N, Cg, H, W), scaled so that distances of one matter.
        weight: (C, 1, kH, kW) as of a depthwise convolution, odd.
        bias: (C,).
        stride, padding, dilation: as in `ddfnet.ddf`.

    Returns:
        (N, C, Ho, Wo).

    Raises:
        ValueError: shapes that do not fit, an even kernel; TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import pac
        >>> pac(torch.randn(2, 8, 16, 16), torch.randn(2, 3, 16, 16), torch.randn(8, 1, 5, 5)).shape
        torch.Size([2, 8, 16, 16])

    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, equation 3.
    """
    n, c, height, width = _shape("x", x)
    if _shape("guide", guide)[0] != n or tuple(guide.shape[2:]) != (height, width):
        raise ValueError(f"guide must be (N, Cg, H, W) with N, H, W of x {tuple(x.shape)}, got {tuple(guide.shape)}")
    kernel = _depthwise_kernel(weight, c)
    _check_bias(bias, c)
    geometry = window_geometry((height, width), kernel, stride, padding, dilation)
    y = ddf(
        x,
        weight.flatten(0, 1).expand(n, -1, -1, -1),
        _alike(guide, geometry),
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
    return y if bias is None else y + bias[:, None, None]


@recordable
def pac_transpose(
    x: Tensor,
    guide: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 2,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
) -> Tensor:
    r"""Apply a transposed depthwise pixel-adaptive convolution: spread the map with zeros, then filter as in `pac`.

    .. math::
        out_{c,p} = b_c + \sum_t \exp\left(-\tfrac12 \lVert g_p - g_{p+t} \rVert^2\right) W_{c,-t}\, \tilde x_{c,p+t}

    with :math:`\tilde x` the map x, stride pixels apart, on the grid of the output. Without a guide's differences it is
    ``F.conv_transpose2d`` with the same arguments.

    Args:
        x: (N, C, H, W).
        guide: (N, Cg, Ho, Wo), of the output's size.
        weight: (C, 1, kH, kW) as of a depthwise transposed convolution, odd; PAC's own code has it turned, flip(2, 3).
        bias: (C,).
        stride, padding, output_padding, dilation: as in ``torch.nn.functional.conv_transpose2d``.

    Returns:
        (N, C, Ho, Wo).

    Raises:
        ValueError: shapes that do not fit, an even kernel, padding of more than half of it; TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import pac_transpose
        >>> guide = torch.randn(2, 3, 32, 32)
        >>> pac_transpose(torch.randn(2, 8, 16, 16), guide, torch.randn(8, 1, 5, 5), padding=2, output_padding=1).shape
        torch.Size([2, 8, 32, 32])

    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, section 3.
    """
    n, c, height, width = _shape("x", x)
    kernel = _depthwise_kernel(weight, c)
    _check_bias(bias, c)
    s, d = pair("stride", stride, 1), pair("dilation", dilation, 1)
    p, extra = pair("padding", padding, 0), pair("output_padding", output_padding, 0)
    # Where the first pixel of x lies on the grid of the output, and how large that is.
    first = [di * (k // 2) - pi for di, k, pi in zip(d, kernel, p, strict=True)]
    spans = [(count - 1) * si + 1 for count, si in zip((height, width), s, strict=True)]
    size = [2 * f + span + e for f, span, e in zip(first, spans, extra, strict=True)]
    if min(first) < 0:
        raise ValueError(f"padding must be at most dilation*(kernel//2), got {padding=} for a kernel of {kernel}")
    if _shape("guide", guide)[0] != n or list(guide.shape[2:]) != size:
        raise ValueError(f"guide must be (N, Cg, Ho, Wo) with N = {n} and {tuple(size)}, got {tuple(guide.shape)}")
    spread = x.new_zeros(n, c, *size)
    rows, columns = (slice(f, f + span, si) for f, span, si in zip(first, spans, s, strict=True))
    spread[:, :, rows, columns] = x
    return pac(spread, guide, weight.flip(2, 3), bias, dilation=d)


@recordable
def kernel_prediction(frames: Tensor, kernels: Tensor, kernel_size: Pair) -> Tensor:
    r"""Apply predicted kernels (KPN): each pixel of the result is a sum of windows of all frames of a burst.

    .. math::
        out[n,c,y,x] = \frac1T \sum_t \sum_{k_y,k_x} kernels[n,t,k_y k_W + k_x,y,x] \cdot
        frames[n,t,c,y + k_y - r_y,x + k_x - r_x]

    Args:
        frames: (N, T, C, H, W); one frame is T = 1.
        kernels: (N, T, kH*kW, H, W), one kernel per frame and pixel, shared by the channels.
        kernel_size: taps, an odd int or (h, w).

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: shapes that do not fit, an even kernel; TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import kernel_prediction
        >>> kernel_prediction(torch.rand(1, 8, 3, 32, 32), torch.randn(1, 8, 25, 32, 32), 5).shape
        torch.Size([1, 3, 32, 32])

    Source: Mildenhall et al., Burst Denoising with Kernel Prediction Networks, CVPR 2018, equation 3.
    """
    for name, tensor in (("frames", frames), ("kernels", kernels)):
        check_dense(name, tensor)
        if tensor.dim() != 5:
            raise ValueError(f"{name} must have five dimensions, N, T and three of a frame, got {tuple(tensor.shape)}")
    if frames.shape[:2] != kernels.shape[:2]:
        raise ValueError(
            f"frames and kernels must agree in N and T, got {tuple(frames.shape)} and {tuple(kernels.shape)}"
        )
    # Each frame is a head with its own filters.
    y = ddf(frames.flatten(1, 2), None, kernels.flatten(1, 2), kernel_size=odd_pair("kernel_size", kernel_size))
    return y.unflatten(1, frames.shape[1:3]).mean(1)


@recordable
def dynamic_depthwise(
    x: Tensor, weight: Tensor, stride: Pair = 1, padding: Pair | None = None, dilation: Pair = 1
) -> Tensor:
    r"""Apply a dynamic depthwise convolution, with separate weights for each sample.

    .. math::
        out[n,c] = weight[n,c] * x[n,c]

    Args:
        x: (N, C, H, W).
        weight: (N, C, kH, kW).
        stride, padding, dilation: as in `ddfnet.ddf`.

    Returns:
        (N, C, Ho, Wo), as ``F.conv2d`` of the samples as groups of one.

    Raises:
        ValueError, TypeError: as `ddfnet.ddf`, whose channel filter the weight is.

    Example:
        >>> import torch
        >>> from ddfnet.family import dynamic_depthwise
        >>> dynamic_depthwise(torch.randn(2, 8, 16, 16), torch.randn(2, 8, 3, 3), stride=2).shape
        torch.Size([2, 8, 8, 8])

    Source: Han et al., On the Connection between Local Attention and Dynamic Depth-wise Convolution, ICLR 2022.
    """
    return ddf(x, weight, None, stride=stride, padding=padding, dilation=dilation)


@recordable
def local_mean(
    x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair | None = None, dilation: Pair = 1
) -> Tensor:
    r"""Average the pixels of each window that lie on the map: `local_softmax` with equal logits.

    .. math::
        out_{c,p} = \frac{1}{|\Omega_p|} \sum_{q \in \Omega_p} x_{c,q}

    Args:
        x: (N, C, H, W).
        kernel_size, stride, padding, dilation: as in `ddfnet.ddf`.

    Returns:
        (N, C, Ho, Wo).

    Raises:
        ValueError: a window without a pixel of the map; ValueError, TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import local_mean
        >>> local_mean(torch.ones(1, 2, 6, 6), 3).unique()
        tensor([1.])
    """
    geometry = _covered(window_geometry(_shape("x", x)[2:], kernel_size, stride, padding, dilation))
    return _filtered(x, _outside(x, geometry).softmax(2).expand(x.shape[0], -1, -1, -1, -1), geometry)


@recordable
def local_softmax(
    x: Tensor, logits: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair | None = None, dilation: Pair = 1
) -> Tensor:
    r"""Pool by local importance: average each window, weighted by a softmax of the pixels' logits.

    .. math::
        out_{c,p} = \frac{\sum_{q \in \Omega_p} e^{l_{g(c),q}}\, x_{c,q}}{\sum_{q \in \Omega_p} e^{l_{g(c),q}}}

    Args:
        x: (N, C, H, W).
        logits: (N, G, H, W), each for C/G channels in a row; ``logits=x`` is softmax pooling.
        kernel_size, stride, padding, dilation: as in `ddfnet.ddf`.

    Returns:
        (N, C, Ho, Wo).

    Raises:
        ValueError: logits of another shape, a window without a pixel of the map; ValueError, TypeError as `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import local_softmax
        >>> x = torch.randn(1, 4, 8, 8)
        >>> local_softmax(x, x, 2, stride=2, padding=0).shape
        torch.Size([1, 4, 4, 4])

    Source: Gao et al., LIP: Local Importance-Based Pooling, ICCV 2019, equation 5; with ``logits=x`` Stergiou et al.,
    Refining Activation Downsampling with SoftPool, ICCV 2021, equation 2.
    """
    n, _, height, width = _shape("x", x)
    if _shape("logits", logits)[0] != n or tuple(logits.shape[2:]) != (height, width):
        raise ValueError(f"logits must be (N, G, H, W) with N, H, W of x {tuple(x.shape)}, got {tuple(logits.shape)}")
    geometry = _covered(window_geometry((height, width), kernel_size, stride, padding, dilation))
    groups = logits.shape[1]
    if groups == 0 or x.shape[1] % groups:
        raise ValueError(f"the {groups} logits of a pixel must divide the {x.shape[1]} channels of x")
    # On a CPU a few groups at a time, whose taps stay in its cache.
    each = _GROUPS_AT_ONCE if x.device.type == "cpu" else groups
    parts = []
    for values, own in zip(x.split(each * (x.shape[1] // groups), 1), logits.split(each, 1), strict=True):
        taps = torch.stack(list(tap_views(own, geometry, -math.inf)), 2)  # (N, G, K, Ho, Wo), taps within heads
        parts.append(_filtered(values, taps.softmax(2), geometry))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # torch.cat would copy it


# --- parts --------------------------------------------------------------------------------------------------------


def _shape(name: str, tensor: Any) -> tuple[int, int, int, int]:
    check_dense(name, tensor)
    if tensor.dim() != 4:
        raise ValueError(f"{name} must have four dimensions, got {tuple(tensor.shape)}")
    n, c, h, w = tensor.shape
    return n, c, h, w


def _depthwise_kernel(weight: Tensor, channels: int) -> tuple[int, int]:
    shape = _shape("weight", weight)
    if shape[:2] != (channels, 1):
        raise ValueError(
            f"weight must be (C, 1, kH, kW) with C = {channels}, as of a depthwise convolution, got {shape}"
        )
    return odd_pair("kernel_size", _fixed(shape[2:]))


def _fixed(sizes: Sequence[Any]) -> tuple[int, int]:
    """Return a kernel's sizes, which `torch.jit.trace` has as tensors, as the numbers that they are in every call."""
    height, width = (int(size) if isinstance(size, Tensor) else size for size in sizes)
    return height, width


def _check_bias(bias: Any, channels: int) -> None:
    if bias is None:
        return
    if not isinstance(bias, Tensor):
        raise TypeError(f"bias must be a torch.Tensor or None, got {type(bias).__name__}")
    if bias.shape != (channels,):
        raise ValueError(f"bias must be (C,) with C = {channels}, got {tuple(bias.shape)}")


def _square_distances(kh: int, kw: int) -> Tensor:
    """Return the squared distance of each tap from the middle, in pixels."""
    rows, columns = torch.arange(kh) - kh // 2, torch.arange(kw) - kw // 2
    return (rows[:, None] ** 2 + columns**2).flatten()


def _alike(guide: Tensor, geometry: Geometry) -> Tensor:
    """Return how alike the guide is at each tap and in the middle of its window, (N, K, Ho, Wo)."""
    views = list(tap_views(guide, geometry))
    middle = views[len(views) // 2]
    return torch.stack([(-(view - middle).square().sum(1) / 2).exp() for view in views], 1)


def _covered(geometry: Geometry) -> Geometry:
    if any(
        p >= d * (k - 1) + 1 for p, d, k in zip(geometry.padding, geometry.dilation, geometry.kernel_size, strict=True)
    ):
        raise ValueError(f"padding must leave a pixel of the map in each window, got {geometry.padding}")
    return geometry


def _outside(x: Tensor, geometry: Geometry) -> Tensor:
    """Return logits that are 0 for taps on the map and -inf for others, (1, 1, K, Ho, Wo)."""
    return torch.stack(list(tap_views(x.new_zeros(1, 1, *x.shape[2:]), geometry, -math.inf)), 2)


def _filtered(x: Tensor, filters: Tensor, geometry: Geometry) -> Tensor:
    """Filter x with filters (N, G, K, Ho, Wo)."""
    return ddf(
        x,
        None,
        filters.flatten(1, 2),
        kernel_size=geometry.kernel_size,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
    )
