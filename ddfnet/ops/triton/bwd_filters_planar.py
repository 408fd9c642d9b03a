"""Gradients of both filters where columns are adjacent in memory; the formulas are those of `bwd_filters`.

The loops are swapped. A program has BLOCK_H rows of BLOCK_W positions, whose sums of the spatial filter it keeps in
registers, one channel per thread, while it walks over BLOCKS_C blocks of BLOCK_C channels. The channel filter's sums of
a block are over the lanes of one warp; those of the spatial filter leave their threads once, at the end. Both are
partial sums, as in `bwd_filters`.
"""

import triton
import triton.language as tl

from ddfnet.ops.triton.common import (
    as_mask,
    channel_offsets,
    load_channel_taps,
    load_spatial_tap,
    load_tile,
    select_sample,
    unaligned_arange,
    unravel,
    zero_accs,
)


@triton.jit
def ddf_bwd_filters_planar_kernel(
    grad_output,  # Map (N, C, Ho*uy, Wo*ux)
    input,  # Map (N, C, H, W)
    channel_filter,  # Map (N, S*C, kH, kW), or None
    spatial_filter,  # Map (N, S*G*kH*kW, Ho, Wo), or None
    cf_partials,  # Map like the channel filter and the stride from tile to tile, or None
    sf_partials,  # Map like the spatial filter and the stride from program to program along channels, or None
    sizes,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    INDEX_DTYPE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    taps: tl.constexpr = TILE.TAP_ROWS * GEOMETRY.kernel_w
    # Windows of neighbouring rows overlap in whole rows, which are loaded once.
    overlap: tl.constexpr = GEOMETRY.stride_h == 1 and GEOMETRY.dilation_h == 1
    pid = tl.program_id(0).to(INDEX_DTYPE)
    pid_tap, pid = unravel(pid, GEOMETRY.kernel_h // TILE.TAP_ROWS)
    pid_c, pid = unravel(pid, tl.cdiv(sizes.channels, TILE.BLOCK_C * TILE.BLOCKS_C))
    head, pid = unravel(pid, sizes.heads)
    subpixel, pid = unravel(pid, GEOMETRY.scale_h * GEOMETRY.scale_w)
    num_pid_w = tl.cdiv(sizes.width, TILE.BLOCK_W)
    pid_w, pid = unravel(pid, num_pid_w)
    pid_h, n = unravel(pid, tl.cdiv(sizes.height, TILE.BLOCK_H))

    first_tap_h = pid_tap * TILE.TAP_ROWS
    sf_tap = (subpixel * sizes.heads + head) * GEOMETRY.kernel_h * GEOMETRY.kernel_w + first_tap_h * GEOMETRY.kernel_w
    grad_output, input = select_sample(grad_output, n), select_sample(input, n)
    channel_filter, spatial_filter = select_sample(channel_filter, n), select_sample(spatial_filter, n)
    grad_channel = None
    if cf_partials is not None:
        cf_partial_offs = (pid_h * num_pid_w + pid_w) * cf_partials[1]
        grad_channel = select_sample(cf_partials[0], n)
    grad_spatial = None
    if sf_partials is not None:
        grad_spatial = select_sample(sf_partials[0], n)

    offs_w = unaligned_arange(pid_w * TILE.BLOCK_W, TILE.BLOCK_W)
    mask_w = offs_w < sizes.width
    # The sum of a channel is stored as a tile whose first lane alone is not masked: so the sum stays in its warp.
    lane = unaligned_arange(0, TILE.BLOCK_W)
    # A last tile that would reach below the map begins higher, so that each of its rows has a position: rows below the
    # map would read pixels that do not belong to them. Rows that the tile above owns too do not count.
    own_y = pid_h * TILE.BLOCK_H
    y = tl.minimum(own_y, sizes.height - TILE.BLOCK_H)
    sf_accs = ()
    if grad_spatial is not None:
        sf_accs = zero_accs(TILE.BLOCK_H * taps, TILE.BLOCK_W, TILE.BLOCK_C, ACC_DTYPE)
    sf_regs = ()
    if spatial_filter is not None and grad_channel is not None and not GEOMETRY.add:
        sf_regs = _load_spatial_taps(spatial_filter, sf_tap, taps, TILE.BLOCK_H, y, offs_w, mask_w, ACC_DTYPE)
    first_channel = pid_c * TILE.BLOCK_C * TILE.BLOCKS_C
    blocks = tl.minimum(TILE.BLOCKS_C, tl.cdiv(sizes.channels - first_channel, TILE.BLOCK_C))
    for block in range(blocks):
        channel = first_channel + block * TILE.BLOCK_C + tl.arange(0, TILE.BLOCK_C)
        mask_c = channel < sizes.channels
        channel += head * sizes.channels
        filter_channel = subpixel * sizes.heads * sizes.channels + channel
        output_offs_c, input_offs_c = channel * grad_output.stride_c, channel * input.stride_c
        mask = mask_w[:, None] & mask_c[None, :]
        cf_regs = ()
        if grad_spatial is not None and not GEOMETRY.add:
            cf_offs_c = channel_offsets(channel_filter, filter_channel)
            cf_regs = load_channel_taps(
                channel_filter, first_tap_h, TILE.TAP_ROWS, GEOMETRY, cf_offs_c, mask_c, ACC_DTYPE
            )
        grads = ()
        for i in tl.static_range(TILE.BLOCK_H):
            row = (y + i) * GEOMETRY.scale_h + subpixel // GEOMETRY.scale_w
            column = offs_w * GEOMETRY.scale_w + subpixel % GEOMETRY.scale_w
            grads = grads + (load_tile(grad_output, row, column, output_offs_c, mask & (y + i >= own_y), ACC_DTYPE),)
        values = ()
        if overlap:
            for i in tl.static_range(TILE.BLOCK_H + TILE.TAP_ROWS - 1):
                row = y - sizes.padding_h + first_tap_h + i
                for tap_w in tl.static_range(GEOMETRY.kernel_w):
                    values = values + (
                        _load_pixels(input, row, offs_w, tap_w, input_offs_c, mask, sizes, GEOMETRY, ACC_DTYPE),
                    )
        new_accs = ()
        for tap in tl.static_range(taps):
            cf_acc = tl.zeros((TILE.BLOCK_W, TILE.BLOCK_C), ACC_DTYPE)
            for i in tl.static_range(TILE.BLOCK_H):
                if overlap:
                    value = values[i * GEOMETRY.kernel_w + tap]
                else:
                    row = (y + i) * GEOMETRY.stride_h - sizes.padding_h
                    row += (first_tap_h + tap // GEOMETRY.kernel_w) * GEOMETRY.dilation_h
                    tap_w = tap % GEOMETRY.kernel_w
                    value = _load_pixels(input, row, offs_w, tap_w, input_offs_c, mask, sizes, GEOMETRY, ACC_DTYPE)
                product = grads[i] * value
                if grad_channel is not None:
                    term = product
                    if spatial_filter is not None and not GEOMETRY.add:
                        term = product * sf_regs[tap * TILE.BLOCK_H + i]
                    # Only the last row is always the tile's own, see above.
                    if i < TILE.BLOCK_H - 1:
                        cf_acc = tl.where(y + i >= own_y, cf_acc + term, cf_acc)
                    else:
                        cf_acc += term
                if grad_spatial is not None:
                    term = product
                    if channel_filter is not None and not GEOMETRY.add:
                        term = product * cf_regs[tap]
                    new_accs = new_accs + (sf_accs[tap * TILE.BLOCK_H + i] + term,)
            if grad_channel is not None:
                tap_h, tap_w = first_tap_h + tap // GEOMETRY.kernel_w, tap % GEOMETRY.kernel_w
                ptrs = (
                    grad_channel.ptr + cf_partial_offs + tap_h * grad_channel.stride_h + tap_w * grad_channel.stride_w
                )
                ptrs += lane[:, None] + (filter_channel * grad_channel.stride_c)[None, :]
                total = tl.sum(cf_acc, axis=0, keep_dims=True).to(grad_channel.ptr.dtype.element_ty)
                total = tl.broadcast_to(total, (TILE.BLOCK_W, TILE.BLOCK_C))
                tl.store(ptrs, total, mask=as_mask(mask & (lane == 0)[:, None]))
        sf_accs = new_accs
    if grad_spatial is not None:
        for index in tl.static_range(TILE.BLOCK_H * taps):
            row, tap = y + index % TILE.BLOCK_H, sf_tap + index // TILE.BLOCK_H
            ptrs = grad_spatial.ptr + pid_c * sf_partials[1] + tap * grad_spatial.stride_c + row * grad_spatial.stride_h
            total = tl.sum(sf_accs[index], axis=1).to(grad_spatial.ptr.dtype.element_ty)
            tl.store(ptrs + offs_w * grad_spatial.stride_w, total, mask=as_mask(mask_w & (row >= own_y)))


@triton.jit
def _load_pixels(input, row, offs_w, tap_w, offs_c, mask, sizes, GEOMETRY: tl.constexpr, ACC_DTYPE: tl.constexpr):
    """Load the pixels of an input row that one column of the kernel reads, zero outside the map."""
    column = offs_w * GEOMETRY.stride_w - sizes.padding_w + tap_w * GEOMETRY.dilation_w
    mask_in = (row >= 0) & (row < sizes.input_height) & (column >= 0) & (column < sizes.input_width)
    return load_tile(input, row, column, offs_c, mask_in[:, None] & mask, ACC_DTYPE)


@triton.jit
def _load_spatial_taps(
    filter, first_tap, TAPS: tl.constexpr, ROWS: tl.constexpr, first_y, offs_w, mask_w, ACC_DTYPE: tl.constexpr
):
    """Load the taps of the spatial filter for ROWS rows of positions into registers."""
    sf_regs = ()
    for tap in tl.static_range(TAPS):
        for row in tl.static_range(ROWS):
            sf_regs = sf_regs + (load_spatial_tap(filter, first_tap + tap, first_y + row, offs_w, mask_w, ACC_DTYPE),)
    return sf_regs
