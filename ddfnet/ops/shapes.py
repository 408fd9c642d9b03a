"""Sizes and memory formats, the same for every backend, for fake tensors and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def output_size(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """conv2d's formula: ``floor((size + 2*padding - dilation*(kernel_size-1) - 1) / stride) + 1``."""
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation, strict=True)
    )
    return height, width


def is_channels_last(input: Tensor) -> bool:
    """Whether the result of an operator on this input is channels_last.

    A tensor with one channel, or of one pixel, has both formats at once; like every tensor that is not dense it
    counts as contiguous.
    """
    return input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()


def empty_output(input: Tensor, size: Sequence[int]) -> Tensor:
    """An uninitialised result of this size in the input's dtype, device and memory format."""
    memory_format = torch.channels_last if is_channels_last(input) else torch.contiguous_format
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format)


def empty_result(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    upscale: Sequence[int],
    combine: str,
) -> Tensor:
    """The operator's result, uninitialised; the options are its geometry."""
    height, width = output_size(input.shape[2:], kernel_size, stride, padding, dilation)
    return empty_output(input, (*input.shape[:2], height * upscale[0], width * upscale[1]))


def empty_gradients(tensors: Sequence[Tensor | None], mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """An uninitialised gradient for each tensor that is there and wanted, else None."""
    return tuple(
        empty_output(tensor, tensor.shape) if wanted and tensor is not None else None
        for tensor, wanted in zip(tensors, mask, strict=True)
    )


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which taps are combined and summed: half types in float32, the others in their own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
