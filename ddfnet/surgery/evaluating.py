"""Run a model to see what it does, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[ExitStack]:
    """Evaluation mode without gradients inside a ``with`` block, whose exit stack takes what must end with it too."""
    training = {module: module.training for module in model.modules()}
    try:
        with ExitStack() as stack, torch.no_grad():
            model.eval()
            yield stack
    finally:
        for module, was_training in training.items():
            module.training = was_training
