"""Tensor arguments, loads and stores that the kernels share.

A tile has the shape (BLOCK_W, BLOCK_C). Neither dimension is the inner one: the strides tell which elements are
adjacent, Triton specialises on a stride of one, and its coalescing puts the threads of a warp along it. So one kernel
serves contiguous maps, channels_last maps, and views of any strides.
"""

# No `from __future__ import annotations` in a file of kernels: Triton reads the annotations.
from typing import Any, NamedTuple

import triton
import triton.language as tl


class Map(NamedTuple):
    """A tensor (N, C, H, W) as an argument of a kernel; its strides are in elements."""

    ptr: Any
    stride_n: Any
    stride_c: Any
    stride_h: Any
    stride_w: Any


class Sizes(NamedTuple):
    """Sizes that a kernel takes at run time."""

    heads: Any
    channels: Any  # per head
    input_height: Any
    input_width: Any
    height: Any  # positions: pixels of the spatial filter
    width: Any
    padding_h: Any
    padding_w: Any


class StaticGeometry(NamedTuple):
    """Part of a `Geometry` that a kernel is compiled for, as plain numbers. Padding is in `Sizes`."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    scale_h: int  # sub-pixels per position
    scale_w: int
    add: bool  # the filters are added, not multiplied


class Filters(NamedTuple):
    """Both filters as a program reads them. Either is None where the operator has none."""

    channel: Any  # Map
    cf_regs: Any  # taps of the channel filter in registers, or ()
    cf_offs_c: Any  # channel offsets in the channel filter
    spatial: Any  # Map
    sf_tap: Any  # channel of the first tap in the spatial filter


@triton.jit
def unravel(index, size):
    """Split an index into its last coordinate, in a dimension of this size, and the index of the others."""
    return index % size, index // size


@triton.jit
def unaligned_arange(start, BLOCK: tl.constexpr):
    """Return BLOCK columns that are marked as not aligned, because columns shifted by a tap are not.

    With two kinds of loads Triton chooses two layouts of tiles, and exchanges them through shared memory at every tap.
    """
    return tl.multiple_of(start + tl.arange(0, BLOCK), 1)


@triton.jit
def channel_offsets(map, channel):
    """Return the offsets of channels in elements, or None for a missing map."""
    offs_c = None
    if map is not None:
        offs_c = channel * map.stride_c
    return offs_c


@triton.jit
def select_sample(map, n):
    """Return the map of one sample of the batch, or None for a missing map."""
    sample = None
    if map is not None:
        sample = Map(map.ptr + n * map.stride_n, map.stride_n, map.stride_c, map.stride_h, map.stride_w)
    return sample


@triton.jit
def zero_accs(COUNT: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr, ACC_DTYPE: tl.constexpr):
    """Return COUNT accumulators. They are a tuple, so that they stay in registers, where no tensor can be indexed."""
    accs = ()
    for _ in tl.static_range(COUNT):
        accs = accs + (tl.zeros((BLOCK_W, BLOCK_C), ACC_DTYPE),)
    return accs


@triton.jit
def as_mask(condition):
    """Return a condition as a block of true and false, for a load or a store.

    In Triton's interpreter (3.9.0), a condition of one number that meets that of a block is a block of int32, which
    loads refuse. For a GPU nothing is computed.
    """
    return condition != 0


@triton.jit
def load_tile(map, row, offs_w, offs_c, mask, ACC_DTYPE: tl.constexpr):
    """Load a tile of one row, zero where the mask is false; ``offs_c`` are in elements, ``offs_w`` are columns."""
    ptrs = map.ptr + row * map.stride_h + offs_w[:, None] * map.stride_w + offs_c[None, :]
    return tl.load(ptrs, mask=as_mask(mask), other=0.0).to(ACC_DTYPE)


@triton.jit
def store_tile(map, row, offs_w, offs_c, mask, acc):
    """Round a tile to the dtype of the map and store it where the mask is true."""
    ptrs = map.ptr + row * map.stride_h + offs_w[:, None] * map.stride_w + offs_c[None, :]
    tl.store(ptrs, acc.to(map.ptr.dtype.element_ty), mask=as_mask(mask))


@triton.jit
def load_channel_tap(filter, tap_h, tap_w, offs_c, mask_c, ACC_DTYPE: tl.constexpr):
    """Load one tap of the channel filter, (1, BLOCK_C)."""
    ptrs = filter.ptr + tap_h * filter.stride_h + tap_w * filter.stride_w + offs_c
    return tl.load(ptrs, mask=as_mask(mask_c), other=0.0).to(ACC_DTYPE)[None, :]


@triton.jit
def load_spatial_tap(filter, tap, y, offs_w, mask_w, ACC_DTYPE: tl.constexpr):
    """Load one tap of the spatial filter, (BLOCK_W, 1)."""
    ptrs = filter.ptr + tap * filter.stride_c + y * filter.stride_h + offs_w * filter.stride_w
    return tl.load(ptrs, mask=as_mask(mask_w), other=0.0).to(ACC_DTYPE)[:, None]


@triton.jit
def load_channel_taps(
    filter, first_tap_h, TAP_ROWS: tl.constexpr, GEOMETRY: tl.constexpr, offs_c, mask_c, ACC_DTYPE: tl.constexpr
):
    """Load TAP_ROWS rows of the channel filter into registers, for a loop that needs them at every step."""
    cf_regs = ()
    if filter is not None:
        for tap_h in tl.static_range(TAP_ROWS):
            for tap_w in tl.static_range(GEOMETRY.kernel_w):
                cf_regs = cf_regs + (load_channel_tap(filter, first_tap_h + tap_h, tap_w, offs_c, mask_c, ACC_DTYPE),)
    return cf_regs


@triton.jit
def load_weight(
    filters,
    subpixel,  # counted from the one that the offsets in ``filters`` belong to
    tap_h,
    tap_w,
    y,
    offs_w,
    mask_w,
    mask_c,
    sizes,
    GEOMETRY: tl.constexpr,
    KEEP_CF: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    """Load one tap of both filters and combine them."""
    tap = tap_h * GEOMETRY.kernel_w + tap_w
    channel = None
    spatial = None
    if KEEP_CF and filters.channel is not None:
        channel = filters.cf_regs[tap_h * GEOMETRY.kernel_w + tap_w]
    elif filters.channel is not None:
        offs_c = filters.cf_offs_c + subpixel * sizes.heads * sizes.channels * filters.channel.stride_c
        channel = load_channel_tap(filters.channel, tap_h, tap_w, offs_c, mask_c, ACC_DTYPE)
    if filters.spatial is not None:
        first_tap = filters.sf_tap + subpixel * sizes.heads * (GEOMETRY.kernel_h * GEOMETRY.kernel_w)
        spatial = load_spatial_tap(filters.spatial, first_tap + tap, y, offs_w, mask_w, ACC_DTYPE)
    return combine(channel, spatial, GEOMETRY)


@triton.jit
def combine(channel, spatial, GEOMETRY: tl.constexpr):
    """Combine one tap of both filters, of which one may be missing."""
    if channel is None:
        weight = spatial
    elif spatial is None:
        weight = channel
    elif GEOMETRY.add:
        weight = channel + spatial
    else:
        weight = channel * spatial
    return weight
