"""Arguments that the operator and the layers share: what they accept, and what they say about what they do not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ddfnet.ops.shapes import output_size

Pair = int | tuple[int, int]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_COMBINE = ("mul", "add")
_MOST = 2**31 - 1  # sizes computed from it stay within 64 bits
_Result = TypeVar("_Result")


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """An int or (h, w) as (h, w), each of them at least ``least``."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or (h, w), got {value!r}")
    for v in values:
        if not isinstance(v, int | torch.SymInt) or isinstance(v, bool):
            raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
        if v < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
        if v > _MOST:
            raise ValueError(f"{name} must be at most {_MOST}, got {value!r}")
    return values[0], values[1]


def check_combine(combine: str) -> None:
    if combine not in _COMBINE:
        raise ValueError(f"combine must be 'mul' or 'add', got {combine!r}")


def odd_pair(name: str, value: Pair) -> tuple[int, int]:
    """A kernel's size as (h, w), for one whose middle tap is the pixel itself."""
    height, width = pair(name, value, 1)
    if height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"{name} must be odd, for its middle is the pixel, got {value}")
    return height, width


def default_padding(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """What keeps the size of an odd kernel at stride 1."""
    return (dilation[0] * (kernel[0] - 1)) // 2, (dilation[1] * (kernel[1] - 1)) // 2


def grid_size(
    size: Sequence[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """The number of filter positions each way, for a map that has room for one."""
    size = tuple(size)
    height, width = output_size(size, kernel, stride, padding, dilation)
    if size[0] < 1 or size[1] < 1 or height < 1 or width < 1:
        raise ValueError(
            f"the output would be empty: input is (H, W) = {size} and kernel_size={kernel} with dilation={dilation}, "
            f"padding={padding}, stride={stride} does not fit in it; use a larger map or more padding"
        )
    return height, width


def remember(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Keep what a pure function of shapes and options gave: the checks of a call are half of a small call's time.

    What cannot be hashed, as symbolic sizes and lists, is computed afresh; under torch.compile everything is.
    """
    cached = functools.lru_cache(1024, typed=True)(function)

    @functools.wraps(function)
    def call(*args: Any) -> _Result:
        if torch.compiler.is_compiling():
            return function(*args)
        for argument in args:
            # To a dictionary 2, 2.0 and True are one: within a tuple the types must be looked at.
            if type(argument) is tuple and any(type(value) is not int for value in argument):
                return function(*args)
        try:
            return cached(*args)
        except TypeError:
            pass  # not to be hashed, or wrong: computed afresh, and said again
        return function(*args)

    return call
