"""Typed arguments of the operator: geometry, combine mode, and the checks that every backend shares."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Pair = int | tuple[int, int]
Shape = Sequence[int]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_LARGEST = 2**31 - 1  # products of two such numbers stay within 64 bits
_Result = TypeVar("_Result")


class Combine(str, enum.Enum):
    """Combination of a tap of the channel filter and a tap of the spatial filter into one weight.

    A member is also its name: it compares and hashes as the string that the operator's schema takes.

    Example:
        >>> from ddfnet.ops.geometry import Combine
        >>> Combine("mul")(3.0, 4.0), Combine("add")(3.0, 4.0)
        (12.0, 7.0)
        >>> Combine("mul").identity
        1.0
    """

    mul = "mul"
    add = "add"

    @classmethod
    def _missing_(cls, value: object) -> Combine:
        raise ValueError(f"combine must be {' or '.join(repr(each.value) for each in cls)}, got {value!r}")

    @property
    def identity(self) -> float:
        """Tap that leaves the other filter's tap unchanged; a missing filter consists of it."""
        return 1.0 if self is Combine.mul else 0.0

    @property
    def is_bilinear(self) -> bool:
        """True if the derivative with respect to one filter contains the other filter."""
        return self is Combine.mul

    def __call__(self, channel: Any, spatial: Any) -> Any:
        """Return the weight of two taps, numbers or tensors."""
        return channel * spatial if self is Combine.mul else channel + spatial

    __str__ = str.__str__
    __repr__ = str.__repr__


class Geometry(NamedTuple):
    """All arguments of the operator besides its tensors, in the schema's order."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    upscale: tuple[int, int] = (1, 1)
    combine: Combine = Combine.mul

    def flat(self) -> tuple[Any, ...]:
        """Return the arguments as the registered operator takes them: five pairs and a word.

        The word is a plain str: a subclass costs the dispatcher 2 us more, for it looks up ``__torch_function__``.
        """
        kernel_size, stride, padding, dilation, upscale, combine = self
        return kernel_size, stride, padding, dilation, upscale, combine._value_

    @classmethod
    def from_flat(cls, *flat: Any) -> Geometry:
        """Return the geometry of what `flat` returns, where the dispatcher made lists of the pairs."""
        pairs: Any = map(tuple, flat[:-1])
        return cls._make((*pairs, Combine(flat[-1])))

    # Methods, not properties: Dynamo of torch 2.10 cannot compute with the properties of a named tuple.
    def taps(self) -> int:
        """Return the number of taps of a filter, kH*kW."""
        return self.kernel_size[0] * self.kernel_size[1]

    def subpixels(self) -> int:
        """Return the number of filters, and of output pixels, per filter position."""
        return self.upscale[0] * self.upscale[1]

    def positions(self, size: Shape) -> tuple[int, int]:
        """Return the number of filter positions, rows and columns, on a map of ``size`` (H, W)."""
        return conv_output_size(size, self.kernel_size, self.stride, self.padding, self.dilation)

    def output_size(self, size: Shape) -> tuple[int, int]:
        """Return the output's (H, W) for an input of ``size`` (H, W)."""
        rows, columns = self.positions(size)
        return rows * self.upscale[0], columns * self.upscale[1]

    def heads(self, spatial_filter: Tensor | None) -> int:
        """Return the number of heads of a spatial filter; 1 without one."""
        return 1 if spatial_filter is None else spatial_filter.shape[1] // (self.subpixels() * self.taps())


# --- pairs and sizes ------------------------------------------------------------------------------------------------


def pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """Return an int or (h, w) as (h, w). An int is whatever counts as one, such as numpy's, except a bool.

    Raises:
        ValueError: not two values, or one below ``least`` or above 2**31 - 1.
        TypeError: a value that is not an int.
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an int or (h, w), got {value!r}")
    if not (type(values[0]) is int and type(values[1]) is int):
        values = tuple(map(_as_int, values))
        if None in values:
            raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    for v in values:
        if v < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
        if v > _LARGEST:
            raise ValueError(f"{name} must be at most {_LARGEST}, got {value!r}")
    return values[0], values[1]


def _as_int(value: Any) -> Any:
    """Return the int that a value is, None if it is none. A symbolic one stays symbolic."""
    if isinstance(value, torch.SymInt):
        return value
    if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def odd_pair(name: str, value: Pair) -> tuple[int, int]:
    """Return a kernel size as (h, w), where the middle tap must lie on a pixel.

    Raises:
        ValueError: an even number; whatever `pair` refuses.
    """
    height, width = pair(name, value, 1)
    if height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"{name} must be odd, for its middle is the pixel, got {value}")
    return height, width


def default_padding(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the padding that keeps the size of the map for an odd kernel at stride 1.

    Raises:
        ValueError: one above 2**31 - 1.
    """
    padding = (dilation[0] * (kernel_size[0] - 1)) // 2, (dilation[1] * (kernel_size[1] - 1)) // 2
    if padding[0] > _LARGEST or padding[1] > _LARGEST:
        raise ValueError(
            f"(dilation*(kernel_size - 1))//2, the padding where none is given, must be at most {_LARGEST}, got "
            f"{padding} for dilation={tuple(dilation)} and kernel_size={tuple(kernel_size)}; use smaller ones"
        )
    return padding


def conv_output_size(
    size: Shape, kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> tuple[int, int]:
    """Return conv2d's output size, ``floor((size + 2*padding - dilation*(kernel_size-1) - 1) / stride) + 1``.

    Raises:
        ValueError: an empty input, or a kernel that does not fit into it.
    """
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation, strict=True)
    )
    if size[0] < 1 or size[1] < 1 or height < 1 or width < 1:
        raise ValueError(
            f"the output would be empty: input is (H, W) = {tuple(size)} and kernel_size={tuple(kernel_size)} with "
            f"dilation={tuple(dilation)}, padding={tuple(padding)}, stride={tuple(stride)} does not fit in it; use a "
            f"larger map or more padding"
        )
    return height, width


# --- caching --------------------------------------------------------------------------------------------------------


def cache_static_args(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Cache a pure function of shapes and options: checking a call takes half of the time of a small call.

    Arguments that cannot be hashed, such as symbolic sizes and lists, are computed afresh, and so is everything under
    ``torch.compile``.
    """
    cached = functools.lru_cache(1024, typed=True)(function)

    @functools.wraps(function)
    def call(*args: Any) -> _Result:
        if torch.compiler.is_compiling():
            return function(*args)
        for argument in args:
            # A dictionary takes 2, 2.0 and True for one key: the types inside a tuple must be looked at.
            if type(argument) is tuple and any(type(value) is not int for value in argument):
                return function(*args)
        try:
            return cached(*args)
        except TypeError:
            pass  # an argument that cannot be hashed, or a wrong one: the call below raises its error again
        return function(*args)

    return call


# --- tensors --------------------------------------------------------------------------------------------------------


def is_channels_last(input: Tensor) -> bool:
    """Return whether the result of an operator on this input is channels_last.

    A tensor with one channel or of one pixel has both formats at once. Like every tensor that is not dense, it counts
    as contiguous.
    """
    return input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()


def empty_output(input: Tensor, size: Shape) -> Tensor:
    """Return an uninitialised result of this size in the input's dtype, device and memory format."""
    memory_format = torch.channels_last if is_channels_last(input) else torch.contiguous_format
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format)


def empty_result(input: Tensor, geometry: Geometry) -> Tensor:
    """Return the operator's result for this input, uninitialised."""
    return empty_output(input, (*input.shape[:2], *geometry.output_size(input.shape[2:])))


def empty_gradients(tensors: Sequence[Tensor | None], mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return an uninitialised gradient for each tensor that is there and wanted, else None."""
    return tuple(
        empty_output(tensor, tensor.shape) if wanted and tensor is not None else None
        for tensor, wanted in zip(tensors, mask, strict=True)
    )


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which taps are combined and summed: float32 for half types, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
