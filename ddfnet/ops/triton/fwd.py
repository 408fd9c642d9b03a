"""Forward pass.

    out[n, c, y*uy + qy, x*ux + qx] = sum_t comb(cf[n, q*C + c, t], sf[n, (q*G + g)*K + t, y, x])
                                        * in[n, c, y*sy - py + ky*dy, x*sx - px + kx*dx]

A program walks down BLOCK_H rows of BLOCK_W positions, for BLOCK_C channels of one head and SUBPIXELS sub-pixels,
STEP_H rows at a time. A loaded pixel serves every row and sub-pixel of the step that has it in its window; pixels that
the next step loads again are in the cache.
"""

import triton
import triton.language as tl

from ddfnet.ops.triton.common import (
    Filters,
    channel_offsets,
    load_channel_taps,
    load_tile,
    load_weight,
    select_sample,
    store_tile,
    unaligned_arange,
    unravel,
    zero_accs,
)


@triton.jit
def _accumulate_row(
    accs,
    input,
    offs_c,
    mask_c,
    filters,
    sizes,
    y,
    offs_w,
    tap_h,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    """Add the share of one input row: row ``tap_h`` of the kernel to the first row of the step, the row above it to the
    next one, and so on."""
    row = y * GEOMETRY.stride_h - sizes.padding_h + tap_h * GEOMETRY.dilation_h
    mask_h = (row >= 0) & (row < sizes.input_height)
    for tap_w in tl.static_range(GEOMETRY.kernel_w):
        column = offs_w * GEOMETRY.stride_w - sizes.padding_w + tap_w * GEOMETRY.dilation_w
        mask_w = mask_h & (column >= 0) & (column < sizes.input_width)
        value = load_tile(input, row, column, offs_c, mask_w[:, None] & mask_c[None, :], ACC_DTYPE)
        new_accs = ()
        for i in tl.static_range(TILE.STEP_H):
            for q in tl.static_range(TILE.SUBPIXELS):
                acc = accs[i * TILE.SUBPIXELS + q]
                # A step of one row uses every row of the kernel, so that tap_h may be a run-time number there.
                if TILE.STEP_H == 1 or (tap_h >= i and tap_h - i < GEOMETRY.kernel_h):
                    mask_out = (offs_w < sizes.width) & (y + i < sizes.height)
                    acc += value * load_weight(
                        filters, q, tap_h - i, tap_w, y + i, offs_w, mask_out, mask_c, sizes,
                        GEOMETRY, TILE.KEEP_CF, ACC_DTYPE,
                    )  # fmt: skip
                new_accs = new_accs + (acc,)
        accs = new_accs
    return accs


@triton.jit
def ddf_fwd_kernel(
    input,  # Map (N, C, H, W)
    channel_filter,  # Map (N, S*C, kH, kW), or None
    spatial_filter,  # Map (N, S*G*kH*kW, Ho, Wo), or None
    output,  # Map (N, C, Ho*uy, Wo*ux)
    sizes,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    INDEX_DTYPE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    pid = tl.program_id(0).to(INDEX_DTYPE)
    pid_c, pid = unravel(pid, tl.cdiv(sizes.channels, TILE.BLOCK_C))
    head, pid = unravel(pid, sizes.heads)
    pid_q, pid = unravel(pid, GEOMETRY.scale_h * GEOMETRY.scale_w // TILE.SUBPIXELS)
    pid_w, pid = unravel(pid, tl.cdiv(sizes.width, TILE.BLOCK_W))
    pid_h, n = unravel(pid, tl.cdiv(sizes.height, TILE.BLOCK_H))

    subpixel = pid_q * TILE.SUBPIXELS
    offs_w = unaligned_arange(pid_w * TILE.BLOCK_W, TILE.BLOCK_W)
    channel = pid_c * TILE.BLOCK_C + tl.arange(0, TILE.BLOCK_C)
    mask_c = channel < sizes.channels
    channel += head * sizes.channels
    input, output = select_sample(input, n), select_sample(output, n)
    channel_filter, spatial_filter = select_sample(channel_filter, n), select_sample(spatial_filter, n)
    input_offs_c = channel * input.stride_c
    output_offs_c = channel * output.stride_c
    cf_offs_c = channel_offsets(channel_filter, subpixel * sizes.heads * sizes.channels + channel)
    sf_tap = (subpixel * sizes.heads + head) * GEOMETRY.kernel_h * GEOMETRY.kernel_w

    cf_regs = ()
    if TILE.KEEP_CF:
        cf_regs = load_channel_taps(channel_filter, 0, GEOMETRY.kernel_h, GEOMETRY, cf_offs_c, mask_c, ACC_DTYPE)
    filters = Filters(channel_filter, cf_regs, cf_offs_c, spatial_filter, sf_tap)
    first_y = pid_h * TILE.BLOCK_H
    for step in range(0, tl.minimum(TILE.BLOCK_H, sizes.height - first_y), TILE.STEP_H):
        y = first_y + step
        accs = zero_accs(TILE.STEP_H * TILE.SUBPIXELS, TILE.BLOCK_W, TILE.BLOCK_C, ACC_DTYPE)
        if TILE.UNROLL:
            for tap_h in tl.static_range(GEOMETRY.kernel_h + TILE.STEP_H - 1):
                accs = _accumulate_row(
                    accs, input, input_offs_c, mask_c, filters, sizes, y, offs_w, tap_h, GEOMETRY, TILE, ACC_DTYPE
                )
        else:  # only the rows that are on the map
            above = sizes.padding_h - y * GEOMETRY.stride_h
            begin = tl.maximum(0, tl.cdiv(above, GEOMETRY.dilation_h))
            end = tl.minimum(GEOMETRY.kernel_h, (sizes.input_height - 1 + above) // GEOMETRY.dilation_h + 1)
            for tap_h in range(begin, end):
                accs = _accumulate_row(
                    accs, input, input_offs_c, mask_c, filters, sizes, y, offs_w, tap_h, GEOMETRY, TILE, ACC_DTYPE
                )
        for i in tl.static_range(TILE.STEP_H):
            mask_out = ((offs_w < sizes.width) & (y + i < sizes.height))[:, None] & mask_c[None, :]
            for q in tl.static_range(TILE.SUBPIXELS):
                row = (y + i) * GEOMETRY.scale_h + (subpixel + q) // GEOMETRY.scale_w
                column = offs_w * GEOMETRY.scale_w + (subpixel + q) % GEOMETRY.scale_w
                store_tile(output, row, column, output_offs_c, mask_out, accs[i * TILE.SUBPIXELS + q])
