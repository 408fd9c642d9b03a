"""The compiled CPU kernel: finds it, loads it on first use, and hands it the tensors."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddfnet.ops.geometry import Geometry

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


def isas() -> list[str]:
    """Return the instruction sets of the compiled kernel that run here, best first; none without the kernel."""
    return torch.ops.ddfnet_cpu.isas().split(",") if _load()[0] else []


def can_run(device: torch.device) -> tuple[bool, str]:
    if device.type != "cpu":
        return False, "the compiled kernel serves the CPU alone"
    ok, reason = _load()
    if not ok:
        return False, reason
    isa = torch.ops.ddfnet_cpu.isa()
    if not isa:
        asked = os.environ.get("DDFNET_CPU_ISA")
        return False, f"DDFNET_CPU_ISA={asked!r} is not an instruction set that runs here: {', '.join(isas())}"
    return True, f"compiled kernel, {isa}"


@functools.cache
def _geometry(geometry: Geometry) -> int:
    """Return the number under which the kernel knows this geometry."""
    number: int = torch.ops.ddfnet_cpu.geometry.default(*geometry)
    return number


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    output: Tensor = torch.ops.ddfnet_cpu.forward.default(input, channel_filter, spatial_filter, _geometry(geometry))
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.ddfnet_cpu.backward.default(
        grad_output, input, channel_filter, spatial_filter, _geometry(geometry), *output_mask
    )
    return gradients


def layer(*arguments: Any) -> Tensor:
    """A whole layer, as ``csrc/binding/cpu.cpp`` takes it; the geometry is the ninth argument."""
    before, geometry, after = arguments[:8], arguments[8], arguments[9:]
    output: Tensor = torch.ops.ddfnet_cpu.layer.default(*before, _geometry(geometry), *after)
    return output
