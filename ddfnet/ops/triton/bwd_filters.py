"""Gradients of both filters, in one pass over the input and the gradient of the output.

    grad_cf[n, q*C + c, t]            = sum_{y,x}    p * sf    (where filters are added: p)
    grad_sf[n, (q*G + g)*K + t, y, x] = sum_{c in g} p * cf    (where filters are added: p)
    p = grad_out[n, c, y*uy + qy, x*ux + qx] * in[n, c, y*sy - py + ky*dy, x*sx - px + kx*dx]

A program has TAP_ROWS rows of the kernel, BLOCK_C channels of one head, and BLOCK_H rows of STEPS_W * BLOCK_W
positions. It keeps the sums of the channel filter in registers and writes the spatial filter's sums over its own
channels. Both are partial sums, each in its own place, which the caller adds up: nothing is added atomically. Programs
that differ only in the rows of the kernel run side by side, and find in the cache what one of them has read.
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
def ddf_bwd_filters_kernel(
    grad_output,  # Map (N, C, Ho*uy, Wo*ux)
    input,  # Map (N, C, H, W)
    channel_filter,  # Map (N, S*C, kH, kW), or None
    spatial_filter,  # Map (N, S*G*kH*kW, Ho, Wo), or None
    cf_partials,  # Map like the channel filter and the stride from tile to tile, or None
    sf_partials,  # Map like the spatial filter and the stride from block to block of channels, or None
    sizes,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    INDEX_DTYPE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    taps: tl.constexpr = GEOMETRY.kernel_h * GEOMETRY.kernel_w
    pid = tl.program_id(0).to(INDEX_DTYPE)
    pid_tap, pid = unravel(pid, GEOMETRY.kernel_h // TILE.TAP_ROWS)
    pid_c, pid = unravel(pid, tl.cdiv(sizes.channels, TILE.BLOCK_C))
    head, pid = unravel(pid, sizes.heads)
    subpixel, pid = unravel(pid, GEOMETRY.scale_h * GEOMETRY.scale_w)
    num_pid_w = tl.cdiv(sizes.width, TILE.BLOCK_W * TILE.STEPS_W)
    pid_w, pid = unravel(pid, num_pid_w)
    pid_h, n = unravel(pid, tl.cdiv(sizes.height, TILE.BLOCK_H))

    channel = pid_c * TILE.BLOCK_C + tl.arange(0, TILE.BLOCK_C)
    mask_c = channel < sizes.channels
    channel += head * sizes.channels
    filter_channel = subpixel * sizes.heads * sizes.channels + channel
    sf_tap = (subpixel * sizes.heads + head) * taps
    grad_output, input = select_sample(grad_output, n), select_sample(input, n)
    channel_filter, spatial_filter = select_sample(channel_filter, n), select_sample(spatial_filter, n)
    grad_channel = None
    if cf_partials is not None:
        cf_partial_offs = (pid_h * num_pid_w + pid_w) * cf_partials[1]
        grad_channel = select_sample(cf_partials[0], n)
    grad_spatial = None
    if sf_partials is not None:
        sf_partial_offs = pid_c * sf_partials[1]
        grad_spatial = select_sample(sf_partials[0], n)
    output_offs_c, input_offs_c = channel * grad_output.stride_c, channel * input.stride_c
    cf_offs_c = channel_offsets(channel_filter, filter_channel)
    first_y = pid_h * TILE.BLOCK_H
    rows = tl.minimum(TILE.BLOCK_H, sizes.height - first_y)

    first_tap_h = pid_tap * TILE.TAP_ROWS
    cf_regs = ()
    if grad_spatial is not None and not GEOMETRY.add:
        cf_regs = load_channel_taps(channel_filter, first_tap_h, TILE.TAP_ROWS, GEOMETRY, cf_offs_c, mask_c, ACC_DTYPE)
    accs = ()
    if grad_channel is not None:
        accs = zero_accs(TILE.TAP_ROWS * GEOMETRY.kernel_w, TILE.BLOCK_W, TILE.BLOCK_C, ACC_DTYPE)
    for step in range(rows * TILE.STEPS_W):
        y = first_y + step // TILE.STEPS_W
        offs_w = unaligned_arange((pid_w * TILE.STEPS_W + step % TILE.STEPS_W) * TILE.BLOCK_W, TILE.BLOCK_W)
        mask_w = (offs_w < sizes.width) & (y < sizes.height)
        row = y * GEOMETRY.scale_h + subpixel // GEOMETRY.scale_w
        column = offs_w * GEOMETRY.scale_w + subpixel % GEOMETRY.scale_w
        grad = load_tile(grad_output, row, column, output_offs_c, mask_w[:, None] & mask_c[None, :], ACC_DTYPE)
        new_accs = ()
        for i in tl.static_range(TILE.TAP_ROWS):
            row = y * GEOMETRY.stride_h - sizes.padding_h + (first_tap_h + i) * GEOMETRY.dilation_h
            mask_row = mask_w & (row >= 0) & (row < sizes.input_height)
            for tap_w in tl.static_range(GEOMETRY.kernel_w):
                tap = sf_tap + (first_tap_h + i) * GEOMETRY.kernel_w + tap_w
                column = offs_w * GEOMETRY.stride_w - sizes.padding_w + tap_w * GEOMETRY.dilation_w
                mask_in = mask_row & (column >= 0) & (column < sizes.input_width)
                value = load_tile(input, row, column, input_offs_c, mask_in[:, None] & mask_c[None, :], ACC_DTYPE)
                product = grad * value
                if grad_channel is not None:
                    term = product
                    if spatial_filter is not None and not GEOMETRY.add:
                        term = product * load_spatial_tap(spatial_filter, tap, y, offs_w, mask_w, ACC_DTYPE)
                    new_accs = new_accs + (accs[i * GEOMETRY.kernel_w + tap_w] + term,)
                if grad_spatial is not None:
                    term = product
                    if channel_filter is not None and not GEOMETRY.add:
                        term = product * cf_regs[i * GEOMETRY.kernel_w + tap_w]
                    ptrs = grad_spatial.ptr + sf_partial_offs + tap * grad_spatial.stride_c + y * grad_spatial.stride_h
                    total = tl.sum(term, axis=1).to(grad_spatial.ptr.dtype.element_ty)
                    tl.store(ptrs + offs_w * grad_spatial.stride_w, total, mask=as_mask(mask_w))
        accs = new_accs
    if grad_channel is not None:
        for index in tl.static_range(TILE.TAP_ROWS * GEOMETRY.kernel_w):
            tap_h = first_tap_h + index // GEOMETRY.kernel_w
            tap_w = index % GEOMETRY.kernel_w
            ptrs = grad_channel.ptr + cf_partial_offs + tap_h * grad_channel.stride_h + tap_w * grad_channel.stride_w
            total = tl.sum(accs[index], axis=0).to(grad_channel.ptr.dtype.element_ty)
            tl.store(ptrs + filter_channel * grad_channel.stride_c, total, mask=as_mask(mask_c))
