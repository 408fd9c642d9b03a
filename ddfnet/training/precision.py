"""Weights of half or double precision: where a network's inputs and outputs change their type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TRUE_PRECISIONS = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64}
"""Type of the weights by the name that ``--trainer.precision`` takes."""

_LEAST = 1e-4  # eps of Adam in float16, in which its usual 1e-8 is 0


def set_precision(model: Any, precision: str | None) -> str | None:
    """Convert the weights of a Lightning module to a precision that ends in ``-true``.

    Lightning itself would convert the batches too, and the type of every new tensor: the depth that a network must
    reach, the corners of boxes, and sums of losses. Here these stay in float32.

    Args:
        model: with a ``network``; and with ``precision_modules``, where only parts of it change.
        precision: ``--trainer.precision``.

    Returns:
        The precision that is left to Lightning.
    """
    dtype = torch.float64 if str(precision) == "64" else TRUE_PRECISIONS.get(str(precision))  # Lightning's short name
    if dtype is None:
        return precision
    for module in getattr(model, "precision_modules", [model.network]):
        module.to(dtype)
    return "32-true"


def has_bfloat16(device: torch.device) -> bool:
    """Return whether convolutions in bfloat16 are fast on a device.

    On a CPU oneDNN has them for AVX-512, AMX and AVX-NE-CONVERT; without these, as on AVX2, torch 2.14.1 computes them
    by a loop that is several times slower than float32.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    needed = ("avx512_bw", "amx_bf16", "avx_ne_convert")
    return capabilities.get("architecture") != "x86_64" or any(capabilities.get(name) for name in needed)


def weights_dtype(network: nn.Module) -> torch.dtype:
    """Return the type of a network's weights, float32 if it has none."""
    return next((weights.dtype for weights in network.parameters()), torch.float32)


def at_least_float32(values: Tensor) -> Tensor:
    """Return values of half precision in float32, in which losses are computed."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def adam_eps(network: nn.Module) -> float:
    """Return the eps of Adam that the network's weights can hold."""
    return _LEAST if any(weights.dtype == torch.float16 for weights in network.parameters()) else 1e-8
