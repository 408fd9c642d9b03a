"""The gradients of both filters where columns lie next to each other; the formulas are those of `grad_filters`.

The loops are the other way round. A program has TILE.rows rows of TILE.columns positions, whose sums of the spatial
filter it keeps in registers, a channel a thread, while it walks over TILE.blocks blocks of TILE.channels channels. A
block's sums of the channel filter are over the lanes of one warp; those of the spatial filter leave their threads once,
at the end. Both are parts of a sum, as in `grad_filters`.
"""

import triton
import triton.language as tl

from ddfnet.ops.triton.common import channel_taps, columns_from, digit, load, of_batch, spatial_tap, strided, zeros


@triton.jit
def grad_filters_planar(
    grad_output,
    input,
    channel_filter,
    spatial_filter,
    channel_parts,  # a map (N, S*C, kH, kW) and the stride from one tile's to the next's, or None
    spatial_parts,  # a map (N, S*G*kH*kW, Ho, Wo) and the stride from one program's channels' to the next's, or None
    sizes,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    SUM: tl.constexpr,
):
    taps: tl.constexpr = TILE.tap_rows * WINDOW.kernel_x
    # Windows of neighbouring rows overlap in whole rows, which are loaded once.
    shared: tl.constexpr = WINDOW.stride_y == 1 and WINDOW.dilation_y == 1
    rest = tl.program_id(0).to(INDEX)
    tap_group, rest = digit(rest, WINDOW.kernel_y // TILE.tap_rows)
    group, rest = digit(rest, tl.cdiv(sizes.channels, TILE.channels * TILE.blocks))
    head, rest = digit(rest, sizes.heads)
    subpixel, rest = digit(rest, WINDOW.scale_y * WINDOW.scale_x)
    column_tiles = tl.cdiv(sizes.width, TILE.columns)
    column_tile, rest = digit(rest, column_tiles)
    row_tile, n = digit(rest, tl.cdiv(sizes.height, TILE.rows))

    tap_row = tap_group * TILE.tap_rows
    first_tap = (subpixel * sizes.heads + head) * WINDOW.kernel_y * WINDOW.kernel_x + tap_row * WINDOW.kernel_x
    grad_output, input = of_batch(grad_output, n), of_batch(input, n)
    channel_filter, spatial_filter = of_batch(channel_filter, n), of_batch(spatial_filter, n)
    grad_channel = None
    if channel_parts is not None:
        tile_offset = (row_tile * column_tiles + column_tile) * channel_parts[1]
        grad_channel = of_batch(channel_parts[0], n)
    grad_spatial = None
    if spatial_parts is not None:
        grad_spatial = of_batch(spatial_parts[0], n)

    x = columns_from(column_tile * TILE.columns, TILE.columns)
    there = x < sizes.width
    # The store of a channel's sum is a tile as well, of which the first lane has a part: the sum stays in its warp.
    lane = columns_from(0, TILE.columns)
    # A last tile that reached over the map begins higher, so that each of its rows has a position: rows below the map
    # would read pixels that they have no part in. Those that are the tile's above as well do not count.
    own = row_tile * TILE.rows
    y = tl.minimum(own, sizes.height - TILE.rows)
    totals = ()
    if grad_spatial is not None:
        totals = zeros(TILE.rows * taps, TILE.columns, TILE.channels, SUM)
    weights = ()
    if spatial_filter is not None and grad_channel is not None and not WINDOW.add:
        weights = _spatial_taps(spatial_filter, first_tap, taps, TILE.rows, y, x, there, SUM)
    first_channel = group * TILE.channels * TILE.blocks
    blocks = tl.minimum(TILE.blocks, tl.cdiv(sizes.channels - first_channel, TILE.channels))
    for block in range(blocks):
        channel = first_channel + block * TILE.channels + tl.arange(0, TILE.channels)
        channel_ok = channel < sizes.channels
        channel += head * sizes.channels
        filter_channel = subpixel * sizes.heads * sizes.channels + channel
        of_output, of_input = channel * grad_output.c, channel * input.c
        ok = there[:, None] & channel_ok[None, :]
        kept = ()
        if grad_spatial is not None and not WINDOW.add:
            of_filter = strided(channel_filter, filter_channel)
            kept = channel_taps(channel_filter, tap_row, TILE.tap_rows, WINDOW, of_filter, channel_ok, SUM)
        grads = ()
        for i in tl.static_range(TILE.rows):
            row = (y + i) * WINDOW.scale_y + subpixel // WINDOW.scale_x
            column = x * WINDOW.scale_x + subpixel % WINDOW.scale_x
            grads = grads + (load(grad_output, row, column, of_output, ok & (y + i >= own), SUM),)
        values = ()
        if shared:
            for line in tl.static_range(TILE.rows + TILE.tap_rows - 1):
                row = y - sizes.padding_y + tap_row + line
                for tap_column in tl.static_range(WINDOW.kernel_x):
                    values = values + (_pixels(input, row, x, tap_column, of_input, ok, sizes, WINDOW, SUM),)
        added = ()
        for tap in tl.static_range(taps):
            sum = tl.zeros((TILE.columns, TILE.channels), SUM)
            for i in tl.static_range(TILE.rows):
                if shared:
                    value = values[i * WINDOW.kernel_x + tap]
                else:
                    row = (y + i) * WINDOW.stride_y - sizes.padding_y
                    row += (tap_row + tap // WINDOW.kernel_x) * WINDOW.dilation_y
                    value = _pixels(input, row, x, tap % WINDOW.kernel_x, of_input, ok, sizes, WINDOW, SUM)
                product = grads[i] * value
                if grad_channel is not None:
                    term = product
                    if spatial_filter is not None and not WINDOW.add:
                        term = product * weights[tap * TILE.rows + i]
                    # Only the last row is the tile's own for certain, see above.
                    if i < TILE.rows - 1:
                        sum = tl.where(y + i >= own, sum + term, sum)
                    else:
                        sum += term
                if grad_spatial is not None:
                    term = product
                    if channel_filter is not None and not WINDOW.add:
                        term = product * kept[tap]
                    added = added + (totals[tap * TILE.rows + i] + term,)
            if grad_channel is not None:
                row, column = tap_row + tap // WINDOW.kernel_x, tap % WINDOW.kernel_x
                at = grad_channel.pointer + tile_offset + row * grad_channel.y + column * grad_channel.x
                at += lane[:, None] + (filter_channel * grad_channel.c)[None, :]
                total = tl.sum(sum, axis=0, keep_dims=True).to(grad_channel.pointer.dtype.element_ty)
                tl.store(at, tl.broadcast_to(total, (TILE.columns, TILE.channels)), mask=ok & (lane == 0)[:, None])
        totals = added
    if grad_spatial is not None:
        for index in tl.static_range(TILE.rows * taps):
            row, tap = y + index % TILE.rows, first_tap + index // TILE.rows
            at = grad_spatial.pointer + group * spatial_parts[1] + tap * grad_spatial.c + row * grad_spatial.y
            total = tl.sum(totals[index], axis=1).to(grad_spatial.pointer.dtype.element_ty)
            tl.store(at + x * grad_spatial.x, total, mask=there & (row >= own))


@triton.jit
def _pixels(input, row, x, tap_column, of_input, ok, sizes, WINDOW: tl.constexpr, SUM: tl.constexpr):
    """Of a row of the input, what a column of the kernel reads; zero beside the map."""
    column = x * WINDOW.stride_x - sizes.padding_x + tap_column * WINDOW.dilation_x
    column_ok = (row >= 0) & (row < sizes.input_height) & (column >= 0) & (column < sizes.input_width)
    return load(input, row, column, of_input, column_ok[:, None] & ok, SUM)


@triton.jit
def _spatial_taps(filter, first_tap, TAPS: tl.constexpr, ROWS: tl.constexpr, first_row, x, mask, SUM: tl.constexpr):
    """The spatial filter's taps of ROWS rows of positions, for a loop that needs them again and again."""
    taps = ()
    for tap in tl.static_range(TAPS):
        for row in tl.static_range(ROWS):
            taps = taps + (spatial_tap(filter, first_tap + tap, first_row + row, x, mask, SUM),)
    return taps
