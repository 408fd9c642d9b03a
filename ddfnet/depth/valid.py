"""Valid depth: which samples of a map count, the values in files that mean missing, those that seem to, and fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ddfnet.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, np.dtype[Any]]
    Map = TypeVar("Map", Tensor, np.ndarray[Any, Any])

MISSING = (0.0,)  # the values that mean "no depth" to sensors and file formats alike, besides nan and inf

FILLS = ("guided", "nearest", "none")
"""Ways to fill what is missing, see `ddfnet.upsample_depth`."""

_SENTINELS = (1e10, 65535.0)  # Blender's sky, and what sensors of 16 bits write where they saw nothing
_RARE = 0.01  # share of the pixels below which a largest value is an ordinary depth, if others are near it
_FAR = 1000  # times the median


def valid_depth(depth: Map, valid: Map | None = None, *, missing: Sequence[float] | None = None) -> Map:
    """Return where a depth map holds a depth.

    A sample is valid where it is finite, is none of ``missing``, and ``valid`` says so. A mask that is given decides
    alone: to it 0 can be a depth, as it is the farthest point of an inverse depth.

    Args:
        depth: array or tensor of any shape, any real dtype and unit.
        valid: mask of that shape, bool; None where every sample may count.
        missing: values that mean "no depth". None: 0, or with a mask no value. With ``(0, 65535)`` that one as well;
            with ``()`` 0 is a depth like any other.

    Returns:
        Of depth's shape, bool, array or tensor as ``depth`` is.

    Example:
        >>> import torch
        >>> valid_depth(torch.tensor([1.5, 0.0, float("inf"), 9.0]), missing=(0, 9))
        tensor([ True, False, False, False])
    """
    found: Any = _is_finite(depth)
    if valid is not None:
        found = found & valid
    if missing is None:
        missing = MISSING if valid is None else ()
    for value in missing:
        found = found & (depth != value)
    return found  # type: ignore[no-any-return]


def missing_values(
    *, invalid: Sequence[float] = (), zero: str | None = None, declared: float | None = None
) -> tuple[float, ...]:
    """Return the values that mean missing in a depth map, besides nan and inf.

    Args:
        invalid: values that the user named. They replace the default, 0, as a file's own declaration does.
        zero: ``"valid"`` where 0 is a depth all the same, ``"missing"`` where it is none, None where the others decide.
        declared: value that the file itself declares, such as GeoTIFF's nodata. It always means missing.

    Example:
        >>> missing_values(), missing_values(invalid=[65535]), missing_values(declared=-9999.0, zero="missing")
        ((0.0,), (65535,), (-9999.0, 0.0))
    """
    values = tuple(invalid) or (MISSING if declared is None else ())
    if declared is not None and declared not in values:
        values = (*values, declared)
    if zero == "valid":
        return tuple(value for value in values if value != 0)
    return (*values, 0.0) if zero == "missing" and 0 not in values else values


def seeming(depth: Array, valid: Array, missing: Sequence[float]) -> list[str]:
    """Return notes on values that count as depths and seem to mean missing.

    That is a largest value which is 1e10, 65535 or the largest of its type, and which many pixels have or which is far
    from all others; and any that are more than 1000 times the median.

    Args:
        depth: (h, w).
        valid: (h, w), bool.
        missing: values that mean missing already.
    """
    import numpy as np

    values = depth[valid]
    if not values.size:
        return []
    top = values.max()
    others = values[values < top]
    if not others.size:
        return []
    share = (values.size - others.size) / depth.size
    options = invalid_options(depth, top, missing)
    largest = np.finfo(depth.dtype).max if depth.dtype.kind == "f" else np.iinfo(depth.dtype).max
    if float(top) in _SENTINELS or top == largest:
        if share < _RARE and others.max() > top / 2:
            return []
        kind = "the largest value of its type" if top == largest else "which often means missing"
        return [f"{_text(top)}, {kind}, counts as a depth in {share:.1%} of the pixels; if it is none, give {options}"]
    median = float(np.median(others))
    far = (values.astype(np.float64) > _FAR * median).mean() * values.size / depth.size if median > 0 else 0.0
    if not far:
        return []
    start = f"{far:.2%} of the pixels are more than {_FAR} times as far as the median, {median:g}, up to {_text(top)}"
    return [f"{start}; if they are no depths, give {options}, or a --mask"]


def invalid_options(depth: Array, value: Any, missing: Sequence[float]) -> str:
    """Return the options that add a value to those that mean missing: one alone would replace 0."""
    named = [each for each in missing if (depth == each).any() and each != value]
    return " ".join(f"--invalid {_text(each)}" for each in (*named, value))


def check_negative(path: Path, depth: Array, valid: Array, missing: Sequence[float]) -> None:
    """Refuse depth below 0, which is a distance nowhere, and heights only where the file says what is missing.

    Raises:
        UserError: there is some, and the mend.
    """
    if (negative := depth[valid & (depth < 0)]).size:
        least = negative.min()
        raise UserError(
            f"{path}: depth must not be negative, {negative.size} pixels are, down to {_text(least)}; give "
            f"{invalid_options(depth, least, missing)} if that means missing, or a --mask"
        )


def _is_finite(depth: Any) -> Any:
    if hasattr(depth, "isfinite"):  # a tensor; torch itself need not be imported for arrays
        return depth.isfinite()
    import numpy as np

    return np.isfinite(depth)


def _text(value: Any) -> str:
    """Return a number as it would be typed."""
    number = float(value)
    if number.is_integer() and abs(number) < 1e9:
        return f"{number:.0f}"
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
