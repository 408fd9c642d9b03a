"""Choice of the kernel that serves a call: automatic or by name, with a reason.

PyTorch's dispatcher calls the kernel of the tensors' device. The compiled library registers its kernels for the CPU.
`register_kernel` registers a Python kernel for every other device, which asks `kernels` for Triton's or the reference.
While the choice in force is not the compiled kernel, the Python kernel is registered for the CPU as well, in front of
it. With several threads it stays there and calls the compiled kernel, some microseconds slower.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

import torch

from ddfnet.ops.library import NAMESPACE

# In order of preference. Each module has ``can_run(device) -> (bool, reason)``, ``ddf`` and ``ddf_backward``. They are
# imported on first use: Triton is no condition for ``import ddfnet``.
_MODULES = {
    "cpu": "ddfnet.ops.library",
    "triton": "ddfnet.ops.triton",
    "reference": "ddfnet.ops.reference",
}
NAMES = ("auto", *_MODULES)

_ENVIRONMENT_VARIABLE = "DDFNET_BACKEND"
_lock = threading.RLock()  # held where the choice changes, and where it is looked up for the first time
_choices: list[list[str]] = []  # one of each ``with backend(...)`` that was not yet left, the last one in force
_serving: dict[torch.device, ModuleType] = {}  # under the choice in force, cleared with it
_warned: set[str] = set()  # device types that the reference serves and a warning named
_kernels: dict[str, Callable[..., Any]] = {}  # the Python kernel of each operator
_compiled = False  # True where the compiled kernel serves the CPU under the choice in force
_override: torch.library.Library | None = None  # holds the Python kernels before the compiled ones, while it exists
_overridden: set[str] = set()  # the operators whose Python kernel it holds


class BackendError(NotImplementedError, ValueError):
    """Choice of a backend that is none, or that cannot serve a device: `ddfnet` answers it in one line."""


def _check(name: str, source: str) -> str:
    if name not in NAMES:
        raise BackendError(f"{source} must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return name


def backend(name: str) -> AbstractContextManager[None]:
    """Choose the kernels of ``ddf`` and ``ddf_upsample`` inside a ``with`` block.

    The choice holds for the whole process, compiled graphs, backward passes and other threads included, and takes
    precedence over the environment variable ``DDFNET_BACKEND``, which is read when ddfnet is imported. Of several
    blocks the one that was entered last and not yet left holds, whichever threads they are in. A backend that is chosen
    by name never falls back: a call that it cannot serve raises. A call of another thread is served by the choice
    before or by the one after. The first choice of the reference or of Triton exchanges kernels in PyTorch's
    dispatcher, which is not made for that while another thread calls them: make it before such threads start.

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
    choice = [name]  # a list of its own: blocks of other threads may be entered and left in between
    with _lock:
        _choices.append(choice)
        refresh()
    try:
        yield
    finally:
        with _lock:
            _choices[:] = [other for other in _choices if other is not choice]
            refresh()


def chosen() -> str:
    """Return the name in force: that of the last ``with backend(...)``, else ``DDFNET_BACKEND``, else "auto"."""
    choices = _choices[-1:]  # a copy: another thread may leave its block
    if choices:
        return choices[0][0]
    return _check(os.environ.get(_ENVIRONMENT_VARIABLE) or "auto", _ENVIRONMENT_VARIABLE)


def can_run(name: str, device: torch.device) -> tuple[bool, str]:
    """Return whether this backend can serve this device, and why (not)."""
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        return False, f"{error.name or error} is not installed"
    ok, reason = module.can_run(device)
    return ok, reason


def resolve(device: torch.device) -> tuple[str, str]:
    """Return the backend that serves this device now, and why it and no faster one.

    Raises:
        NotImplementedError: if a backend chosen by name cannot serve the device.
    """
    name = chosen()
    if name != "auto":
        ok, reason = can_run(name, device)
        if not ok:
            raise BackendError(
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


# --- registration ---------------------------------------------------------------------------------------------------


def register_kernel(operator: str, kernel: Callable[..., Any]) -> None:
    """Register the Python kernel of an operator of the namespace ``ddfnet``, which takes what its schema says."""
    for key in ("CUDA", "XPU", "CompositeExplicitAutograd"):
        NAMESPACE.impl(operator, kernel, key)
    _kernels[operator] = kernel
    refresh()


def refresh() -> None:
    """Register what the choice in force asks for; to be called where that has changed."""
    global _compiled, _override
    with _lock:
        _serving.clear()
        _compiled = _compiled_kernel_serves()
        if _compiled and _only_one_thread():
            _override = None  # its registrations end with it
            _overridden.clear()
        if _compiled:
            return
        if _override is None:
            _override = torch.library.Library("ddfnet", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*[Oo]verrid", UserWarning)  # from older torch, at each registration
            for operator, kernel in _kernels.items():
                if operator not in _overridden:
                    _override.impl(operator, kernel, "CPU")
                    _overridden.add(operator)


def _only_one_thread() -> bool:
    """Return whether no thread of Python can be in a call: PyTorch's dispatcher frees a kernel even while it runs."""
    return threading.active_count() == 1


def _compiled_kernel_serves() -> bool:
    try:
        name = chosen()
    except ValueError:
        return False  # the Python kernel raises it again, at the call
    return name in ("auto", "cpu") and can_run("cpu", torch.device("cpu"))[0]


def is_compiled(device: torch.device) -> bool:
    """Return whether the compiled kernel serves this device now."""
    return device.type == "cpu" and _compiled


def kernels(device: torch.device) -> ModuleType:
    """Return the module whose ``ddf`` and ``ddf_backward`` serve this device, where the Python kernel was called.

    It warns once where the automatic choice is the reference.

    Raises:
        NotImplementedError: if a backend chosen by name cannot serve the device.
    """
    module = _serving.get(device)
    return _look_up(device) if module is None else module


def _look_up(device: torch.device) -> ModuleType:
    with _lock:  # so that the choice cannot change between the answer and its entry
        name, reason = resolve(device)
        if name == "reference" and chosen() == "auto" and device.type not in _warned:
            _warned.add(device.type)
            warnings.warn(
                f"ddfnet uses its PyTorch reference on {device.type}, which is slower than a kernel ({reason})",
                stacklevel=3,
            )
        module = _serving[device] = importlib.import_module(_MODULES[name])
        return module
