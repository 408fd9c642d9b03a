"""Starts of PyTorch's layers that are not PyTorch's own, kept for each ``reset_parameters``.

A network that is built without memory (``device="meta"``) gets its values by ``to_empty`` and then ``reset_parameters``
of each of its modules, in any order. What a module did to its layers in its constructor would be lost, or overwritten
by the layers themselves; so each layer has its start.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Start = Callable[[Any], Any]
"""Function that initialises a layer in-place. It can be pickled, as a function of a module or a partial of one."""

_Layer = TypeVar("_Layer", bound=nn.Module)


def with_start(layer: _Layer, start: Start) -> _Layer:
    """Initialize a layer by ``start``, now and after each ``reset_parameters``; return it."""
    keep_start(layer, start)
    start(layer)
    return layer


def keep_start(layer: nn.Module, start: Start) -> None:
    """Initialize a layer by ``start`` after each ``reset_parameters`` from now on, in place of a start it has."""
    layer.reset_parameters = _Reset(layer, start)  # type: ignore[assignment]


def has_start(layer: nn.Module) -> bool:
    """Return whether a layer has a start of its own."""
    return "reset_parameters" in layer.__dict__


class _Reset:
    """``reset_parameters`` of one layer: that of its class, then its start.

    A subclass would have it as a method, but other tools know PyTorch's layers by their exact class. The reference is
    weak, so that a network that is not used any more is freed at once.
    """

    def __init__(self, layer: nn.Module, start: Start) -> None:
        self.layer, self.start = weakref.ref(layer), start

    def __call__(self) -> None:
        layer: Any = self.layer()
        type(layer).reset_parameters(layer)
        self.start(layer)

    def __reduce__(self) -> Any:
        return _Reset, (self.layer(), self.start)  # a copy of the layer gets a reset of its own


# --- starts -------------------------------------------------------------------------------------------------------


def static(conv: nn.Conv2d, fill: Start) -> None:
    """Initialize a convolution to predict the same filters from any map: zeros in its weight.

    Args:
        conv: predicts the filters, with a bias.
        fill: fills the bias, (filters*K,), with the taps before they are normalised.
    """
    nn.init.zeros_(conv.weight)
    fill(conv.bias)


def no_filters(conv: nn.Conv2d) -> None:
    """Initialize a convolution without a bias to predict zeros."""
    nn.init.zeros_(conv.weight)


def scale(norm: nn.Module, value: float) -> None:
    """Initialize the weight of a batch norm with this value."""
    nn.init.constant_(norm.weight, value)  # type: ignore[arg-type]


def close(norm: nn.Module) -> None:
    """Initialize the scale of a `ddfnet.nn.FilterNorm` with zeros, so that its filters are zeros at first."""
    nn.init.zeros_(norm.scale)  # type: ignore[arg-type]


@torch.no_grad()
def fill(parameter: Tensor, values: Tensor) -> None:
    """Fill a parameter, which may be sharded over processes, with these values."""
    if hasattr(parameter, "placements"):
        from torch.distributed.tensor import distribute_tensor

        mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
        values = distribute_tensor(values.to(parameter.device), mesh, parameter.placements)
    parameter.copy_(values)
