"""The gradient of the input.

    grad_in[n, c, iy, ix] = sum_{q,t} comb(cf[n, q*C + c, t], sf[n, (q*G + g)*K + t, y, x])
                                        * grad_out[n, c, y*uy + qy, x*ux + qx]

over the taps that lead from the pixel to a position: y*sy = iy + py - ky*dy, x*sx = ix + px - kx*dx. Gathered, not
scattered, so nothing is added atomically. With a stride, the pixels of one remainder have the same taps: a program
works on the pixels of one remainder, its phase, and each tap is used by all of them or by none.
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
    maps,  # gradient of the output, channel filter, spatial filter
    kept,
    of_channel,  # offsets in the first two maps
    channel_ok,
    first_spatial,  # tap of the sub-pixel
    subpixel,
    sizes,
    shift_y,  # phase and padding
    shift_x,
    y,  # within the phase
    x,
    tap_row,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    SUM: tl.constexpr,
):
    """Add what one row of positions gives: to the first row of the step by row ``tap_row`` of the kernel, to the next
    row by the one below, and so on."""
    grad_output, channel_filter, spatial_filter = maps
    shift = shift_y - tap_row * WINDOW.dilation_y
    position_y = y + shift // WINDOW.stride_y
    row_ok = (shift % WINDOW.stride_y == 0) & (position_y >= 0) & (position_y < sizes.height)
    row = position_y * WINDOW.scale_y + subpixel // WINDOW.scale_x
    for tap_column in tl.static_range(WINDOW.kernel_x):
        shift = shift_x - tap_column * WINDOW.dilation_x
        position_x = x + shift // WINDOW.stride_x
        ok = row_ok & (shift % WINDOW.stride_x == 0) & (position_x >= 0) & (position_x < sizes.width)
        column = position_x * WINDOW.scale_x + subpixel % WINDOW.scale_x
        value = load(grad_output, row, column, of_channel[0], ok[:, None] & channel_ok[None, :], SUM)
        added = ()
        for i in tl.static_range(TILE.step):
            total = sums[i]
            # With one row in a step every row of the kernel is its row; it may be counted at run time then.
            if TILE.step == 1 or (tap_row + i >= 0 and tap_row + i < WINDOW.kernel_y):
                tap = (tap_row + i) * WINDOW.kernel_x + tap_column
                channel = None
                spatial = None
                if TILE.keep and channel_filter is not None:
                    channel = kept[(tap_row + i) * WINDOW.kernel_x + tap_column]
                elif channel_filter is not None:
                    channel = channel_tap(channel_filter, tap_row + i, tap_column, of_channel[1], channel_ok, SUM)
                if spatial_filter is not None:
                    spatial = spatial_tap(spatial_filter, first_spatial + tap, position_y, position_x, ok, SUM)
                total += value * weight(channel, spatial, WINDOW)
            added = added + (total,)
        sums = added
    return sums


@triton.jit
def grad_input(
    grad_output,
    channel_filter,
    spatial_filter,
    grad,
    sizes,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    SUM: tl.constexpr,
):
    phase_height = tl.cdiv(sizes.input_height, WINDOW.stride_y)
    phase_width = tl.cdiv(sizes.input_width, WINDOW.stride_x)
    rest = tl.program_id(0).to(INDEX)
    block, rest = digit(rest, tl.cdiv(sizes.channels, TILE.channels))
    head, rest = digit(rest, sizes.heads)
    phase_x, rest = digit(rest, tl.minimum(WINDOW.stride_x, sizes.input_width))
    phase_y, rest = digit(rest, tl.minimum(WINDOW.stride_y, sizes.input_height))
    column_tile, rest = digit(rest, tl.cdiv(phase_width, TILE.columns))
    row_tile, n = digit(rest, tl.cdiv(phase_height, TILE.rows))

    x = columns_from(column_tile * TILE.columns, TILE.columns)
    column = phase_x + x * WINDOW.stride_x
    channel = block * TILE.channels + tl.arange(0, TILE.channels)
    channel_ok = channel < sizes.channels
    channel += head * sizes.channels
    maps = (of_batch(grad_output, n), of_batch(channel_filter, n), of_batch(spatial_filter, n))
    grad = of_batch(grad, n)
    of_output = channel * grad_output.c
    of_filter = strided(channel_filter, channel)
    of_grad = channel * grad.c
    shift_y = phase_y + sizes.padding_y
    shift_x = phase_x + sizes.padding_x

    kept = ()
    if TILE.keep:
        kept = channel_taps(maps[1], 0, WINDOW.kernel_y, WINDOW, of_filter, channel_ok, SUM)
    first_row = row_tile * TILE.rows
    for step in range(0, tl.minimum(TILE.rows, phase_height - first_row), TILE.step):
        y = first_row + step
        sums = zeros(TILE.step, TILE.columns, TILE.channels, SUM)
        for subpixel in range(WINDOW.scale_y * WINDOW.scale_x):
            first_spatial = (subpixel * sizes.heads + head) * WINDOW.kernel_y * WINDOW.kernel_x
            of_channel = (of_output, strided(channel_filter, channel + subpixel * sizes.heads * sizes.channels))
            if TILE.unroll:
                for back in tl.static_range(WINDOW.kernel_y + TILE.step - 1):
                    # From the kernel's last row on, whose positions lie highest.
                    sums = _add_row(
                        sums, maps, kept, of_channel, channel_ok, first_spatial, subpixel, sizes, shift_y, shift_x,
                        y, x, WINDOW.kernel_y - 1 - back, WINDOW, TILE, SUM,
                    )  # fmt: skip
            else:  # only the rows whose positions are on the map
                below = shift_y + y * WINDOW.stride_y
                last = (sizes.height - 1) * WINDOW.stride_y
                begin = tl.maximum(0, tl.cdiv(below - last, WINDOW.dilation_y))
                end = tl.minimum(WINDOW.kernel_y, below // WINDOW.dilation_y + 1)
                for tap_row in range(begin, end):
                    sums = _add_row(
                        sums, maps, kept, of_channel, channel_ok, first_spatial, subpixel, sizes, shift_y, shift_x,
                        y, x, tap_row, WINDOW, TILE, SUM,
                    )  # fmt: skip
        for i in tl.static_range(TILE.step):
            row = phase_y + (y + i) * WINDOW.stride_y
            there = ((column < sizes.input_width) & (row < sizes.input_height))[:, None] & channel_ok[None, :]
            store(grad, row, column, of_grad, there, sums[i])
