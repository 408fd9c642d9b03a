"""What the kernels share: the maps and windows that they take, and the steps in which they work.

A tile is (columns, channels). Neither is the inner one: the strides say what lies closely, Triton specialises on a
stride of one, and its coalescing puts the threads of a warp along it. So one kernel serves planar maps, channels_last
ones, and views of any strides.
"""

# No `from __future__ import annotations` in a file of kernels: Triton reads the annotations.
from typing import Any, NamedTuple

import triton
import triton.language as tl


class Map(NamedTuple):
    """A tensor (N, C, H, W): its first element, and its strides in elements."""

    pointer: Any
    n: Any
    c: Any
    y: Any
    x: Any


class Sizes(NamedTuple):
    """What is counted at run time. A position is one of the grid that has a spatial filter each."""

    heads: Any
    channels: Any  # of a head
    input_height: Any
    input_width: Any
    height: Any  # positions
    width: Any
    padding_y: Any
    padding_x: Any


class Window(NamedTuple):
    """What a kernel is compiled for: how the taps lie, and how the filters meet."""

    kernel_y: int
    kernel_x: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    scale_y: int  # sub-pixels of a position
    scale_x: int
    add: bool


@triton.jit
def digit(index, count):
    """The last digit of a number whose last base is ``count``, and what is left."""
    return index % count, index // count


@triton.jit
def columns_from(first, COUNT: tl.constexpr):
    """COUNT columns. They are said to have no alignment, as columns that a tap has shifted have none: with two kinds of
    loads Triton lays out two kinds of tiles, and exchanges them through shared memory at every tap."""
    return tl.multiple_of(first + tl.arange(0, COUNT), 1)


@triton.jit
def strided(map, index):
    """Offsets of channels; none of a map that is not there."""
    offsets = None
    if map is not None:
        offsets = index * map.c
    return offsets


@triton.jit
def of_batch(map, n):
    """The map of one picture of the batch; None where there is none."""
    moved = None
    if map is not None:
        moved = Map(map.pointer + n * map.n, map.n, map.c, map.y, map.x)
    return moved


@triton.jit
def zeros(COUNT: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """COUNT accumulators. A tuple, for they must stay in registers, where no tensor can be indexed."""
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + (tl.zeros((COLUMNS, CHANNELS), SUM),)
    return sums


@triton.jit
def load(map, row, column, of_channel, mask, SUM: tl.constexpr):
    """The tile (columns, channels) of one row, zero where the mask is false; ``of_channel`` are offsets of channels."""
    at = map.pointer + row * map.y + column[:, None] * map.x + of_channel[None, :]
    return tl.load(at, mask=mask, other=0.0).to(SUM)


@triton.jit
def store(map, row, column, of_channel, mask, value):
    """Round the tile to the map's dtype and write it where the mask is true."""
    at = map.pointer + row * map.y + column[:, None] * map.x + of_channel[None, :]
    tl.store(at, value.to(map.pointer.dtype.element_ty), mask=mask)


@triton.jit
def channel_tap(filter, row, column, of_channel, mask, SUM: tl.constexpr):
    """One tap of the channel filter, (1, channels)."""
    at = filter.pointer + row * filter.y + column * filter.x + of_channel
    return tl.load(at, mask=mask, other=0.0).to(SUM)[None, :]


@triton.jit
def spatial_tap(filter, tap, y, x, mask, SUM: tl.constexpr):
    """One tap of the spatial filter, (columns, 1)."""
    at = filter.pointer + tap * filter.c + y * filter.y + x * filter.x
    return tl.load(at, mask=mask, other=0.0).to(SUM)[:, None]


@triton.jit
def channel_taps(filter, first_row, ROWS: tl.constexpr, WINDOW: tl.constexpr, of_channel, mask, SUM: tl.constexpr):
    """The channel filter's taps of ROWS rows, for a loop that needs them again and again; none of no filter."""
    taps = ()
    if filter is not None:
        for row in tl.static_range(ROWS):
            for column in tl.static_range(WINDOW.kernel_x):
                taps = taps + (channel_tap(filter, first_row + row, column, of_channel, mask, SUM),)
    return taps


@triton.jit
def weight(channel, spatial, WINDOW: tl.constexpr):
    """The taps of the two filters as they meet. One may be missing."""
    if channel is None:
        met = spatial
    elif spatial is None:
        met = channel
    elif WINDOW.add:
        met = channel + spatial
    else:
        met = channel * spatial
    return met
