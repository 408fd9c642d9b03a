"""Measurement of `ddfnet.upsample_depth` on inputs as people have them; one build of the package, one results file.

    python reproduce/field/measure.py OUT.json [--sensors FOLDER]

The inputs are rendered two-layer scenes, the sensor frames of FOLDER, planes, discs and holes. Which build
is measured is PYTHONPATH's choice; `run.sh` measures two and makes the table.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

import ddfnet
from ddfnet import env_info, files
from ddfnet.data.depth.textures import photographs, texture
from ddfnet.depth.alignment import align, aligned_bilinear

Array = np.ndarray[Any, np.dtype[Any]]
RATIOS = (2.0, 3.0, 4.0, 5.25, 7.5, 8.0)
BORDER = 6  # pixels that are not scored
SCENES, SIZE, SEED = 8, 480, 17
FINE = 4  # sub-pixels per side, for antialiased outlines
SENTINEL = 65535


class Frame(NamedTuple):
    name: str
    depth: Array  # (H, W), float64
    valid: Array
    guide: Array  # (H, W, 3), uint8


def rendered() -> Iterator[Frame]:
    """Yield scenes of two layers: a tilted plane with a smooth outline before another, with photographs as textures.

    Not the scenes of the training: one shape, true outlines, no noise, no holes.
    """
    images = photographs()
    y, x = np.mgrid[: SIZE * FINE, : SIZE * FINE] / FINE - SIZE / 2
    for number in range(SCENES):
        rng = np.random.default_rng((SEED, number))
        radius = np.full(y.shape, rng.uniform(0.2, 0.35) * SIZE)
        for wave in range(1, 7):
            radius += rng.normal(0, 0.05 * SIZE / wave) * np.cos(wave * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
        inside = np.hypot(y, x) < radius
        cover = inside.reshape(SIZE, FINE, SIZE, FINE).mean((1, 3))[..., None]
        near, far = (texture(rng, images, SIZE, SIZE) for _ in range(2))
        rows, columns = np.mgrid[:SIZE, :SIZE]
        tilts = rng.uniform(-1, 1, (2, 2))
        planes = [
            level + 0.5 * (tilt * [1, 1] @ np.stack([rows, columns]).reshape(2, -1)).reshape(rows.shape)
            for level, tilt in zip((1500, 3000), tilts, strict=True)
        ]
        depth = np.where(cover[..., 0] >= 0.5, *planes)
        image = (255 * (near * cover + far * (1 - cover)) + rng.normal(0, 2, near.shape)).clip(0, 255)
        yield Frame(f"scene-{number}", depth, np.ones(depth.shape, bool), image.astype(np.uint8))


def sensor_frames(folder: Path) -> Iterator[Frame]:
    """Yield the frames of full size: the sensor's own map is the truth, where it has one."""
    from PIL import Image

    for path in sorted(folder.glob("*/depth.png")):
        [colour] = path.parent.glob("color.*")
        depth = np.asarray(Image.open(path)).astype(float)
        guide = np.array(Image.open(colour).convert("RGB"))
        yield Frame(path.parent.name, depth, (depth > 0) & (depth < SENTINEL), guide)


# --- inputs ---------------------------------------------------------------------------------------------------------


