"""The compiled CPU kernel: finds it, loads it on first use, and hands it the tensors."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddfnet.ops.shapes import empty_gradients, empty_result, is_channels_last

_FOLDER = Path(__file__).parent


@functools.cache
def _load() -> tuple[bool, str]:
    """Load the kernel once. Where that fails, the reason is kept for whoever asks."""
    files = sorted(_FOLDER.glob("_cpu*.so"))
    if not files:
        return (
            False,
            "the compiled kernel was not built: it needs a C++ compiler (gcc or clang) when ddfnet is installed",
        )
    try:
        torch.ops.load_library(files[0])
    except OSError as error:
        return False, f"the compiled kernel {files[0].name} does not load: {error}"
    return True, ""


def can_run(device: torch.device) -> tuple[bool, str]:
    if device.type != "cpu":
        return False, "the compiled kernel serves the CPU alone"
    ok, reason = _load()
    if not ok:
        return False, reason
    tier = torch.ops.ddfnet_cpu.tier()
    if not tier:
        asked = os.environ.get("DDFNET_CPU_TIER")
        return False, f"DDFNET_CPU_TIER={asked!r} is not an instruction set that the kernel has and this processor runs"
    return True, f"compiled kernel, {tier}"


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, *geometry: Any) -> Tensor:
    output = empty_result(input, *geometry)
    torch.ops.ddfnet_cpu.forward.default(output, input, channel_filter, spatial_filter, *geometry)
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    *geometry_and_mask: Any,
) -> tuple[Tensor | None, ...]:
    *geometry, mask = geometry_and_mask
    tensors = (input, channel_filter, spatial_filter)
    gradients = empty_gradients(tensors, mask)
    # A copy only where autograd comes with another layout than the map's, as sums do with one value for all pixels.
    memory_format = torch.channels_last if is_channels_last(input) else torch.contiguous_format
    grad_output = grad_output.contiguous(memory_format=memory_format)
    torch.ops.ddfnet_cpu.backward.default(*gradients, grad_output, *tensors, *geometry)
    return gradients
