"""Flying pixels: values in the empty space between two surfaces, a veil where a map becomes a point cloud."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 5  # pixels a side
GAP = 0.02  # of the scene's true range: from here on two neighbouring values are two surfaces
MARGIN = 0.1  # of the gap: so near to a surface a value still belongs to it


@dataclass(frozen=True)
class Flying:
    """Counts of a picture: scored pixels, those of them near a depth edge, and those of these that fly."""

    pixels: int
    near_edges: int
    flying: int

    @property
    def share(self) -> float:
        """Of all scored pixels, 0 to 1."""
        return self.flying / self.pixels if self.pixels else 0.0

    @property
    def share_near_edges(self) -> float:
        """Of the scored pixels near depth edges, 0 to 1; 0 where there are none."""
        return self.flying / self.near_edges if self.near_edges else 0.0


class FlyingPixels:
    """Counts a scene's flying pixels; prepared once for all the predictions of that scene.

    Sort the valid true values in a pixel's 5x5 window. Where two that follow each other are further apart than ``GAP``
    (2 %) of the scene's true range, they belong to two surfaces, and the pixel is *near a depth edge*. Its prediction p
    *flies* if it lies between two such values a < p < b, clear of both: p - a and b - p above ``MARGIN`` (10 %) of
    b - a. The truth at that pixel, itself in the window, is on one of the surfaces. A value outside the window's range,
    or on the wrong surface, is an error but does not fly; a slanted surface is no edge unless it is so steep that it
    jumps by a gap from pixel to pixel.

    Args:
        depth: the true map (H, W), any unit.
        valid: (H, W), bool: where it is known; other pixels are neither counted nor looked at.
        scored: (H, W), bool: which pixels are counted; only those that are valid.

    Example:
        >>> truth = torch.ones(7, 8)
        >>> truth[:, 4:] = 2.0
        >>> blurred = truth.clone()
        >>> blurred[:, 3] = 1.5
        >>> everywhere = torch.ones(7, 8, dtype=torch.bool)
        >>> FlyingPixels(truth, everywhere, everywhere)(blurred)
        Flying(pixels=56, near_edges=28, flying=7)
    """

    def __init__(self, depth: Tensor, valid: Tensor, scored: Tensor) -> None:
        scored = scored & valid
        self.pixels = int(scored.sum())
        known = depth[valid]
        self.gap = GAP * (known.max() - known.min()).item() if known.numel() else 0.0
        low, high = (_window_maximum(torch.where(valid, sign * depth, -torch.inf)) for sign in (-1, 1))
        # A gap needs a range: most pixels are told by it, and only the others' windows are sorted.
        rows, columns = (scored & (low + high > self.gap)).nonzero(as_tuple=True)
        values = _windows(depth, rows, columns, torch.inf).masked_fill(
            ~_windows(valid, rows, columns, False), torch.inf
        )
        values = values.sort(dim=1).values
        steps = values.diff(dim=1)  # inf behind the last valid value, nan behind that
        edge = ((steps > self.gap) & steps.isfinite()).any(dim=1)
        self.rows, self.columns, self.values = rows[edge], columns[edge], values[edge]

    def __call__(self, prediction: Tensor) -> Flying:
        """Count the flying pixels of a prediction (H, W)."""
        value = prediction[self.rows, self.columns].to(self.values.dtype)[:, None]
        behind = torch.where(self.values <= value, self.values, -torch.inf).amax(dim=1)
        before = torch.where(self.values >= value, self.values, torch.inf).amin(dim=1)
        gap, value = before - behind, value[:, 0]
        flies = (gap > self.gap) & gap.isfinite() & (torch.minimum(value - behind, before - value) > MARGIN * gap)
        return Flying(self.pixels, len(self.rows), int(flies.sum()))


def _window_maximum(values: Tensor) -> Tensor:
    return functional.max_pool2d(values[None, None], WINDOW, stride=1, padding=WINDOW // 2)[0, 0]


def _windows(map: Tensor, rows: Tensor, columns: Tensor, outside: float | bool) -> Tensor:
    """The windows around some pixels, (n, WINDOW * WINDOW)."""
    reach = WINDOW // 2
    padded = functional.pad(map, (reach, reach, reach, reach), value=outside)
    steps = torch.arange(WINDOW, device=map.device)
    return padded[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps].flatten(1)
