"""Checks of models and layers, and runs that leave a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


def check_model(model: Any, name: str = "model") -> None:
    """Raise TypeError unless it is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}")


def is_hooked(module: nn.Module) -> bool:
    """Return whether a call of the module runs hooks, as those of ``torch.nn.utils.prune`` are, too."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[ExitStack]:
    """Enter evaluation mode without gradients; the exit stack closes with it."""
    training = {module: module.training for module in model.modules()}
    try:
        with ExitStack() as stack, torch.no_grad():
            model.eval()
            yield stack
    finally:
        for module, was_training in training.items():
            module.training = was_training
