"""Which kernel serves a call: the automatic choice, the user's choice, and the reasons."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import torch

# In order of preference. Each module has ``can_run(device) -> (bool, reason)``, ``ddf`` and ``ddf_backward``; it is
# imported on first use, so that what it needs (a compiled library, Triton) is no condition for ``import ddfnet``.
_MODULES = {
    "cpu": "ddfnet.ops.cpu",
    "triton": "ddfnet.ops.triton",
    "reference": "ddfnet.ops.reference",
}
NAMES = ("auto", *_MODULES)

_ENVIRONMENT_VARIABLE = "DDFNET_BACKEND"
_chosen: str | None = None  # by the innermost ``with backend(...)``; for the whole process, like torch.backends' flags
_serving: dict[torch.device, ModuleType] = {}  # under the choice in force; forgotten with it
_warned: set[str] = set()  # types of device that were said to be served by the reference


def _check(name: str, source: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{source} must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return name


def backend(name: str) -> AbstractContextManager[None]:
    """Choose the kernels of ``ddf`` and ``ddf_upsample`` inside a ``with`` block.

    The choice holds for the whole process, compiled graphs and backward passes included, and goes before the
    environment variable ``DDFNET_BACKEND``, which is read when a device is first served. A backend that is chosen by
    name never falls back: a call that it cannot serve raises.

    Args:
        name: ``"auto"`` (the fastest that can serve the device), ``"cpu"`` (the compiled kernel), ``"triton"`` or
            ``"reference"`` (pure PyTorch, on any device).

    Returns:
        A context manager.

    Raises:
        ValueError: at this call, if the name is none of those.

    Example:
        >>> import torch, ddfnet
        >>> x, c = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 3, 3)
        >>> with ddfnet.ops.backend("reference"):
        ...     y = ddfnet.ddf(x, c, None)
    """
    return _choose(_check(name, "backend"))


@contextmanager
def _choose(name: str) -> Iterator[None]:
    global _chosen
    before, _chosen = _chosen, name
    _serving.clear()
    try:
        yield
    finally:
        _chosen = before
        _serving.clear()


def chosen() -> str:
    """The name in force: that of the innermost ``with backend(...)``, else ``DDFNET_BACKEND``, else "auto"."""
    if _chosen is not None:
        return _chosen
    return _check(os.environ.get(_ENVIRONMENT_VARIABLE) or "auto", _ENVIRONMENT_VARIABLE)


def can_run(name: str, device: torch.device) -> tuple[bool, str]:
    """Whether this backend can serve this device, and why (not)."""
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        return False, f"{error.name or error} is not installed"
    ok, reason = module.can_run(device)
    return ok, reason


def resolve(device: torch.device) -> tuple[str, str]:
    """The backend that serves this device now, and why it and no faster one.

    Raises:
        NotImplementedError: if a backend chosen by name cannot serve the device.
    """
    name = chosen()
    if name != "auto":
        ok, reason = can_run(name, device)
        if not ok:
            raise NotImplementedError(
                f"the backend {name!r} was asked for and cannot serve a tensor on {device}: {reason}. "
                f'Use backend("auto"), or see `ddfnet env`'
            )
        return name, reason
    refusals: list[str] = []
    for name in _MODULES:
        ok, reason = can_run(name, device)
        if ok:
            return name, "; ".join(refusals) or reason
        refusals.append(f"{name}: {reason}")
    raise AssertionError("the reference serves every device")


def kernels(device: torch.device) -> ModuleType:
    """The module whose ``ddf`` and ``ddf_backward`` serve this device; says once when that is the reference."""
    module = _serving.get(device)
    if module is None:
        name, reason = resolve(device)
        if name == "reference" and chosen() == "auto" and device.type not in _warned:
            _warned.add(device.type)
            warnings.warn(
                f"ddfnet uses its PyTorch reference on {device.type}, which is slower than a kernel ({reason})",
                stacklevel=2,
            )
        module = _serving[device] = importlib.import_module(_MODULES[name])
    return module
