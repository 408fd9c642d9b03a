"""Limits on what a file may claim, checked before anything is allocated by its claims."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from ddfnet.errors import DataError

_INFLATE_RATIO = 1033  # deflate makes at most 1032 bytes of one
_PIECE = 1 << 20


def pixel_limit() -> int | None:
    """Return Pillow's limit, which users of Pillow can change, for the formats that Pillow does not read."""
    from PIL import Image

    return Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS


def map_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the size (h, w) of an array that holds one map; axes of length 1 before or behind are dropped.

    Raises:
        DataError: an array of another kind, or one of more pixels than `pixel_limit`.

    Example:
        >>> map_shape((1, 4, 5)), map_shape((4, 5, 1)), map_shape((1, 1, 4, 5)), map_shape((1, 5))
        ((4, 5), (4, 5), (4, 5), (1, 5))
    """
    axes = list(shape)
    while len(axes) > 2 and axes[0] == 1:
        del axes[0]
    while len(axes) > 2 and axes[-1] == 1:
        del axes[-1]
    if len(axes) != 2 or min(axes) < 1:
        raise DataError(f"a depth map must be an array (height, width), got {tuple(shape)}")
    if (limit := pixel_limit()) and axes[0] * axes[1] > limit:
        raise DataError(f"says that it has {axes[0]} x {axes[1]} pixels, more than the limit of {limit}")
    return axes[0], axes[1]


def check_inflated(parts: Iterable[bytes], size: int) -> None:
    """Refuse deflated data that becomes larger than a file claims: its library allocates whatever comes out.

    Args:
        parts: the deflated parts of a file, one at a time.
        size: bytes that each may become.

    Raises:
        DataError: one becomes larger.
    """
    for part in parts:
        if len(part) * _INFLATE_RATIO <= size:
            continue
        decoder, total = zlib.decompressobj(), 0
        while part and not decoder.eof:
            total += len(decoder.decompress(part, _PIECE))
            if total > size:
                raise DataError(f"its compressed values are of more than the {size} bytes that it claims")
            part = decoder.unconsumed_tail
