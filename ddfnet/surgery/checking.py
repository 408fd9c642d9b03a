"""What surgery asks of any model, and of any layer that it takes out."""

from __future__ import annotations

from typing import Any

from torch import nn


def check_model(model: Any, name: str = "model") -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(model).__name__}")


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of it runs code beside its own, as that of ``torch.nn.utils.prune`` is, too."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
