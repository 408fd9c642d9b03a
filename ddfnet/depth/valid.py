"""Valid depth: the decision about which samples of a depth map count, in one function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Map = TypeVar("Map", Tensor, np.ndarray[Any, Any])

MISSING = (0.0,)  # the values that mean "no depth" to sensors and file formats alike, besides nan and inf


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


def _is_finite(depth: Any) -> Any:
    if hasattr(depth, "isfinite"):  # a tensor; torch itself need not be imported for arrays
        return depth.isfinite()
    import numpy as np

    return np.isfinite(depth)
