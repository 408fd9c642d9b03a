"""Checks of models and layers, and runs that leave a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ddfnet.nn.layer_op import is_hooked


def check_model(model: Any, name: str = "model") -> None:
    """Raise TypeError unless it is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}")


def replaced_method(module: nn.Module) -> str | None:
    """Return the name of a method that the instance has in the place of its class's, as offloading sets ``forward``."""
    names = (name for name in vars(module) if name != "reset_parameters")  # no call needs it
    return next((name for name in names if callable(getattr(type(module), name, None))), None)


def alteration(layer: nn.Module) -> str | None:
    """Return what makes a call of the layer another than that of its class with its weights, and the mend, or None."""
    if is_hooked(layer):
        return "it has hooks, as a pruned layer does, which would be lost: remove them"
    if is_parametrized(layer):
        return "it is parametrised, and computes its weights anew: torch.nn.utils.parametrize.remove_parametrizations"
    if method := replaced_method(layer):
        return f"its {method} was replaced on the instance, and may compute something else: del layer.{method}"
    return None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[ExitStack]:
    """Enter evaluation mode without gradients; the exit stack closes with it, and random numbers are as before."""
    training = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        with ExitStack() as stack, torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield stack
    finally:
        for module, was_training in training.items():
            module.training = was_training
