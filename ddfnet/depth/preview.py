"""Preview of a result of `ddfnet upsample`: guide, input, bilinear and ours, as maps and as points from the side."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddfnet.depth.point_view import Limits, point_views
from ddfnet.depth.sizes import ROWS, tile_slices
from ddfnet.depth.valid import valid_depth

Array = np.ndarray[Any, np.dtype[Any]]

_PANEL = 760  # longer side of a panel, at most
_GAP, _CAPTION, _LEGEND = 14, 34, 760
_INK, _PAPER, _MISSING = (30, 30, 34), (255, 255, 255), (150, 150, 150)
# matplotlib's viridis (CC0) from far to near, so that matplotlib is not needed for it.
_FAR = ((68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140))
_NEAR = ((40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37))
_COLOURS = (*_FAR, *_NEAR)
_HINT = "From the side: points that hang in the air between two surfaces are flying pixels."


def preview(
    depth: Array, valid: Array, guide: Array, bilinear: Array, ours: Array, *, nearer: str = "small"
) -> Image.Image:
    """Draw the maps beside each other in the same colours, and bilinear and ours as points seen from a slant.

    Args:
        depth: the input (h, w), any real dtype.
        valid: (h, w), bool: where the input is valid.
        guide: (H, W, 3), uint8.
        bilinear: aligned bilinear interpolation of the input, (H, W) or at its `shown_pixels`; 0, nan and inf are
            missing.
        ours: the result (H, W); 0, nan and inf are missing.
        nearer: "small" where small values are near, as for depth; "large" for disparities.

    Returns:
        An image of two rows and three columns.

    Example:
        >>> low, guide = np.arange(1, 13).reshape(3, 4), np.zeros((30, 40, 3), np.uint8)
        >>> large = np.kron(low, np.ones((10, 10)))
        >>> preview(low, low > 0, guide, large, large).mode
        'RGB'
    """
    used = depth[valid].astype(np.float64)
    limits = (float(np.percentile(used, 1)), float(np.percentile(used, 99)))
    height, width = _panel_size(guide.shape[:2])
    # Maps are sampled, not averaged: an average would itself make flying pixels, or hide them.
    shown = [_sample(values, (height, width)) for values in (np.where(valid, depth, 0), bilinear, ours)]
    small_guide = _resize(guide, (height, width))
    maps = [_colorize(values, limits, nearer) for values in shown]
    points = point_views(shown[1:], small_guide, limits=limits, nearer=nearer)
    sizes = [f"{shape[1]} x {shape[0]}" for shape in (guide.shape, depth.shape)]
    rows = [
        [(f"guide, {sizes[0]}", small_guide), ("bilinear", maps[1]), ("bilinear, from the side", points[0])],
        [(f"input, {sizes[1]}", maps[0]), ("ddfnet", maps[2]), ("ddfnet, from the side", points[1])],
    ]
    return _compose(rows, (height, width), limits, nearer)


def _panel_size(size: tuple[int, ...]) -> tuple[int, int]:
    scale = _PANEL / max(size)
    scale = int(scale) if scale >= 1 else scale  # enlarged, each pixel is a square of the same size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shown_pixels(size: tuple[int, int]) -> tuple[Array, Array]:
    """Return the rows and the columns of a map (H, W) that the preview shows."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
        for new, old in zip(_panel_size(size), size, strict=True)
    )
    return rows, columns


def _resize(guide: Array, panel: tuple[int, int]) -> Array:
    """Return the guide (h, w, 3), its columns resampled some rows at a time: Pillow copies what it is given."""
    height, width = panel
    method = _filter(guide.shape[:2], panel)
    parts = (Image.fromarray(guide[rows]) for rows in tile_slices(len(guide), ROWS))
    narrow = np.concatenate([np.asarray(part.resize((width, part.height), method)) for part in parts])
    return np.asarray(Image.fromarray(narrow).resize((width, height), method))


def _filter(size: tuple[int, ...], panel: tuple[int, int]) -> Image.Resampling:
    return Image.Resampling.NEAREST if panel[0] >= size[0] else Image.Resampling.LANCZOS


def _sample(values: Array, size: tuple[int, int]) -> Array:
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64) for new, old in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def _colorize(values: Array, limits: Limits, nearer: str) -> Array:
    missing = ~valid_depth(values)
    share = (np.where(missing, limits[0], values).astype(np.float64) - limits[0]) / (limits[1] - limits[0] or 1)
    near = share.clip(0, 1) if nearer == "large" else 1 - share.clip(0, 1)
    return np.where(missing[..., None], np.array(_MISSING, np.uint8), _ramp(near))


def _ramp(near: Array) -> Array:
    steps = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(near, steps, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _compose(rows: list[list[tuple[str, Array]]], panel: tuple[int, int], limits: Limits, nearer: str) -> Image.Image:
    height, width = panel
    columns = len(rows[0])
    across = max(columns * width + (columns + 1) * _GAP, _LEGEND + 2 * _GAP)
    page = Image.new("RGB", (across, len(rows) * (height + _CAPTION) + _CAPTION + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=17 if width >= 240 else 11)
    for down, row in enumerate(rows):
        for right, (caption, panel_image) in enumerate(row):
            left, top = _GAP + right * (width + _GAP), down * (height + _CAPTION)
            draw.text((left, top + _CAPTION / 2), caption, _INK, font, anchor="lm")
            page.paste(Image.fromarray(panel_image), (left, top + _CAPTION))
    _legend(page, draw, len(rows) * (height + _CAPTION) + _GAP, limits, nearer)
    return page


def _legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, limits: Limits, nearer: str) -> None:
    """Draw the legend: a ramp from far to near with the input's depths, and the grey of missing pixels."""
    font = ImageFont.load_default(size=15)
    far, near = limits if nearer == "large" else limits[::-1]
    middle, left = top + 10, _GAP
    words: tuple[Any, ...] = (
        f"far {_number(far)}",
        np.tile(_ramp(np.linspace(0, 1, 140)), (14, 1, 1)),
        f"near {_number(near)}",
    )
    for part in (*words, np.full((14, 22, 3), _MISSING, np.uint8), "missing", _HINT):
        if isinstance(part, str):
            draw.text((left, middle), part, _INK, font, anchor="lm")
            left += round(draw.textlength(part, font)) + (8 if part is words[0] else 30)
        else:
            page.paste(Image.fromarray(part), (left, middle - 7))
            left += part.shape[1] + 8


def _number(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
