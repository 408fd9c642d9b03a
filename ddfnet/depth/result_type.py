"""Number types of results: what a file gets, by its format and by the depth map's type."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ddfnet.depth import io
from ddfnet.depth.sizes import ROWS, tile_slices
from ddfnet.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = ("float32", "uint16", "same")
"""Types that can be asked for; "same" is the depth map's own."""

_EXACT = {"float64": 2**53, "float32": 2**24}  # integers below it are held exactly
_COARSE = 100  # a median depth below this many steps is coarser than 1 %


@dataclass(frozen=True)
class ResultType:
    """Number type of a result, and how the depth map becomes it.

    Attributes:
        dtype: NumPy's name of the type that is written.
        source: depth map, with the value that is declared to mean missing if the result's file declares it too.
        zero_is_depth: the depth map has zeros, and they do not mean missing.
    """

    dtype: str
    source: io.DepthMap
    zero_is_depth: bool

    @property
    def mark(self) -> float:
        """Value that means missing in the result."""
        if self.source.missing is not None:
            return self.source.missing
        return math.nan if self.dtype.startswith("float") else 0.0

    def prepare(self, depth: Array) -> Array:
        """Return the depth map as the depth tool takes it: integers as floats where it would round or mark them.

        In float32 where that is the result's type and holds them: the result is as large as the guide.
        """
        kept = self.dtype == depth.dtype.name and self.source.missing is None and not self.zero_is_depth
        if depth.dtype.kind == "f" or kept:
            return depth
        largest = max(-int(depth.min()), int(depth.max()))
        for name in dict.fromkeys((self.dtype, "float64")):
            if largest < _EXACT.get(name, 0):
                return depth.astype(name)
        return depth

    def convert(self, result: Array) -> Array:
        """Return a result of the depth tool in the type to write, integers rounded, but not to what means missing.

        A result of that type is written over: a second map of its size is memory that may not be there.

        Raises:
            UserError: depths that the type does not hold.
        """
        import numpy as np

        if result.dtype.kind in "iu" and result.dtype.name == self.dtype:
            return result
        converted = result if result.dtype.name == self.dtype else np.empty(result.shape, self.dtype)
        if not self.dtype.startswith("float"):
            self._check_range(result)
        for rows in tile_slices(len(result), ROWS):
            values = result[rows]
            missing = ~np.isfinite(values)
            if not self.dtype.startswith("float"):
                rounded = values.round()
                if self.mark == 0 and not self.zero_is_depth:
                    rounded = np.where(np.abs(values) < 1, np.where(values < 0, -1.0, 1.0), rounded)
                values = rounded
            if converted is not result:
                with np.errstate(invalid="ignore"):  # nan, which is replaced
                    converted[rows] = values
            if missing.any():  # a depth map that is its own result may not allow writing
                converted[rows][missing] = self.mark
        return converted

    def unmarked(self, converted: Array) -> Array:
        """Return a converted result with nan in place of a value that is declared to mean missing."""
        import numpy as np

        if self.source.missing is None or converted.dtype.kind != "f":
            return converted
        return np.where(converted == self.mark, np.array(np.nan, converted.dtype), converted)

    def notes(self, result: Array) -> list[str]:
        """Return what is lost in the type, for a result of the depth tool."""
        import numpy as np

        found = []
        unmarked = self.mark == 0 and self.zero_is_depth
        parts = (result[rows] for rows in tile_slices(len(result), ROWS))
        if unmarked and result.dtype.kind == "f" and not all(np.isfinite(part).all() for part in parts):
            found.append(f"missing pixels are 0 in {self.dtype}, as is the depth 0; give --fill, or write floats")
        return found

    def _check_range(self, result: Array) -> None:
        import numpy as np

        parts = (result[rows] for rows in tile_slices(len(result), ROWS))
        ends = [(valid.min(), valid.max()) for part in parts if (valid := part[np.isfinite(part)]).size]
        if not ends:
            return
        limits, least, most = np.iinfo(self.dtype), min(low for low, _ in ends), max(high for _, high in ends)
        if least < limits.min or most > limits.max:
            raise UserError(
                f"{self.dtype} holds {limits.min} to {limits.max}, depth is {least:g} to {most:g}; give --dtype float32"
            )


def result_type(found: io.DepthMap, output: Path, wanted: str | None, missing: tuple[float, ...]) -> ResultType:
    """Return the type of a result: floats where its format holds them, for a depth map of integers has their steps.

    Args:
        found: depth map.
        output: file that is written.
        wanted: one of `DTYPES`, or None.
        missing: values that mean missing in the depth map.

    Raises:
        DataError: the format does not hold the type.
        UserError: the type is too coarse for the depth map.
    """
    import numpy as np

    own, holds = found.values.dtype, io.format_of(output)
    if wanted not in (None, "same"):
        dtype = str(wanted)
    elif wanted == "same" or own.kind == "f":
        dtype = own.name
    else:
        exact = np.abs(found.values.astype(np.float64)).max() < _EXACT["float32"]
        order = ("float32", "float64") if exact else ("float64", "float32")
        dtype = next((name for name in order if name in holds.dtypes), own.name)
    io.check_holds(output, dtype)
    if dtype == "uint16" and own.kind == "f":
        valid = found.values[np.isfinite(found.values) & (found.values > 0)]
        if valid.size and (median := float(np.median(valid))) < _COARSE:
            raise UserError(
                f"whole numbers are too coarse for depth of {median:g} in the middle; write floats, or a depth map in "
                "a smaller unit, such as millimetres"
            )
    keeps = found.missing is not None and holds.declares_missing and holds.name == found.format
    if not keeps or not _holds(dtype, found.missing):
        found = replace(found, missing=None)
    return ResultType(dtype, found, 0 not in missing and bool((found.values == 0).any()))


def _holds(dtype: str, value: float | None) -> bool:
    import numpy as np

    if value is None or dtype.startswith("float"):
        return value is not None
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max
