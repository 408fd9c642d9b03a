"""Calls of functions that a tracer records whole, such as ``torch.fx``, whose stand-ins of tensors have no sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

_Function = TypeVar("_Function", bound=Callable[..., Any])


def is_recorded(*values: Any) -> bool:
    """Return whether a value stands for a tensor: it is none, and takes calls with it for itself.

    Python calls this protocol ``__torch_function__``. The proxies of ``torch.fx`` have it; a subclass of Tensor, which
    has it too, is a tensor.
    """
    return any(not isinstance(value, Tensor) and has_torch_function_unary(value) for value in values)


def record_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Record a call of a function, some of whose arguments `is_recorded`, as one node, and return what stands for it.

    Example:
        >>> import torch, ddfnet
        >>> traced = torch.fx.symbolic_trace(lambda x: ddfnet.ddf(x, x[..., :3, :3], None))
        >>> [node.name for node in traced.graph.nodes]
        ['x', 'getitem', 'ddf', 'output']
    """
    return handle_torch_function(function, (*args, *kwargs.values()), *args, **kwargs)


def recordable(function: _Function) -> _Function:
    """Decorate a function whose code depends on sizes: a tracer records its call, and the node runs all of it.

    A trace is then valid for all sizes, and raises the same errors. Functions that are called too often for a decorator
    call `record_call` themselves.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        if has_torch_function(values) and is_recorded(*values):
            return record_call(call, *args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
