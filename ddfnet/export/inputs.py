"""Inputs of a model at any size, and the axes of them that change with the size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

InputSize = tuple[int, int, int]  # batch, height, width
Inputs = Callable[[int, int, int], Mapping[str, Tensor]]
Axes = dict[str, list[int | str]]  # per tensor: lengths, or "batch", "height" or "width"


def images(channels: int = 3, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return the inputs of a network with one input map: normally distributed values, (N, channels, H, W).

    Example:
        >>> from ddfnet.export import images
        >>> images(3)(2, 64, 80)["input"].shape
        torch.Size([2, 3, 64, 80])
    """
    return lambda batch, height, width: {"input": torch.randn(batch, channels, height, width).to(dtype)}


def images_like(tensor: Tensor) -> Inputs:
    """Return the inputs with the channels and the dtype of a tensor (N, C, H, W), which stands for them all."""
    if tensor.dim() != 4:
        raise ValueError(
            f"inputs must be (N, C, H, W) where they are a tensor, got {tuple(tensor.shape)}; give a function of "
            "batch, height and width for other inputs"
        )
    return images(tensor.shape[1], tensor.dtype)


def sample_inputs(inputs: Inputs, size: InputSize, seed: int = 0) -> dict[str, Tensor]:
    """Return the inputs of a size, the same ones in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = inputs(*size)
    if not isinstance(made, Mapping):
        raise TypeError(f"inputs must give tensors by names, got {type(made).__name__}")
    for name, value in made.items():
        if not isinstance(value, Tensor) or not str(name).isidentifier():
            raise TypeError(f"inputs must give tensors by names, got {type(value).__name__} by {name!r}")
    return dict(made)


def dynamic_axes(inputs: Inputs, size: InputSize, step: int) -> Axes:
    """Find the axes that change with batch, height or width by changing each; the others have their lengths."""
    named: Axes = {name: list(value.shape) for name, value in sample_inputs(inputs, size).items()}
    for index, variable in enumerate(("batch", "height", "width")):
        other = list(size)
        other[index] += 1 if index == 0 else 12 * step  # enough to change a rounded fraction of it too
        for name, value in sample_inputs(inputs, (other[0], other[1], other[2])).items():
            for axis, (before, after) in enumerate(zip(named[name], value.shape, strict=True)):
                if before != after and isinstance(before, int):
                    named[name][axis] = variable
    return named


def rename_symbols(length: Any, symbols: Mapping[str, str]) -> int | str:
    """Return the length of an axis of a traced program in terms of our names: ``s53//2`` as ``height//2``."""
    if isinstance(length, int):
        return length
    return re.sub(r"\b\w+\b", lambda symbol: symbols.get(symbol[0], symbol[0]), str(length))


def other_sizes(size: InputSize, step: int = 1) -> list[InputSize]:
    """Return three sizes besides the traced one: a single sample, about half the height and width, and transposed."""
    batch, height, width = size

    def half(side: int) -> int:
        return max(1, math.ceil(side / 2 / step)) * step

    return [
        (1, height + step, width + 2 * step),
        (batch + 1, half(height) + step, half(width)),
        (batch, width + step, height),
    ]


class CopiedInputs(nn.Module):
    """Model that first copies its inputs, of any strides, to contiguous memory.

    A compiler drops ``contiguous()`` where the example is contiguous, and compiles ``clone()`` for its strides.
    ``_reshape_copy`` it calls as it is, with the tensor as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(*(torch.ops.aten._reshape_copy(each, each.shape) for each in inputs))


class FlatOutputs(nn.Module):
    """Model whose outputs are a tuple of tensors, however nested those of the given model are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten_outputs(self.model(*inputs)).values())


def flatten_outputs(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors among a model's outputs by their names there.

    Raises:
        TypeError: outputs that are neither a tensor nor tuples, lists or dictionaries of tensors.
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
        for inner, tensor in flatten_outputs(value).items():
            found[name if isinstance(value, Tensor) else f"{name}_{inner}"] = tensor
    return found
