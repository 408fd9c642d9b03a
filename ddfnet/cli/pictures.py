"""Pictures as data URIs, which a page can hold inside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor

Points = Sequence[tuple[int, int]]
Pixels = np.ndarray[Any, Any]


def photograph(picture: Tensor, points: Points = (), scale: float = 1.0) -> str:
    """A picture (H, W, 3) or (H, W), from 0 to 1, with numbered points.

    The points are (y, x) in pixels of a map that is ``scale`` times smaller.
    """
    height, width = picture.shape[:2]
    figure = Figure(figsize=(4, 4 * height / width), dpi=128)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for number, (y, x) in enumerate(points, start=1):
        place = ((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5)
        axes.plot(*place, "o", markersize=5, markerfacecolor="white", markeredgecolor="black")
        axes.annotate(
            str(number),
            place,
            (-11 if place[0] > 0.8 * width else 11, -11 if place[1] < 0.2 * height else 11),  # towards the middle
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            color="black",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "black"},
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return _uri(buffer)


def heat(values: Tensor, highest: float) -> str:
    """A map (H, W) from 0, dark, to ``highest``, bright."""
    return _pixels(matplotlib.colormaps["magma"](np.clip(values.numpy() / highest, 0, 1)))


def colours(values: Tensor) -> str:
    """A map (H, W, 3), from 0 to 1, one pixel a pixel."""
    return _pixels(values.numpy())


def kernel(taps: Tensor, largest: float) -> str:
    """A kernel (kH, kW), one pixel a tap: blue for negative, white for zero, red for positive, full at ``largest``."""
    return _pixels(_diverging(taps, largest))


def kernels(taps: Tensor, largest: float) -> str:
    """Kernels (C, kH, kW) side by side, painted as `kernel` does, with a transparent column between them."""
    painted = _diverging(taps, largest)
    spaced = np.pad(painted, ((0, 0), (0, 0), (0, 1), (0, 0)))  # (C, kH, kW + 1, RGBA); zeros are transparent
    return _pixels(np.concatenate(list(spaced), axis=1)[:, :-1])


def _diverging(taps: Tensor, largest: float) -> Pixels:
    return matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * taps.numpy() / largest)


def _pixels(values: Pixels) -> str:
    buffer = io.BytesIO()
    imsave(buffer, values, format="png")
    return _uri(buffer)


def _uri(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
