"""Gradient of the input.

    grad_in[n, c, iy, ix] = sum_{q,t} comb(cf[n, q*C + c, t], sf[n, (q*G + g)*K + t, y, x])
                                        * grad_out[n, c, y*uy + qy, x*ux + qx]

over the taps that lead from the pixel to a position: y*sy = iy + py - ky*dy, x*sx = ix + px - kx*dx. The sum is
gathered, not scattered, so nothing is added atomically. With a stride, pixels of the same remainder have the same taps:
a program works on the pixels of one remainder, its phase, and each tap is used by all of them or by none.
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
    grad_output,
    offs_c,
    mask_c,
    filters,
    subpixel,
    sizes,
    shift_h,  # phase and padding
    shift_w,
    y,  # within the phase
    offs_w,
    tap_h,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    """Add the share of one row of positions: row ``tap_h`` of the kernel to the first row of the step, the row below it
    to the next one, and so on."""
    shift = shift_h - tap_h * GEOMETRY.dilation_h
    position_y = y + shift // GEOMETRY.stride_h
    mask_h = (shift % GEOMETRY.stride_h == 0) & (position_y >= 0) & (position_y < sizes.height)
    row = position_y * GEOMETRY.scale_h + subpixel // GEOMETRY.scale_w
    for tap_w in tl.static_range(GEOMETRY.kernel_w):
        shift = shift_w - tap_w * GEOMETRY.dilation_w
        position_x = offs_w + shift // GEOMETRY.stride_w
        mask_w = mask_h & (shift % GEOMETRY.stride_w == 0) & (position_x >= 0) & (position_x < sizes.width)
        column = position_x * GEOMETRY.scale_w + subpixel % GEOMETRY.scale_w
        value = load_tile(grad_output, row, column, offs_c, mask_w[:, None] & mask_c[None, :], ACC_DTYPE)
        new_accs = ()
        for i in tl.static_range(TILE.STEP_H):
            acc = accs[i]
            # A step of one row uses every row of the kernel, so that tap_h may be a run-time number there.
            if TILE.STEP_H == 1 or (tap_h + i >= 0 and tap_h + i < GEOMETRY.kernel_h):
                acc += value * load_weight(
                    filters, 0, tap_h + i, tap_w, position_y, position_x, mask_w, mask_c, sizes,
                    GEOMETRY, TILE.KEEP_CF, ACC_DTYPE,
                )  # fmt: skip
            new_accs = new_accs + (acc,)
        accs = new_accs
    return accs


@triton.jit
def ddf_bwd_input_kernel(
    grad_output,  # Map (N, C, Ho*uy, Wo*ux)
    channel_filter,  # Map (N, S*C, kH, kW), or None
    spatial_filter,  # Map (N, S*G*kH*kW, Ho, Wo), or None
    grad_input,  # Map (N, C, H, W)
    sizes,
    GEOMETRY: tl.constexpr,
    TILE: tl.constexpr,
    INDEX_DTYPE: tl.constexpr,
    ACC_DTYPE: tl.constexpr,
):
    phase_height = tl.cdiv(sizes.input_height, GEOMETRY.stride_h)
    phase_width = tl.cdiv(sizes.input_width, GEOMETRY.stride_w)
    pid = tl.program_id(0).to(INDEX_DTYPE)
    pid_c, pid = unravel(pid, tl.cdiv(sizes.channels, TILE.BLOCK_C))
    head, pid = unravel(pid, sizes.heads)
    phase_w, pid = unravel(pid, tl.minimum(GEOMETRY.stride_w, sizes.input_width))
    phase_h, pid = unravel(pid, tl.minimum(GEOMETRY.stride_h, sizes.input_height))
    pid_w, pid = unravel(pid, tl.cdiv(phase_width, TILE.BLOCK_W))
    pid_h, n = unravel(pid, tl.cdiv(phase_height, TILE.BLOCK_H))

    offs_w = unaligned_arange(pid_w * TILE.BLOCK_W, TILE.BLOCK_W)
    column = phase_w + offs_w * GEOMETRY.stride_w
    channel = pid_c * TILE.BLOCK_C + tl.arange(0, TILE.BLOCK_C)
    mask_c = channel < sizes.channels
    channel += head * sizes.channels
    grad_output, grad_input = select_sample(grad_output, n), select_sample(grad_input, n)
    channel_filter, spatial_filter = select_sample(channel_filter, n), select_sample(spatial_filter, n)
    output_offs_c = channel * grad_output.stride_c
    input_offs_c = channel * grad_input.stride_c
    cf_offs_c = channel_offsets(channel_filter, channel)
    shift_h = phase_h + sizes.padding_h
    shift_w = phase_w + sizes.padding_w

    cf_regs = ()
    if TILE.KEEP_CF:
        cf_regs = load_channel_taps(channel_filter, 0, GEOMETRY.kernel_h, GEOMETRY, cf_offs_c, mask_c, ACC_DTYPE)
    first_y = pid_h * TILE.BLOCK_H
    for step in range(0, tl.minimum(TILE.BLOCK_H, phase_height - first_y), TILE.STEP_H):
        y = first_y + step
        accs = zero_accs(TILE.STEP_H, TILE.BLOCK_W, TILE.BLOCK_C, ACC_DTYPE)
        for subpixel in range(GEOMETRY.scale_h * GEOMETRY.scale_w):
            sf_tap = (subpixel * sizes.heads + head) * GEOMETRY.kernel_h * GEOMETRY.kernel_w
            subpixel_offs_c = channel_offsets(channel_filter, channel + subpixel * sizes.heads * sizes.channels)
            filters = Filters(channel_filter, cf_regs, subpixel_offs_c, spatial_filter, sf_tap)
            if TILE.UNROLL:
                for back in tl.static_range(GEOMETRY.kernel_h + TILE.STEP_H - 1):
                    # From the last row of the kernel on, whose positions are the topmost.
                    accs = _accumulate_row(
                        accs, grad_output, output_offs_c, mask_c, filters, subpixel, sizes, shift_h, shift_w,
                        y, offs_w, GEOMETRY.kernel_h - 1 - back, GEOMETRY, TILE, ACC_DTYPE,
                    )  # fmt: skip
            else:  # only the rows whose positions are on the map
                below = shift_h + y * GEOMETRY.stride_h
                last = (sizes.height - 1) * GEOMETRY.stride_h
                begin = tl.maximum(0, tl.cdiv(below - last, GEOMETRY.dilation_h))
                end = tl.minimum(GEOMETRY.kernel_h, below // GEOMETRY.dilation_h + 1)
                for tap_h in range(begin, end):
                    accs = _accumulate_row(
                        accs, grad_output, output_offs_c, mask_c, filters, subpixel, sizes, shift_h, shift_w,
                        y, offs_w, tap_h, GEOMETRY, TILE, ACC_DTYPE,
                    )  # fmt: skip
        for i in tl.static_range(TILE.STEP_H):
            row = phase_h + (y + i) * GEOMETRY.stride_h
            mask_in = ((column < sizes.input_width) & (row < sizes.input_height))[:, None] & mask_c[None, :]
            store_tile(grad_input, row, column, input_offs_c, mask_in, accs[i])
