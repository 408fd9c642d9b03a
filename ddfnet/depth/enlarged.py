"""Depth maps that were enlarged by nearest neighbour before: their blocks found, and the samples taken back.

Such a map has the image's size and few samples: every pixel of a block repeats one. To a network its steps are edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_LEAST_RATIO = 1.25  # pixels per sample; below it most samples are one pixel, and little was enlarged
_FEWEST = 4  # samples along an axis
_SEEN = 0.75  # share of the borders between samples at which values must change, for else a few edges could be all


@dataclass(frozen=True)
class Blocks:
    """Samples of an enlarged map: one row and one column of each block.

    Attributes:
        rows: a row in the middle of each block, (h,), int.
        columns: likewise, (w,).
        size: (H, W) of the enlarged map.
    """

    rows: Array
    columns: Array
    size: tuple[int, int]

    @property
    def samples(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def __str__(self) -> str:
        y, x = (pixels / samples for pixels, samples in zip(self.size, self.samples, strict=True))
        return f"{self.samples[1]} x {self.samples[0]} samples, each {x:.4g} x {y:.4g} pixels"

    def take(self, values: Array) -> Array:
        """Return the samples (h, w) of a map (H, W)."""
        return values[self.rows[:, None], self.columns]


def even_blocks(size: tuple[int, int], ratio: float) -> Blocks:
    """Return blocks of a known size, for maps whose blocks lie on no grid.

    RealSense's align, for example, paints each sample as a rectangle where its own depth puts it.

    Args:
        size: (H, W).
        ratio: pixels per sample, at least 1.

    Example:
        >>> str(even_blocks((720, 1280), 2.5))
        '512 x 288 samples, each 2.5 x 2.5 pixels'
    """
    import numpy as np

    counts = [max(1, round(pixels / ratio)) for pixels in size]
    rows, columns = (
        ((np.arange(count) + 0.5) * (pixels / count)).astype(np.int64)
        for count, pixels in zip(counts, size, strict=True)
    )
    return Blocks(rows, columns, size)


def find_blocks(depth: Array) -> Blocks | None:
    """Find the blocks of a map that was enlarged by nearest neighbour, by any ratio, a different one per axis perhaps.

    Rows within a block are equal, and so are columns. The grid must be that of a resizing: sample i of n begins where
    ``floor(x*n/N)``, or ``floor((x + 0.5)*n/N)`` as Pillow has it, becomes i; a map with equal rows by chance has none.

    Args:
        depth: (H, W), real; what is missing, nan too, repeats like a depth.

    Returns:
        The blocks; None where there are none along both axes.

    Example:
        >>> import numpy as np
        >>> small = np.random.default_rng(0).random((6, 8))
        >>> found = find_blocks(np.kron(small, np.ones((4, 4))))
        >>> str(found), bool((found.take(np.kron(small, np.ones((4, 4)))) == small).all())
        ('8 x 6 samples, each 4 x 4 pixels', True)
    """
    import numpy as np

    bits = np.ascontiguousarray(depth)
    if depth.dtype.kind == "f":
        bits = bits.view(f"u{depth.dtype.itemsize}")  # nan is equal to nan then
    rows = _block_middles((bits[1:] != bits[:-1]).any(1))
    if rows is None:
        return None
    columns = _block_middles((bits[:, 1:] != bits[:, :-1]).any(0))
    return None if columns is None else Blocks(rows, columns, (depth.shape[0], depth.shape[1]))


def _block_middles(changes: Array) -> Array | None:
    """Return the middle of each block along one axis, of the fewest blocks that explain where values change.

    Args:
        changes: (N - 1,), bool: whether a pixel differs from the next one.
    """
    import numpy as np

    pixels, changed = len(changes) + 1, np.flatnonzero(changes) + 1
    most = min(int(pixels / _LEAST_RATIO), int(len(changed) / _SEEN) + 1)
    for samples in range(max(len(changed) + 1, _FEWEST), most + 1):
        for shift in (0, samples):  # 0.5 pixel, in 2 * samples parts of one
            position = 2 * np.arange(samples + 1) * pixels - shift
            starts = -(-position // (2 * samples))
            # A border on a pixel itself falls to either side by the rounding of whoever enlarged the map.
            late = (position % (2 * samples) == 0) & np.isin(starts + 1, changed) & ~np.isin(starts, changed)
            starts += late
            starts[0], starts[-1] = 0, pixels
            if np.isin(changed, starts[1:-1]).all():
                middles: Array = (starts[:-1] + starts[1:] - 1) // 2
                return middles
    return None