def strided(frame: Frame, ratio: float) -> tuple[Array, Array, float]:
    """Take the pixels nearest to every ``ratio``-th place; at a whole ratio the protocol `pac`."""
    offset = float((ratio - 1) // 2)
    picks = [np.arange(offset, size - 0.5, ratio).round().astype(int) for size in frame.depth.shape]
    at = np.ix_(*picks)
    return frame.depth[at], frame.valid[at], offset


def block_mean(frame: Frame, ratio: float) -> tuple[Array, Array, float]:
    """Average each block by area; valid where half of it is."""
    rows, columns = (_shares(size, ratio) for size in frame.depth.shape)
    total = rows @ np.where(frame.valid, frame.depth, 0) @ columns.T
    share = rows @ frame.valid.astype(float) @ columns.T
    known = share >= 0.5 * ratio * ratio
    return np.where(known, total / np.maximum(share, 1e-9), 0), known, (ratio - 1) / 2


def block_median(frame: Frame, ratio: float) -> tuple[Array, Array, float]:
    """Take the lower median of the pixels whose corner lies in the block; valid where half of them are."""
    depth = np.where(frame.valid, frame.depth, np.nan)
    starts = [np.ceil(np.arange(int(size / ratio) + 1) * ratio - 1e-9).astype(int) for size in depth.shape]
    small = np.zeros([len(each) - 1 for each in starts])
    known = np.zeros(small.shape, bool)
    for y, x in np.ndindex(small.shape):
        block = depth[starts[0][y] : starts[0][y + 1], starts[1][x] : starts[1][x + 1]].ravel()
        own = np.sort(block[~np.isnan(block)])
        if 2 * len(own) >= len(block):
            small[y, x], known[y, x] = own[(len(own) - 1) // 2], True
    return small, known, (ratio - 1) / 2


def _shares(size: int, ratio: float) -> Array:
    """Return the share of each pixel in each block, (blocks, size)."""
    first = np.arange(int(size / ratio))[:, None] * ratio
    pixels = np.arange(size)[None]
    return np.clip(np.minimum(pixels + 1, first + ratio) - np.maximum(pixels, first), 0, 1)


INPUTS: dict[str, Callable[[Frame, float], tuple[Array, Array, float]]] = {
    "strided": strided,
    "mean": block_mean,
    "median": block_median,
}


# --- measures -------------------------------------------------------------------------------------------------------


def share(frame: Frame, ratio: float, kind: str) -> float:
    """Return the RMSE as a share of aligned bilinear's, over valid pixels inside the border."""
    low, known, offset = INPUTS[kind](frame, ratio)
    height, width = frame.depth.shape
    if kind != "strided":
        height, width = (min(int(n * ratio), size) for n, size in zip(low.shape, frame.depth.shape, strict=True))
    true, valid = frame.depth[:height, :width], frame.valid[:height, :width].copy()
    inside = np.zeros_like(valid)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    guide = np.ascontiguousarray(frame.guide[:height, :width])
    options: dict[str, Any] = {"ratio": ratio, "offset": offset}
    ours = ddfnet.upsample_depth(np.where(known, low, 0), guide, valid=known, fill=True, **options)
    plain = aligned_bilinear(low, (height, width), valid=known, **options)
    where = valid & inside
    return rmse(ours, true, where) / max(rmse(plain, true, where), 1e-12)


def rmse(found: Array, true: Array, where: Array) -> float:
    return float(np.sqrt(np.square(found - true)[where].mean()))


def shares(frames: list[Frame]) -> dict[str, dict[str, list[float]]]:
    """Return, by kind of input and ratio, the share of each frame."""
    found: dict[str, dict[str, list[float]]] = {}
    for kind in INPUTS:
        found[kind] = {f"{ratio:g}": [share(frame, ratio, kind) for frame in frames] for ratio in RATIOS}
        print(kind, {ratio: round(float(np.median(own)), 3) for ratio, own in found[kind].items()}, file=sys.stderr)
    return found


def filling(frames: list[Frame]) -> dict[str, list[float]]:
    """Return the RMSE where a full-size map has no value, as a share of SciPy's linear interpolation."""
    found: dict[str, list[float]] = {}
    for number, frame in enumerate(frames):
        rng = np.random.default_rng(number)
        cases = {"holes of 10 to 50 px": rectangles(frame.depth.shape, rng)}
        cases |= {f"{part:.2%} of the pixels": rng.random(frame.depth.shape) < part for part in (0.05, 0.01, 0.0013)}
        for name, kept in cases.items():
            known = frame.valid & kept
            where = frame.valid & ~kept
            given = np.where(known, frame.depth, 0)
            ours = ddfnet.upsample_depth(given, frame.guide, valid=known, fill=True)
            plain = linear(given, known)
            found.setdefault(name, []).append(rmse(ours, frame.depth, where) / rmse(plain, frame.depth, where))
    return found


def rectangles(shape: tuple[int, ...], rng: np.random.Generator, least: int = 10, most: int = 50) -> Array:
    """Return a mask with rectangular holes, which cover a fifth."""
    kept = np.ones(shape, bool)
    while kept.mean() > 0.8:
        size = rng.integers(least, most + 1, 2)
        y, x = (rng.integers(0, have - own) for have, own in zip(shape, size, strict=True))
        kept[y : y + size[0], x : x + size[1]] = False
    return kept


def linear(depth: Array, known: Array) -> Array:
    points, places = np.argwhere(known), tuple(np.mgrid[: depth.shape[0], : depth.shape[1]])
    found = LinearNDInterpolator(points, depth[known])(places)
    return np.where(np.isnan(found), NearestNDInterpolator(points, depth[known])(places), found)


def validity() -> dict[str, dict[str, float]]:
    """Return the IoU of a disc's validity on an empty background, and that of the nearest sample's mask."""
    size, found = 480, {}
    y, x = np.mgrid[:size, :size]
    disc = (y - 240.3) ** 2 + (x - 237.8) ** 2 < 120**2
    image = np.where(disc[..., None], [180, 120, 60], [60, 90, 170]) + np.random.default_rng(0).normal(
        0, 8, (size, size, 3)
    )
    for ratio in (4, 8, 16):
        start = (ratio - 1) // 2
        depth = np.where(disc, 2.0, 0)[start::ratio, start::ratio]
        result = ddfnet.upsample_depth(depth, image.clip(0, 255).astype(np.uint8), ratio=ratio, offset=start)
        rows, columns = (axis.nearest_sample().numpy() for axis in align(depth.shape, image.shape, ratio, start))
        masks = {"ddfnet": np.isfinite(result), "nearest": (depth > 0)[np.ix_(rows, columns)]}
        found[f"{ratio}"] = {name: float((mask & disc).sum() / (mask | disc).sum()) for name, mask in masks.items()}
    return found


def planes() -> dict[str, dict[str, float]]:
    """Return mean angle to a plane's normal, in degrees, and bias and jitter in pixels, for random guides."""
    found = {}
    for ratio in (2, 2.25, 2.5, 3, 4, 5.25, 7.5, 8, 16):
        samples = (24, 26)
        pixels = [round(n * ratio) for n in samples]
        offset = (ratio - 1) / 2
        guide = np.random.default_rng(0).integers(0, 256, (*pixels, 3), dtype=np.uint8)
        y, x = (np.arange(n) * ratio + offset for n in samples)
        depth = (100 + y[:, None] + 0.7 * x[None]).astype(np.float32)
        result = ddfnet.upsample_depth(depth, guide, ratio=ratio).astype(float)
        inner = np.s_[math.ceil(4 * ratio) : -math.ceil(4 * ratio), math.ceil(4 * ratio) : -math.ceil(4 * ratio)]
        rows, columns = np.mgrid[: pixels[0], : pixels[1]]
        error = (result - (100 + rows + 0.7 * columns))[inner] / 0.7
        normal = np.stack([*np.gradient(result[inner]), np.full(error.shape, -1.0)])
        true = np.array([1, 0.7, -1])[:, None, None]
        cosine = (normal * true).sum(0) / np.linalg.norm(normal, axis=0) / np.linalg.norm(true)
        found[f"{ratio:g}"] = {
            "normal": float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean()),
            "bias": float(error.mean()),
            "jitter": float(np.abs(error - error.mean()).max()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("output", type=Path)
    parser.add_argument("--sensors", type=Path, help="folder of sensor frames, */depth.png and */color.*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = list(rendered())
    results: dict[str, Any] = {"planes": planes(), "validity": validity(), "scenes": shares(scenes)}
    results["holes"] = filling(scenes[:6])
    if options.sensors is not None:
        frames = list(sensor_frames(options.sensors))
        results["frames"] = [frame.name for frame in frames]
        results["sensors"] = shares(frames)
    results["machine"] = env_info.facts()
    results["command"] = "python reproduce/field/measure.py OUT.json" + " --sensors FOLDER" * bool(options.sensors)
    files.atomic_write(options.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
