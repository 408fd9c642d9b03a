"""The forward pass.

    out[n, c, y*uy + qy, x*ux + qx] = sum_t comb(cf[n, q*C + c, t], sf[n, (q*G + g)*K + t, y, x])
                                        * in[n, c, y*sy - py + ky*dy, x*sx - px + kx*dx]

A program walks down TILE.rows rows of TILE.columns positions, for TILE.channels channels of one head and TILE.subpixels
sub-pixels, TILE.step rows at once. A pixel that it loads serves every row and sub-pixel of the step in whose window it
is; what the next step loads again is in the cache.
"""

import triton
import triton.language as tl

from ddfnet.ops.triton.common import (
    channel_tap,
    channel_taps,
    columns_from,
    digit,
    load,
    of_batch,
    spatial_tap,
    store,
    strided,
    weight,
    zeros,
)


@triton.jit
def _add_row(
    sums,
    maps,  # input, channel filter, spatial filter
    kept,
    of_channel,  # offsets in the first two maps
    channel_ok,
    first_spatial,  # tap of the first sub-pixel
    sizes,
    y,
    x,
    tap_row,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    SUM: tl.constexpr,
):
    """Add what one row of the input gives: to the first row of the step by row ``tap_row`` of the kernel, to the next
    row by the one above, and so on."""
    taps: tl.constexpr = WINDOW.kernel_y * WINDOW.kernel_x
    input, channel_filter, spatial_filter = maps
    row = y * WINDOW.stride_y - sizes.padding_y + tap_row * WINDOW.dilation_y
    row_ok = (row >= 0) & (row < sizes.input_height)
    for tap_column in tl.static_range(WINDOW.kernel_x):
        column = x * WINDOW.stride_x - sizes.padding_x + tap_column * WINDOW.dilation_x
        column_ok = row_ok & (column >= 0) & (column < sizes.input_width)
        value = load(input, row, column, of_channel[0], column_ok[:, None] & channel_ok[None, :], SUM)
        added = ()
        for i in tl.static_range(TILE.step):
            for q in tl.static_range(TILE.subpixels):
                total = sums[i * TILE.subpixels + q]
                # With one row in a step every row of the kernel is its row; it may be counted at run time then.
                if TILE.step == 1 or (tap_row >= i and tap_row - i < WINDOW.kernel_y):
                    tap = (tap_row - i) * WINDOW.kernel_x + tap_column
                    channel = None
                    spatial = None
                    if TILE.keep and channel_filter is not None:
                        channel = kept[(tap_row - i) * WINDOW.kernel_x + tap_column]
                    elif channel_filter is not None:
                        offset = of_channel[1] + q * sizes.heads * sizes.channels * channel_filter.c
                        channel = channel_tap(channel_filter, tap_row - i, tap_column, offset, channel_ok, SUM)
                    if spatial_filter is not None:
                        there = (x < sizes.width) & (y + i < sizes.height)
                        first = first_spatial + q * sizes.heads * taps
                        spatial = spatial_tap(spatial_filter, first + tap, y + i, x, there, SUM)
                    total += value * weight(channel, spatial, WINDOW)
                added = added + (total,)
        sums = added
    return sums


@triton.jit
def forward(
    input,
    channel_filter,
    spatial_filter,
    output,
    sizes,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    SUM: tl.constexpr,
):
    rest = tl.program_id(0).to(INDEX)
    block, rest = digit(rest, tl.cdiv(sizes.channels, TILE.channels))
    head, rest = digit(rest, sizes.heads)
    group, rest = digit(rest, WINDOW.scale_y * WINDOW.scale_x // TILE.subpixels)
    column_tile, rest = digit(rest, tl.cdiv(sizes.width, TILE.columns))
    row_tile, n = digit(rest, tl.cdiv(sizes.height, TILE.rows))

    subpixel = group * TILE.subpixels
    x = columns_from(column_tile * TILE.columns, TILE.columns)
    channel = block * TILE.channels + tl.arange(0, TILE.channels)
    channel_ok = channel < sizes.channels
    channel += head * sizes.channels
    filter_channel = subpixel * sizes.heads * sizes.channels + channel
    first_spatial = (subpixel * sizes.heads + head) * WINDOW.kernel_y * WINDOW.kernel_x
    maps = (of_batch(input, n), of_batch(channel_filter, n), of_batch(spatial_filter, n))
    output = of_batch(output, n)
    of_channel = (channel * input.c, strided(channel_filter, filter_channel))
    of_output = channel * output.c

    kept = ()
    if TILE.keep:
        kept = channel_taps(maps[1], 0, WINDOW.kernel_y, WINDOW, of_channel[1], channel_ok, SUM)
    first_row = row_tile * TILE.rows
    for step in range(0, tl.minimum(TILE.rows, sizes.height - first_row), TILE.step):
        y = first_row + step
        sums = zeros(TILE.step * TILE.subpixels, TILE.columns, TILE.channels, SUM)
        if TILE.unroll:
            for tap_row in tl.static_range(WINDOW.kernel_y + TILE.step - 1):
                sums = _add_row(
                    sums, maps, kept, of_channel, channel_ok, first_spatial, sizes, y, x, tap_row, WINDOW, TILE, SUM
                )
        else:  # only the rows that are on the map
            above = sizes.padding_y - y * WINDOW.stride_y
            begin = tl.maximum(0, tl.cdiv(above, WINDOW.dilation_y))
            end = tl.minimum(WINDOW.kernel_y, (sizes.input_height - 1 + above) // WINDOW.dilation_y + 1)
            for tap_row in range(begin, end):
                sums = _add_row(
                    sums, maps, kept, of_channel, channel_ok, first_spatial, sizes, y, x, tap_row, WINDOW, TILE, SUM
                )
        for i in tl.static_range(TILE.step):
            there = ((x < sizes.width) & (y + i < sizes.height))[:, None] & channel_ok[None, :]
            for q in tl.static_range(TILE.subpixels):
                row = (y + i) * WINDOW.scale_y + (subpixel + q) // WINDOW.scale_x
                column = x * WINDOW.scale_x + (subpixel + q) % WINDOW.scale_x
                store(output, row, column, of_output, there, sums[i * TILE.subpixels + q])
