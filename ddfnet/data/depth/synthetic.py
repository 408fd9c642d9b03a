"""Synthetic RGB-D scenes, composed on the fly to train joint upsampling without real depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ddfnet.data.depth.measurement import Measurement
from ddfnet.data.depth.outlines import outline, rotated
from ddfnet.data.depth.textures import Pixels, photographs, texture

_SEEDS = 2**32  # NumPy reads a larger seed as two numbers, and the second would pass for the index of a scene


class ComposedScenes(Dataset[dict[str, Tensor]]):
    """Data set of scenes of slanted planes and bulging shapes in layers, textured with photographs.

    Depth edges lie where texture edges are; but not every texture edge is a depth edge (patterns, shadows, patches on
    one surface), and some layers look like the surface behind them. There are rods thinner than the low resolution
    shows, rows and clusters of one shape, holes, and planes that meet. The image is antialiased, slightly blurred,
    noisy and sometimes JPEG; the depth is sharp. Some scenes are disparities, others depths: the unit means nothing.

    Scene i is the same in every process: it depends on ``seed`` and i alone.

    Args:
        length: number of scenes.
        size: pixels per side.
        seed: seed of the set, below 2**32; sets with different seeds have no scene in common.
        more_photographs: files and folders besides those inside scikit-image, see
            `ddfnet.data.depth.textures.photographs`.
        noise: largest standard deviation of the measured depth's noise, as a share of the scene's range; each scene
            draws its own.
        misalignment: largest standard deviation of a smooth displacement between depth edges and image edges, in
            pixels, as measurements have it; at most ``size``. Each scene draws its own.
        holes: largest share of a scene's area in which the depth is not valid, as behind edges. Each scene draws its
            own, and holes are cut until it is reached, or until one falls on others. So it holds roughly: the last hole
            is whole, and a scene can have a little more; shares above a quarter are seldom reached.
        sensors: share of the scenes that are measured by one of `ddfnet.data.depth.sensors`: with mixed and wrong
            samples, moved or blurred edges, rounded.

    Returns:
        From ``[i]``: ``guide`` (3, size, size), uint8; ``depth`` (1, size, size), float32, above 0; ``measured``, the
        same as measured, from which low-resolution depth is sampled; ``valid`` (1, size, size), bool.

    Raises:
        ValueError: a size below 32; a seed, noise, holes, misalignment or sensors out of range.
        TypeError: a length, a size or a seed that is no whole number.
        DataError: a photograph or folder is missing or has no image.

    Example:
        >>> from ddfnet.data.depth.synthetic import ComposedScenes
        >>> scene = ComposedScenes(length=100, size=64)[7]
        >>> scene["guide"].shape, scene["depth"].shape
        (torch.Size([3, 64, 64]), torch.Size([1, 64, 64]))
    """

    def __init__(
        self,
        length: int,
        size: int = 256,
        *,
        seed: int = 0,
        more_photographs: Sequence[str | Path] = (),
        noise: float = 0.0,
        holes: float = 0.0,
        misalignment: float = 0.0,
        sensors: float = 0.0,
    ) -> None:
        check_numbers(length, size, seed, least=32)
        self.measurement = Measurement(size, noise=noise, holes=holes, misalignment=misalignment, sensors=sensors)
        self.length, self.size, self.seed = length, size, seed
        self.photographs = photographs(more_photographs)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index))
        canvas = _Composition(rng, self.photographs, self.size)
        return self.measurement.sample(rng, canvas.guide(), canvas.depth())


def check_numbers(length: int, size: int, seed: int, *, least: int) -> None:
    """Check the length of a set of scenes, their pixels per side, at least ``least``, and its seed."""
    if not all(isinstance(number, Integral) for number in (length, size, seed)):
        raise TypeError(f"length, size and seed must be whole numbers, got {length=}, {size=} and {seed=}")
    if length < 1 or size < least:
        raise ValueError(f"length must be at least 1 and size at least {least}, got {length=} and {size=}")
    check_seed("seed", seed)


def check_seed(name: str, seed: int) -> None:
    """Refuse a seed with which scenes could not be drawn, or would be those of another seed."""
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"{name} must be from 0 to {_SEEDS - 1}, got {seed}")


class _Layer(NamedTuple):
    """Shape in a box: its coverage of each pixel, (h, w) from 0 to 1, and the position of the box."""

    cover: Pixels
    rows: slice
    columns: slice
    centre: Pixels  # x, y in pixels
    radius: float


class _Composition:
    """Scene that is painted from back to front."""

    def __init__(self, rng: np.random.Generator, images: list[Pixels], size: int) -> None:
        self.rng, self.photographs, self.size = rng, images, size
        self.axis = (np.arange(size, dtype=np.float32) - size / 2) / size
        back = rng.uniform(0, 0.3)
        self.colour = texture(rng, images, size, size)
        self.surface = self._background(back)
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 5)):
                layer = self._layer()
                if layer is not None:  # a pattern: texture edges without depth edges
                    self._paint(self.colour[layer.rows, layer.columns], layer.cover)
        layers = round(math.exp(rng.uniform(math.log(3), math.log(30))))
        for level in np.sort(rng.uniform(back, back + rng.uniform(0.4, 1.2), layers)):
            self._add(level)

    def guide(self) -> Pixels:
        """Return the image of the camera, with blur, gamma, noise and JPEG; (size, size, 3), uint8."""
        import cv2

        rng, colour = self.rng, self.colour
        if rng.random() < 0.6:
            colour = cv2.GaussianBlur(colour, (0, 0), rng.uniform(0.3, 1.1))
        if rng.random() < 0.5:
            colour = cv2.pow(colour.clip(0), rng.uniform(0.6, 1.6))
        noise = rng.standard_normal(colour.shape, np.float32) * np.float32(rng.uniform(0, 0.03))
        pixels = ((colour + noise) * 255).clip(0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 96))]
            pixels = np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR))
        return pixels

    def depth(self) -> Pixels:
        """Return the surface as a disparity, a depth, or either from behind; (size, size), float32."""
        rng = self.rng
        depth = self.surface - self.surface.min() + 0.05
        if rng.random() < 0.35:
            depth = 1 / (depth + rng.uniform(0.1, 1))
        if rng.random() < 0.3:
            depth = depth.max() - depth + 0.05
        return depth

    def _background(self, level: float) -> Pixels:
        """Draw a slanted plane, up to two more that meet it as walls do, and in half of the cases soft relief."""
        import cv2

        rng, size = self.rng, self.size
        whole = (slice(0, size), slice(0, size))
        surface = self._plane(level, 0.25, np.full(2, size / 2), size, *whole)
        for _ in range(rng.integers(0, 3)):
            wall = self._plane(level + rng.normal(0, 0.1), 0.5, rng.random(2) * size, size, *whole)
            surface = np.maximum(surface, wall) if rng.random() < 0.5 else np.minimum(surface, wall)
        if rng.random() < 0.5:
            points = rng.integers(3, 9)
            relief = rng.normal(0, rng.uniform(0, 0.05), (points, points)).astype(np.float32)
            surface = surface + cv2.resize(relief, (size, size), interpolation=cv2.INTER_CUBIC)
        return surface

    def _add(self, level: float) -> None:
        """Add an object in front: its shadow, its texture, its surface."""
        rng, layer = self.rng, self._layer()
        if layer is None:
            return
        if rng.random() < 0.25:
            self._shade(layer)
        view = self.colour[layer.rows, layer.columns]
        skin = texture(rng, self.photographs, *layer.cover.shape)
        if rng.random() < 0.3:
            pattern = self._layer()
            if pattern is not None:
                box = layer.cover.shape
                covered = np.zeros((self.size, self.size), np.float32)
                covered[pattern.rows, pattern.columns] = pattern.cover
                self._paint(skin, covered[layer.rows, layer.columns].reshape(box))
        if rng.random() < 0.12:  # it looks like the surface behind it
            skin = 0.25 * skin + 0.75 * view.mean((0, 1))
        view += (skin - view) * layer.cover[..., None]
        inside = layer.cover > 0.5
        plane = self._plane(level, 0.12, layer.centre, layer.radius, layer.rows, layer.columns)
        self.surface[layer.rows, layer.columns][inside] = plane[inside]

    def _paint(self, view: Pixels, cover: Pixels) -> None:
        view += (texture(self.rng, self.photographs, *cover.shape) - view) * cover[..., None]

    def _shade(self, layer: _Layer) -> None:
        """Draw a soft shadow on the surface behind: an edge in the image that the depth does not have."""
        import cv2

        rng, size = self.rng, self.size
        covered = np.zeros((size, size), np.float32)
        covered[layer.rows, layer.columns] = layer.cover
        across, down = rng.normal(0, 6, 2)
        moved = cv2.warpAffine(covered, np.array([[1, 0, across], [0, 1, down]]), (size, size))
        self.colour *= 1 - rng.uniform(0.1, 0.6) * cv2.GaussianBlur(moved, (0, 0), rng.uniform(1, 8))[..., None]

    def _plane(self, level: float, slope: float, centre: Pixels, radius: float, rows: slice, columns: slice) -> Pixels:
        """Draw a slanted surface over a box, bulging around the centre in two of five cases."""
        rng, size = self.rng, self.size
        across = self.axis[None, columns] - np.float32(centre[0] / size - 0.5)
        down = self.axis[rows, None] - np.float32(centre[1] / size - 0.5)
        slopes = rng.normal(0, slope, 2).astype(np.float32)
        surface = np.float32(level) + slopes[0] * across + slopes[1] * down
        if rng.random() < 0.4:
            height = rng.uniform(0, 0.12) * (1 if rng.random() < 0.8 else -1)
            distance = (across**2 + down**2) * np.float32((size / radius) ** 2)
            surface = surface + np.float32(height) * np.sqrt((1 - distance).clip(0))
        return surface

    def _layer(self) -> _Layer | None:
        """Draw a shape, a row or a cluster of one, or a shape with holes; None where nothing of it is in the image."""
        import cv2

        rng, size = self.rng, self.size
        radius = size * math.exp(rng.uniform(math.log(0.03), math.log(0.45)))
        centre = rng.uniform(-0.1, 1.1, 2) * size
        style = rng.random()
        if style < 0.18:
            radius *= 0.6
            curves = self._group(outline(rng, radius), radius)
        else:
            curves = [outline(rng, radius)]
        curves = [curve + centre for curve in curves]
        corners = np.concatenate(curves)
        first = (np.floor(corners.min(0)) - 1).clip(0, size).astype(int)
        last = (np.ceil(corners.max(0)) + 1).clip(0, size).astype(int)
        width, height = (last - first).tolist()
        if width < 1 or height < 1:
            return None
        mask = np.zeros((2 * height, 2 * width), np.uint8)  # at twice the resolution, for the image is antialiased

        def fill(curve: Pixels, value: int) -> None:
            points = np.round((curve - first) * 32).astype(np.int32)  # in sixteenths of a pixel of the mask
            cv2.fillPoly(mask, [points], value, shift=4)

        for curve in curves:
            fill(curve, 255)
        if style > 0.8:
            for _ in range(rng.integers(1, 4)):
                away = rng.normal(0, 0.2, 2) * radius if rng.random() < 0.7 else 0
                fill(outline(rng, radius * rng.uniform(0.3, 0.8)) + centre + away, 0)
        cover = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        rows, columns = slice(first[1], last[1]), slice(first[0], last[0])
        return _Layer(cover, rows, columns, centre, radius)

    def _group(self, curve: Pixels, radius: float) -> list[Pixels]:
        """Repeat an outline three to thirteen times: in a row as slats are, or scattered and rotated as leaves are."""
        rng = self.rng
        number = int(rng.integers(3, 14))
        if rng.random() < 0.4:
            step = rng.uniform(0.5, 1.5) * np.array([radius, radius * rng.normal(0, 0.4)])
            return [curve + step * (i - number / 2) for i in range(number)]
        spread = radius * rng.uniform(1, 3.5)
        return [rotated(curve, rng.uniform(0, 2 * math.pi)) + rng.normal(0, spread, 2) for _ in range(number)]
