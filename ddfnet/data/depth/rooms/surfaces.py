"""Coverings of walls, floors and furniture: paint, photographs, tiles, planks and stripes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddfnet.data.depth.rooms.shapes import Array, Material, linear
from ddfnet.data.depth.textures import texture

_WALL, _FABRIC = 512, 256  # pixels per side of a covering of a room's sides, and of a smaller thing


def covering(
    rng: np.random.Generator, photographs: Sequence[Array], *, plain: float, gloss: float = 0.0, side: int = _WALL
) -> Material:
    """Draw a material whose texture repeats, mirrored, as photographs have seams.

    Args:
        rng: source of all draws.
        photographs: images for its texture.
        plain: share of plain paint.
        gloss: strength of its reflection, 0 to 1.
        side: pixels per side of its texture.

    Returns:
        The material.
    """
    draw = rng.random()
    if draw < plain:
        colour = paint(rng)
        image = colour + rng.normal(0, rng.uniform(0, 0.02), (side // 4, side // 4, 1)).astype(np.float32)
    elif draw < plain + (1 - plain) * 0.55:
        image = texture(rng, photographs, side, side)
        if rng.random() < 0.5:  # calmer, as wallpaper and fabric are
            image = paint(rng) + (image - image.mean((0, 1))) * np.float32(rng.uniform(0.15, 0.6))
    else:
        image = _pattern(rng, photographs, side)
    return Material(np.ones(3, np.float32), _rgba(image), (gloss, float(rng.uniform(8, 80))), mirrored=True)


def paint(rng: np.random.Generator) -> Array:
    """Draw an sRGB colour (3,), float32: mostly a light and pale one, as most rooms have."""
    grey = rng.uniform(0.55, 0.95) if rng.random() < 0.7 else rng.uniform(0.1, 0.7)
    strength = rng.uniform(0, 0.12) if rng.random() < 0.6 else rng.uniform(0.1, 0.4)
    return (grey + strength * rng.uniform(-1, 1, 3)).clip(0.03, 0.97).astype(np.float32)


def _rgba(image: Array) -> Array:
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    return np.concatenate([(image.clip(0, 1) * 255).astype(np.uint8), alpha], -1)


def _pattern(rng: np.random.Generator, photographs: Sequence[Array], side: int) -> Array:
    """Draw cells in rows, each of its own tone: tiles, bricks and planks with joints, or stripes and checks without."""
    rows, columns = (int(number) for number in rng.integers(1, 13, 2))
    if rng.random() < 0.5:  # planks
        rows, columns = int(rng.integers(4, 13)), int(rng.integers(1, 4))
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    row = np.floor(y * rows)
    across = x * columns + (rng.uniform(0, 1, rows)[row.astype(int)] if rng.random() < 0.6 else 0)
    cell = np.floor(across) + (columns + 1) * row
    tones = paint(rng) + rng.normal(0, rng.uniform(0, 0.12), (int(cell.max()) + 1, 1)) * rng.uniform(0.5, 1, 3)
    if rng.random() < 0.3:  # two colours in turn
        tones[::2] = paint(rng)
    image = tones[cell.astype(int)].astype(np.float32)
    if rng.random() < 0.6:
        grain = texture(rng, photographs, side, side)
        image += (grain - grain.mean((0, 1))) * np.float32(rng.uniform(0.1, 0.5))
    if rng.random() < 0.7:
        joint = rng.uniform(0.004, 0.02)
        near = np.minimum(across % 1, 1 - across % 1) / columns < joint / 2
        near |= np.minimum(y * rows % 1, 1 - y * rows % 1) / rows < joint / 2
        image[near] = paint(rng)
    return np.rot90(image) if rng.random() < 0.5 else image


def repainted(rng: np.random.Generator, material: Material, photographs: Sequence[Array]) -> Material:
    """Return a model's material as it is, in another colour, or covered with a photograph."""
    draw = rng.random()
    if draw < 0.45 or material.texture is not None:
        return material
    if draw < 0.75:
        tint = linear(paint(rng))
        return material._replace(colour=tint)
    return covering(rng, photographs, plain=0.0, gloss=material.gloss[0], side=_FABRIC)
