"""Orientation of a guide whose EXIF data says to turn it: as it is stored, or upright.

Viewers turn a photograph by its EXIF data, but a sensor, or a network that got the stored pixels, leaves its depth map
as it is. The aspect ratio tells to which of the two the depth map belongs; where both have the same, the edges do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.depth.sizes import shows_same_view
from ddfnet.images import DECODERS, stored_orientation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

ORIENTATIONS = ("stored", "upright")

_HEIF = "HEIF"  # known to Pillow once pillow-heif is registered, as reading such a guide does
_SIDE = 160  # samples along the longer side at most, for edges are compared coarsely: the views need not fit to a pixel
_STEEPEST = 0.05  # share of the depth map's jumps that count as its edges
_OTHERS = 0.5  # share of the smallest jumps, which count as none
_FEWEST = 20  # edges
# Chosen on mirrored pairs of Middlebury, NYU and sensors: strict, for a question costs less than a wrong guide.
_AGREES, _MARGIN = 0.6, 0.1


def exif_orientation(path: Path) -> int:
    """Return EXIF's orientation of an image, from 1 to 8; 1, which is upright, where a file says none."""
    from PIL import Image

    try:
        with Image.open(path, formats=[*DECODERS, *({_HEIF} & Image.OPEN.keys())]) as image:
            return stored_orientation(image)
    except Exception:  # a broken file is reported by its reader
        return 1


def as_stored(upright: Array, orientation: int) -> Array:
    """Return an image as its file has it, from what viewers show.

    Args:
        upright: (H, W, ...).
        orientation: EXIF's, from 1 to 8.

    Returns:
        (H, W, ...), or (W, H, ...) for 5 to 8.

    Example:
        >>> import numpy as np
        >>> as_stored(np.array([[1, 2], [3, 4], [5, 6]]), 6).tolist()  # viewers turn it to the right
        [[2, 4, 6], [1, 3, 5]]
    """
    import numpy as np

    if orientation > 4:
        upright = upright.swapaxes(0, 1)
    rows, columns = (slice(None, None, -1 if orientation in flipped else 1) for flipped in ((3, 4, 6, 7), (2, 3, 7, 8)))
    return np.ascontiguousarray(upright[rows, columns])


def choose_orientation(upright: Array, orientation: int, depth: Array, valid: Array) -> tuple[Array, str]:
    """Choose the turned or the stored image as the guide, by the aspect ratio of the depth map, else by its edges.

    Args:
        upright: (H, W, 3), uint8, turned as its EXIF data says.
        orientation: EXIF's, from 2 to 8.
        depth: (h, w), real.
        valid: (h, w), bool.

    Returns:
        The guide and a note. Where both fit and the edges do not tell, the stored image, since the pixels of a depth
        map lie as its camera has stored them; the note asks then.
    """
    images = {"stored": as_stored(upright, orientation), "upright": upright}
    fitting = [name for name in ORIENTATIONS if shows_same_view(images[name].shape, depth.shape)]
    words = {"stored": "as stored", "upright": "as turned by its EXIF data"}
    if len(fitting) == 1:
        [taken] = fitting
        why = "only that has the depth map's aspect ratio"
    elif not fitting:
        taken, why = "upright", "neither has the depth map's aspect ratio"
    else:
        scores = {name: edge_agreement(depth, valid, images[name]) for name in ORIENTATIONS}
        taken = max(ORIENTATIONS, key=scores.__getitem__)
        if scores[taken] < _AGREES or scores[taken] - min(scores.values()) < _MARGIN:
            taken, why = "stored", "the edges do not tell; look at the result"
        else:
            why = "its edges are the depth map's"
    other = next(name for name in ORIENTATIONS if name != taken)
    return images[taken], f"the guide is taken {words[taken]}, {why}; --orientation {other} for the other"


def edge_agreement(depth: Array, valid: Array, guide: Array) -> float:
    r"""Return how surely the image has edges where the depth map has.

    .. math:: P(e_p > e_q) + P(e_p = e_q) / 2

    for the image's edge strength e, a pixel p at an edge of the depth map and a pixel q at none: 0.5 for images of
    something else, 1 for the same edges.

    Args:
        depth: (h, w), real.
        valid: (h, w), bool.
        guide: (H, W, 3), uint8, of the same aspect ratio.
    """
    import numpy as np
    from PIL import Image

    step = -(-max(depth.shape) // _SIDE)
    depth, valid = (values[step // 2 :: step, step // 2 :: step] for values in (depth, valid))
    if valid.sum() < 2 * _FEWEST:
        return 0.5
    # Samples, not averages: an average of both sides would be a depth of its own.
    jumps = _jumps(np.where(valid, depth, 0).astype(np.float64)[..., None], valid)
    edges = valid & (jumps > max(np.quantile(jumps[valid], 1 - _STEEPEST), 0))
    others = valid & (jumps <= np.quantile(jumps[valid], _OTHERS))
    if min(edges.sum(), others.sum()) < _FEWEST:
        return 0.5
    small = Image.fromarray(guide).resize(depth.shape[::-1], Image.Resampling.BOX)
    strength = _widen(_jumps(np.asarray(small, np.float64), np.ones_like(valid)))
    ordered = np.sort(strength[others])
    below, above = (np.searchsorted(ordered, strength[edges], side) for side in ("left", "right"))
    return float((below + above).mean() / (2 * len(ordered)))


def _jumps(values: Array, valid: Array) -> Array:
    """Return the largest difference (h, w) of each pixel of (h, w, C) to its valid neighbours along y and x."""
    import numpy as np

    found = np.zeros(values.shape[:2])
    for before, behind in _neighbours():
        jump = np.abs(values[behind] - values[before]).sum(2) * (valid[behind] & valid[before])
        for side in (before, behind):
            found[side] = np.maximum(found[side], jump)
    return found


def _widen(values: Array) -> Array:
    """Return the maximum of the 3x3 around each, since views that fit to a pixel are rare."""
    import numpy as np

    for before, behind in _neighbours():
        wider = values.copy()
        wider[before] = np.maximum(wider[before], values[behind])
        wider[behind] = np.maximum(wider[behind], values[before])
        values = wider
    return values


def _neighbours() -> Sequence[tuple[Any, Any]]:
    """Return the two sides of each pair of neighbours, along y and along x."""
    first, second = slice(None, -1), slice(1, None)
    return ((first,), (second,)), ((slice(None), first), (slice(None), second))
