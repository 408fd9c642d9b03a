"""Compiled library, which has the operators' schemas and their CPU kernels, and the operators' namespace."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ddfnet.ops.geometry import Geometry, empty_gradients, empty_result, is_channels_last

_FILE = Path(__file__).with_name("libddfnet.so")


@functools.cache
def load() -> tuple[bool, str]:
    """Load the compiled library once; return whether that succeeded, and why not."""
    if not _FILE.exists():
        return (
            False,
            "the compiled kernel was not built: it needs a C++ compiler (gcc or clang) when ddfnet is installed",
        )
    try:
        torch.ops.load_library(_FILE)
    except OSError as error:
        return False, f"the compiled kernel {_FILE.name} does not load: {error}"
    return True, ""


def library_path() -> Path:
    """Return the file of the compiled library.

    A process that has loaded it, with ``torch.ops.load_library`` or in C++ with ``dlopen``, runs the programs that
    ``torch.export`` and AOTInductor made of a model on the CPU, without this package and without Python.

    Raises:
        FileNotFoundError: the library was not built, or does not load here.

    Example:
        >>> import ddfnet
        >>> ddfnet.ops.library_path().name
        'libddfnet.so'
    """
    ok, reason = load()
    if not ok:
        raise FileNotFoundError(f"there is no compiled library to load: {reason}")
    return _FILE


def isas() -> list[str]:
    """Return the instruction sets of the compiled kernel that run here, best first; none without the library."""
    return torch.ops.ddfnet._cpu_isas().split(",") if load()[0] else []


def can_run(device: torch.device) -> tuple[bool, str]:
    """Return whether the compiled kernel can serve this device, and why (not)."""
    if device.type != "cpu":
        return False, "the compiled kernel serves the CPU alone"
    ok, reason = load()
    if not ok:
        return False, reason
    isa = torch.ops.ddfnet._cpu_isa()
    if not isa:
        asked = os.environ.get("DDFNET_CPU_ISA")
        return False, f"DDFNET_CPU_ISA={asked!r} is not an instruction set that runs here: {', '.join(isas())}"
    return True, f"compiled kernel, {isa}"


def ddf(input: Tensor, channel_filter: Tensor | None, spatial_filter: Tensor | None, geometry: Geometry) -> Tensor:
    """Compute the output, where the dispatcher has called the Python kernel before the compiled one."""
    output = empty_result(input, geometry)
    with torch._C._AutoDispatchBelowAutograd():
        torch.ops.ddfnet._ddf_out(output, input, channel_filter, spatial_filter, *geometry.flat())
    return output


def ddf_backward(
    grad_output: Tensor,
    input: Tensor,
    channel_filter: Tensor | None,
    spatial_filter: Tensor | None,
    geometry: Geometry,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of input, channel filter and spatial filter; None where ``output_mask`` is False."""
    tensors = input, channel_filter, spatial_filter
    gradients = empty_gradients(tensors, output_mask)
    memory_format = torch.channels_last if is_channels_last(input) else torch.contiguous_format
    grad_output = grad_output.contiguous(memory_format=memory_format)
    with torch._C._AutoDispatchBelowAutograd():
        torch.ops.ddfnet._ddf_backward_out(*gradients, grad_output, *tensors, *geometry.flat())
    return gradients


load()
NAMESPACE = torch.library.Library("ddfnet", "FRAGMENT")


def define(name: str, signature: str) -> torch._ops.OpOverload:
    """Return the operator of this name, after defining it where the compiled library has not.

    The signature is the one in ``csrc/binding``.
    """
    if not hasattr(torch.ops.ddfnet, name):
        NAMESPACE.define(name + signature)
    operator: torch._ops.OpOverload = getattr(torch.ops.ddfnet, name).default
    return operator
