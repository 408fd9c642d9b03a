"""Values written as bytes, some rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.sizes import ROWS, tile_slices

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def write_rows(stream: BinaryIO, values: Array, dtype: str) -> None:
    """Write values (h, w) from top to bottom in a type with its byte order, without a second map of their size."""
    for rows in tile_slices(len(values), ROWS):
        stream.write(values[rows].astype(dtype).tobytes())
