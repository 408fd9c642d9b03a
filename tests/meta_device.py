"""Modules without memory that get their values module by module, as sharded trainings do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def reset_from_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module on the meta device, fill its memory with NaN, and reset each of its modules, parents first."""
    with torch.device("meta"):
        module = build()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
    torch.manual_seed(0)
    for each in module.modules():
        reset: Any = getattr(each, "reset_parameters", None)
        if reset is not None:
            reset()
    return module


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all parameters and buffers by name, those too that a state dict has not."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def check_reset(build: Callable[[], nn.Module]) -> None:
    """Check that a reset draws the same values as the constructor, bit by bit."""
    torch.manual_seed(0)
    expected, result = tensors(build()), tensors(reset_from_meta(build))
    assert result.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(result[name], expected[name])] == []


def check_reset_statistics(build: Callable[[], nn.Module]) -> None:
    """Check that a reset draws from the constructor's distributions, where it draws in another order."""
    torch.manual_seed(0)
    expected, result = tensors(build()), tensors(reset_from_meta(build))
    assert result.keys() == expected.keys()
    for name, own in expected.items():
        if (own == own.flatten()[0]).all():
            assert torch.equal(result[name], own), name
        else:
            deviation, error = own.std(), 6 / own.numel() ** 0.5
            assert abs(result[name].std() / deviation - 1) < error, name
            assert abs(result[name].mean() - own.mean()) < error * deviation, name
