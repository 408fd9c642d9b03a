"""Images as data URIs for a self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Points = Sequence[tuple[int, int]]
Boxes = Sequence[tuple[int, int, int, int]]
Pixels = np.ndarray[Any, Any]


def photograph(image: Tensor, points: Points = (), scale: float = 1.0) -> str:
    """Draw numbered points on an image (H, W, 3) or (H, W), 0 to 1.

    The points are (y, x) in pixels of a map that is ``scale`` times smaller.
    """
    height, width = image.shape[:2]
    figure = Figure(figsize=(4, 4 * height / width), dpi=128)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for number, (y, x) in enumerate(points, start=1):
        place = ((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5)
        axes.plot(*place, "o", markersize=5, markerfacecolor="white", markeredgecolor="black")
        axes.annotate(
            str(number),
            place,
            (-11 if place[0] > 0.8 * width else 11, -11 if place[1] < 0.2 * height else 11),  # towards the centre
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
    """Draw a map (H, W) from 0, dark, to ``highest``, bright."""
    return _pixels(matplotlib.colormaps["magma"](np.clip(values.numpy() / highest, 0, 1)))


def colours(values: Tensor) -> str:
    """Draw colours (H, W, 3), 0 to 1."""
    return _pixels(values.numpy())


def kernel(taps: Tensor, largest: float) -> str:
    """Draw a kernel (kH, kW), one pixel per tap: blue negative, white zero, red positive, full at ``largest``."""
    return _pixels(_diverging(taps, largest))


def kernels(taps: Tensor, largest: float) -> str:
    """Draw kernels (C, kH, kW) side by side, like `kernel`, with a transparent column between them."""
    painted = _diverging(taps, largest)
    spaced = np.pad(painted, ((0, 0), (0, 0), (0, 1), (0, 0)))  # (C, kH, kW + 1, RGBA); zeros are transparent
    return _pixels(np.concatenate(list(spaced), axis=1)[:, :-1])


def boxed(pixels: Pixels, boxes: Boxes) -> str:
    """Draw numbered boxes (top, left, height, width) on a photograph (H, W, 3), uint8."""
    image = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    for number, (top, left, height, width) in enumerate(boxes, start=1):
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline="black", width=4)
        draw.rectangle((left + 1, top + 1, left + width - 2, top + height - 2), outline="white", width=2)
        draw.rectangle((left, top, left + 21, top + 25), fill="white", outline="black")
        draw.text((left + 11, top + 13), str(number), "black", font, anchor="mm")
    return _jpeg(image)


def jpeg(pixels: Pixels) -> str:
    """Encode a photograph (H, W, 3), uint8, as JPEG without chroma subsampling: a third of PNG."""
    return _jpeg(Image.fromarray(pixels))


def png(pixels: Pixels) -> str:
    """Encode an image (H, W, 3), uint8, as PNG."""
    return _png(Image.fromarray(pixels))


def mapped(values: Tensor, low: float, high: float, colours: str, missing: Tensor, grey: int) -> str:
    """Draw a map (H, W) from ``low`` to ``high`` in a colour map of matplotlib's; grey where ``missing`` is True."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    image = Image.fromarray((1 + 254 * share).round().masked_fill(missing, 0).to(torch.uint8).numpy())
    ramp = matplotlib.colormaps[colours](np.linspace(0, 1, 255), bytes=True)[:, :3]
    image.putpalette(bytes([grey] * 3) + ramp.tobytes())
    return _png(image)


def ramp(colours: str) -> str:
    """Draw the colours of `mapped`, from low to high."""
    steps = torch.linspace(0, 1, 255)[None]
    return mapped(steps, 0, 1, colours, torch.zeros_like(steps, dtype=torch.bool), 0)


def _diverging(taps: Tensor, largest: float) -> Pixels:
    return matplotlib.colormaps["RdBu_r"](0.5 + 0.5 * taps.numpy() / largest)


def _pixels(values: Pixels) -> str:
    buffer = io.BytesIO()
    imsave(buffer, values, format="png")
    return _uri(buffer)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return _uri(buffer)


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=90, subsampling=0)
    return _uri(buffer, "jpeg")


def _uri(buffer: io.BytesIO, format: str = "png") -> str:
    return f"data:image/{format};base64," + base64.b64encode(buffer.getvalue()).decode()
