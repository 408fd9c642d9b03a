"""What a model is given at any size, and which axes of that change with the size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Size = tuple[int, int, int]  # batch, height, width
Inputs = Callable[[int, int, int], Mapping[str, Tensor]]
Axes = dict[str, list[int | str]]  # of each tensor: lengths, or "batch", "height" or "width"


def images(channels: int = 3, dtype: torch.dtype = torch.float32) -> Inputs:
    """The inputs of a network that is shown one map: drawn from a normal distribution, (N, channels, H, W).

    Example:
        >>> from ddfnet.export import images
        >>> images(3)(2, 64, 80)["input"].shape
        torch.Size([2, 3, 64, 80])
    """
    return lambda batch, height, width: {"input": torch.randn(batch, channels, height, width).to(dtype)}


def like(tensor: Tensor) -> Inputs:
    """The same for a tensor (N, C, H, W) that stands for them all, with its channels and dtype."""
    if tensor.dim() != 4:
        raise ValueError(
            f"inputs must be (N, C, H, W) where they are a tensor, got {tuple(tensor.shape)}; give a function of "
            "batch, height and width for other inputs"
        )
    return images(tensor.shape[1], tensor.dtype)


def drawn(inputs: Inputs, size: Size, seed: int = 0) -> dict[str, Tensor]:
    """The inputs at this size, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = inputs(*size)
    if not isinstance(made, Mapping):
        raise TypeError(f"inputs must give tensors by names, got {type(made).__name__}")
    for name, value in made.items():
        if not isinstance(value, Tensor) or not str(name).isidentifier():
            raise TypeError(f"inputs must give tensors by names, got {type(value).__name__} by {name!r}")
    return dict(made)


def axes(inputs: Inputs, size: Size, step: int) -> Axes:
    """Which axes of the inputs change with batch, height or width, found by changing each: their lengths or that."""
    named: Axes = {name: list(value.shape) for name, value in drawn(inputs, size).items()}
    for index, variable in enumerate(("batch", "height", "width")):
        other = list(size)
        other[index] += 1 if index == 0 else 12 * step  # so much that a rounded share of it changes too
        for name, value in drawn(inputs, (other[0], other[1], other[2])).items():
            for axis, (before, after) in enumerate(zip(named[name], value.shape, strict=True)):
                if before != after and isinstance(before, int):
                    named[name][axis] = variable
    return named


def renamed(length: Any, symbols: Mapping[str, str]) -> int | str:
    """An axis of a traced program by the names of the axes: ``s53//2`` as ``height//2``."""
    if isinstance(length, int):
        return length
    return re.sub(r"\b\w+\b", lambda symbol: symbols.get(symbol[0], symbol[0]), str(length))


def other_sizes(size: Size, step: int = 1) -> list[Size]:
    """Three sizes besides the traced one: of one sample, of about half the sides, and on its side."""
    batch, height, width = size

    def half(side: int) -> int:
        return max(1, math.ceil(side / 2 / step)) * step

    return [
        (1, height + step, width + 2 * step),
        (batch + 1, half(height) + step, half(width)),
        (batch, width + step, height),
    ]


class Flat(nn.Module):
    """A model whose outputs, in whatever they come, are a tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten(self.model(*inputs)).values())


def flatten(outputs: Any) -> dict[str, Tensor]:
    """The tensors among a model's outputs, by the names that they have there.

    Raises:
        TypeError: outputs that are neither a tensor nor tuples, lists or dictionaries of them.
    """
    if isinstance(outputs, Tensor):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        parts = [(str(name), value) for name, value in outputs.items()]
    elif isinstance(outputs, tuple | list):
        fields = getattr(outputs, "_fields", range(len(outputs)))
        parts = [(str(name), value) for name, value in zip(fields, outputs, strict=True)]
    else:
        raise TypeError(f"the model must give tensors, or tuples or dictionaries of them, got {type(outputs).__name__}")
    found: dict[str, Tensor] = {}
    for name, value in parts:
        name = name if name.isidentifier() else f"output_{name}"
        for inner, tensor in flatten(value).items():
            found[name if isinstance(value, Tensor) else f"{name}_{inner}"] = tensor
    return found
