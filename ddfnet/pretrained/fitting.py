"""Weights and the network that they are for: its size while it is built, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Weights = Mapping[str, Tensor]  # a state dict

_SHOWN = 3  # misfits that an error names
_FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_RANDOM = (
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.uniform_,
)
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class Budget(TorchFunctionMode):
    """Context in which a network is built that is not much larger than a file's weights.

    The first call of torch that goes beyond the budget raises a ValueError, before any memory is taken. A constructor
    may make layers that it replaces later, so that the budget has room for them. Parameters begin as zeros instead of
    random numbers.

    Args:
        weights: weights of the file.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.calls = 1000 + 100 * len(weights)
        self.elements = 2**24 + 16 * sum(value.numel() for value in weights.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = kwargs or {}
        self.calls -= 1
        if func in _FACTORIES:
            self.elements -= _elements(*args, **arguments)
        if self.calls < 0 or self.elements < 0:
            raise ValueError("its options must be those of its weights, got such as are of a far larger network")
        if func in _RANDOM and isinstance(drawn := args[0] if args else arguments["tensor"], nn.Parameter):
            drawn.detach().zero_()  # the file's weights will be there; random numbers took half of the time
            return drawn
        return func(*args, **arguments)


def _elements(*sizes: Any, size: Any = (), **_: Any) -> int:
    """Return the number of elements that a call of one of `_FACTORIES` asks for."""
    count = 1
    for each in size or (sizes[0] if hasattr(next(iter(sizes), 0), "__iter__") else sizes):
        count *= int(each)
    return count


def load_state_dict_checked(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a state dict that fits the network exactly; with any other the network stays as it is.

    ``load_state_dict`` reports misfits in hundreds of lines, after it has loaded whatever fits.

    Args:
        network: network of any kind.
        weights: tensors by name, of any floating type: the network keeps its own.

    Raises:
        ValueError: the weights do not fit; one line says where: other names or shapes, another kind of numbers than the
            network's own, or numbers that are nan or inf where the network itself has others.

    Example:
        >>> from torch import nn
        >>> from ddfnet.pretrained import load_state_dict_checked
        >>> load_state_dict_checked(nn.Linear(2, 3), nn.Linear(2, 4).state_dict())
        Traceback (most recent call last):
        ValueError: the weights do not fit this Linear: weight must be (3, 2), got (4, 2); bias must be (3,), got (4,)
    """
    expected = network.state_dict()
    misfits = list(_misfits(expected, weights)) or list(_wrong_values(expected, weights))
    if misfits:
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ValueError(f"the weights do not fit this {type(network).__name__}: {'; '.join(misfits[:_SHOWN])}{more}")
    network.load_state_dict(weights)


def _misfits(expected: Mapping[str, Any], weights: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weights of another shape or type, then the missing ones, then the unknown ones."""
    for name in expected:
        own, given = expected[name], weights.get(name)
        if name not in weights:
            continue
        if not isinstance(given, Tensor):
            yield f"{name} must be a tensor, got {type(given).__name__}"
        elif given.layout != torch.strided or given.is_meta:
            yield f"{name} must be a dense tensor, got {'one without values' if given.is_meta else given.layout}"
        elif given.shape != own.shape:
            yield f"{name} must be {tuple(own.shape)}, got {tuple(given.shape)}"
        elif not _same_numbers(own.dtype, given.dtype):
            yield f"{name} must be {_numbers(own.dtype)}, got {given.dtype}"
    yield from (f"{name} is missing" for name in expected if name not in weights)
    yield from (f"{name} is unknown" for name in weights if name not in expected)


def _same_numbers(own: torch.dtype, given: torch.dtype) -> bool:
    """Return whether a type holds the same kind of numbers as the network's own."""
    return _numbers(own) == _numbers(given)


def _numbers(dtype: torch.dtype) -> str:
    """Return the kind of numbers of a type, or the type itself where it is neither floating nor an integer."""
    if dtype in _FLOATING:
        return "floating, of 16 to 64 bits"
    return "of integers" if dtype in _INTEGERS else str(dtype)


def _wrong_values(expected: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    """Yield the weights that a network cannot compute with.

    Half types may not hold what a wider one does, so that the values are looked at in the network's own type.
    """
    for name, own in expected.items():
        if own.dtype not in _FLOATING or own.is_meta:
            continue
        given = weights[name].detach().to(own.dtype)
        if given.sum(dtype=torch.promote_types(own.dtype, torch.float32)).isfinite():  # one pass, for nearly all
            wrong = 0
        else:  # a network's own mask may be -inf
            same = given == own.to(given.device)
            wrong = int((~given.isfinite() & ~same).sum())
        if wrong:
            yield f"{name} must be finite, got nan or inf in {wrong} of {given.numel()} values"
        elif name.rpartition(".")[2] == "running_var" and given.numel() and given.min() < 0:
            yield f"{name} must not be negative, for it is a variance, got {given.min().item():g}"
