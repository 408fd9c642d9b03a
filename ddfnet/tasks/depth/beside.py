"""Functions of anybody's Python file as methods: ``ddfnet evaluate depth --beside FILE.py:FUNCTION``."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfnet.errors import DataError, UserError
from ddfnet.reading import one_line
from ddfnet.tasks.depth.baselines import Method

_FAILURES = (Exception, SystemExit)  # a script may end the process; Ctrl-C still does


def load(names: Sequence[str]) -> dict[str, Method]:
    """Return functions of files as methods, by the names that they are given by.

    The files are run, each once. Their folders join ``sys.path``, so that they can import their neighbours.

    Args:
        names: FILE.py:FUNCTION each; see `as_method` for what a function is given and returns.

    Raises:
        UserError: a name of another form or given twice; the file is missing or fails; there is no such function in it.
    """
    methods: dict[str, Method] = {}
    modules: dict[Path, ModuleType] = {}
    for name in names:
        path, _, attribute = name.rpartition(":")
        if not path.endswith(".py") or not attribute.isidentifier():
            raise UserError(f"--beside must be FILE.py:FUNCTION, got {name!r}")
        if name in methods:
            raise UserError(f"--beside {name} is given twice; give it once")
        file = Path(path).resolve()
        if file not in modules:
            modules[file] = _run(file, name, f"_beside_{len(modules)}")
        function = getattr(modules[file], attribute, None)
        if not callable(function):
            got = f"it is a {type(function).__name__}" if hasattr(modules[file], attribute) else "there is none"
            raise UserError(f"--beside {name}: a function {attribute} is required in {path}, {got}")
        methods[name] = as_method(function)
    return methods


def as_method(function: Callable[..., Any]) -> Method:
    """Return a function of NumPy arrays as a method.

    Args:
        function: is called as ``function(low, guide, factor)``: the small map (h, w), float32, 0 where its depth is
            missing; the image (H, W, 3), uint8, RGB; and the whole number of pixels per sample. If it has parameters of
            these names, it is also given ``offset``, the pixel of sample 0 along both axes, and ``valid`` (h, w), bool.
            It may change its arrays. It returns the depth (H, W) in the unit of the small map, a real number
            everywhere.

    Returns:
        The method. It raises a `DataError` where the function fails or returns something else.

    Example:
        >>> def repeat(low, guide, factor):
        ...     return low.repeat(factor, 0).repeat(factor, 1)
        >>> low, image = torch.ones(2, 3), torch.zeros(3, 8, 12, dtype=torch.uint8)
        >>> as_method(repeat)(low, low > 0, image, factor=4, offset=1.5).shape
        torch.Size([8, 12])
    """
    accepted = _parameters(function)

    def method(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        # Copies: what one function does to its arrays must not reach the next.
        more = {"offset": offset, "valid": low_valid.numpy().copy()}
        arrays = low.numpy().copy(), np.ascontiguousarray(guide.permute(1, 2, 0).numpy()).copy()
        try:
            with torch.inference_mode(False):  # as in a program of its own, which may train
                result = function(*arrays, factor, **{name: more[name] for name in accepted & more.keys()})
        except _FAILURES as error:
            raise DataError(_failure(error)) from None
        return _checked(result, (guide.shape[1], guide.shape[2]))

    return method


def _run(file: Path, name: str, module_name: str) -> ModuleType:
    if not file.is_file():
        raise UserError(f"--beside {name}: {file}: no such file")
    sys.path.insert(0, str(file.parent))
    spec = spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = sys.modules[module_name] = module_from_spec(spec)  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except _FAILURES as error:
        raise UserError(f"--beside {name}: {_failure(error)}") from None
    return module


def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # unknown for some functions in C
        return frozenset()


def _checked(result: Any, size: tuple[int, int]) -> Tensor:
    if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiu":
        got = f"an array of {result.dtype}" if isinstance(result, np.ndarray) else f"a {type(result).__name__}"
        raise DataError(f"a NumPy array of real numbers must be returned, got {got}")
    if result.shape != size:
        raise DataError(f"an array {size} must be returned, got {result.shape}")
    with np.errstate(over="ignore"):
        depth = result.astype(np.float32)
    if missing := int((~np.isfinite(depth)).sum()):
        raise DataError(f"a depth must be returned for every pixel, got nan or inf at {missing}")
    return torch.from_numpy(depth)


def _failure(error: Exception | SystemExit) -> str:
    """Return what was raised, and the last line of Python that led to it."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without our own, and without those of an import
    frames = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {one_line(error)}{place}"
