"""The gradients of both filters, in one pass over the input and the gradient of the output.

    grad_cf[n, q*C + c, t]            = sum_{y,x}    p * sf    (where filters are added: p)
    grad_sf[n, (q*G + g)*K + t, y, x] = sum_{c in g} p * cf    (where filters are added: p)
    p = grad_out[n, c, y*uy + qy, x*ux + qx] * in[n, c, y*sy - py + ky*dy, x*sx - px + kx*dx]

A program has TILE.tap_rows rows of the kernel, TILE.channels channels of one head, and TILE.rows rows of TILE.steps
times TILE.columns positions. It keeps the channel filter's sums in registers and writes the spatial filter's sums over
its own channels. Both are parts of a sum, in places of their own, which the caller adds up: nothing is added
atomically. Programs that differ in the kernel's rows alone run side by side, and find in the cache what one has read.
"""

import triton
import triton.language as tl

from ddfnet.ops.triton.common import channel_taps, columns_from, digit, load, of_batch, spatial_tap, strided, zeros


@triton.jit
def grad_filters(
    grad_output,
    input,
    channel_filter,
    spatial_filter,
    channel_parts,  # a map (N, S*C, kH, kW) and the stride from one tile's to the next's, or None
    spatial_parts,  # a map (N, S*G*kH*kW, Ho, Wo) and the stride from one block of channels' to the next's, or None
    sizes,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    SUM: tl.constexpr,
):
    taps: tl.constexpr = WINDOW.kernel_y * WINDOW.kernel_x
    rest = tl.program_id(0).to(INDEX)
    tap_group, rest = digit(rest, WINDOW.kernel_y // TILE.tap_rows)
    block, rest = digit(rest, tl.cdiv(sizes.channels, TILE.channels))
    head, rest = digit(rest, sizes.heads)
    subpixel, rest = digit(rest, WINDOW.scale_y * WINDOW.scale_x)
    column_tiles = tl.cdiv(sizes.width, TILE.columns * TILE.steps)
    column_tile, rest = digit(rest, column_tiles)
    row_tile, n = digit(rest, tl.cdiv(sizes.height, TILE.rows))

    channel = block * TILE.channels + tl.arange(0, TILE.channels)
    channel_ok = channel < sizes.channels
    channel += head * sizes.channels
    filter_channel = subpixel * sizes.heads * sizes.channels + channel
    first_tap = (subpixel * sizes.heads + head) * taps
    grad_output, input = of_batch(grad_output, n), of_batch(input, n)
    channel_filter, spatial_filter = of_batch(channel_filter, n), of_batch(spatial_filter, n)
    grad_channel = None
    if channel_parts is not None:
        tile_offset = (row_tile * column_tiles + column_tile) * channel_parts[1]
        grad_channel = of_batch(channel_parts[0], n)
    grad_spatial = None
    if spatial_parts is not None:
        block_offset = block * spatial_parts[1]
        grad_spatial = of_batch(spatial_parts[0], n)
    of_output, of_input = channel * grad_output.c, channel * input.c
    of_filter = strided(channel_filter, filter_channel)
    first_row = row_tile * TILE.rows
    rows = tl.minimum(TILE.rows, sizes.height - first_row)

    tap_row = tap_group * TILE.tap_rows
    kept = ()
    if grad_spatial is not None and not WINDOW.add:
        kept = channel_taps(channel_filter, tap_row, TILE.tap_rows, WINDOW, of_filter, channel_ok, SUM)
    sums = ()
    if grad_channel is not None:
        sums = zeros(TILE.tap_rows * WINDOW.kernel_x, TILE.columns, TILE.channels, SUM)
    for step in range(rows * TILE.steps):
        y = first_row + step // TILE.steps
        x = columns_from((column_tile * TILE.steps + step % TILE.steps) * TILE.columns, TILE.columns)
        there = (x < sizes.width) & (y < sizes.height)
        row = y * WINDOW.scale_y + subpixel // WINDOW.scale_x
        column = x * WINDOW.scale_x + subpixel % WINDOW.scale_x
        grad = load(grad_output, row, column, of_output, there[:, None] & channel_ok[None, :], SUM)
        added = ()
        for i in tl.static_range(TILE.tap_rows):
            row = y * WINDOW.stride_y - sizes.padding_y + (tap_row + i) * WINDOW.dilation_y
            row_ok = there & (row >= 0) & (row < sizes.input_height)
            for tap_column in tl.static_range(WINDOW.kernel_x):
                tap = first_tap + (tap_row + i) * WINDOW.kernel_x + tap_column
                column = x * WINDOW.stride_x - sizes.padding_x + tap_column * WINDOW.dilation_x
                ok = row_ok & (column >= 0) & (column < sizes.input_width)
                product = grad * load(input, row, column, of_input, ok[:, None] & channel_ok[None, :], SUM)
                if grad_channel is not None:
                    term = product
                    if spatial_filter is not None and not WINDOW.add:
                        term = product * spatial_tap(spatial_filter, tap, y, x, there, SUM)
                    added = added + (sums[i * WINDOW.kernel_x + tap_column] + term,)
                if grad_spatial is not None:
                    term = product
                    if channel_filter is not None and not WINDOW.add:
                        term = product * kept[i * WINDOW.kernel_x + tap_column]
                    at = grad_spatial.pointer + block_offset + tap * grad_spatial.c + y * grad_spatial.y
                    total = tl.sum(term, axis=1).to(grad_spatial.pointer.dtype.element_ty)
                    tl.store(at + x * grad_spatial.x, total, mask=there)
        sums = added
    if grad_channel is not None:
        for index in tl.static_range(TILE.tap_rows * WINDOW.kernel_x):
            row = tap_row + index // WINDOW.kernel_x
            column = index % WINDOW.kernel_x
            at = grad_channel.pointer + tile_offset + row * grad_channel.y + column * grad_channel.x
            total = tl.sum(sums[index], axis=0).to(grad_channel.pointer.dtype.element_ty)
            tl.store(at + filter_channel * grad_channel.c, total, mask=channel_ok)
