"""Weights that a network takes whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_SHOWN = 3  # of what does not fit


def load_weights(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a state dict of just the network's names and shapes; with any other the network stays as it is.

    ``load_state_dict`` says the same in hundreds of lines, after it has loaded what fits.

    Args:
        network: of whatever kind.
        weights: tensors by name, of any floating type: the network's own is kept.

    Raises:
        ValueError: in one line, what does not fit.

    Example:
        >>> from torch import nn
        >>> from ddfnet.loading import load_weights
        >>> load_weights(nn.Linear(2, 3), nn.Linear(2, 4).state_dict())
        Traceback (most recent call last):
        ValueError: the weights do not fit this Linear: weight must be (3, 2), got (4, 2); bias must be (3,), got (4,)
    """
    problems = list(_misfits(network.state_dict(), weights))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"the weights do not fit this {type(network).__name__}: {'; '.join(problems[:_SHOWN])}{more}")
    network.load_state_dict(weights)


def _misfits(expected: Mapping[str, Any], weights: Mapping[str, Any]) -> Iterator[str]:
    """What is of another shape, then what is missing, then what is unknown."""
    for name in expected:
        own, given = expected[name], weights.get(name)
        if name in weights and not isinstance(given, Tensor):
            yield f"{name} must be a tensor, got {type(given).__name__}"
        elif name in weights and given.shape != own.shape:  # type: ignore[union-attr]
            yield f"{name} must be {tuple(own.shape)}, got {tuple(given.shape)}"  # type: ignore[union-attr]
    yield from (f"{name} is missing" for name in expected if name not in weights)
    yield from (f"{name} is unknown" for name in weights if name not in expected)
