"""Samples to train on: an image, its true depth, and the depth as it is measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfnet.data.depth.outlines import outline
from ddfnet.data.depth.sensors import observe
from ddfnet.data.depth.textures import Pixels


class Measurement:
    """Sensor that makes a sample to train on of an image and its true depth.

    Args:
        size: pixels per side of the samples.
        noise: largest standard deviation of the measured depth's noise, as a share of the scene's range.
        holes: largest share of a scene's area in which the depth is not valid.
        misalignment: largest standard deviation of a smooth displacement between depth edges and image edges, in
            pixels, at most ``size``.
        sensors: share of the samples whose measured depth is one of `ddfnet.data.depth.sensors`.

    Raises:
        ValueError: noise, holes, misalignment or sensors out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        noise: float = 0.0,
        holes: float = 0.0,
        misalignment: float = 0.0,
        sensors: float = 0.0,
    ) -> None:
        for name, share in (("noise", noise), ("holes", holes)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be a share from 0 to below 1, got {share}")
        if not 0 <= sensors <= 1:
            raise ValueError(f"sensors must be a share from 0 to 1, got {sensors}")
        if not 0 <= misalignment <= size:
            raise ValueError(f"misalignment must be pixels from 0 to the size, {size}, got {misalignment}")
        self.noise, self.holes, self.misalignment, self.sensors = noise, holes, misalignment, sensors

    def sample(self, rng: np.random.Generator, guide: Pixels, depth: Pixels) -> dict[str, Tensor]:
        """Return a sample; each draws its own noise, holes and misalignment up to the largest.

        Args:
            rng: source of all draws.
            guide: image (S, S, 3), uint8.
            depth: (S, S), float32.

        Returns:
            ``guide`` (3, S, S), uint8; ``depth`` (1, S, S), float32, above 0; ``measured``, the same as measured;
            ``valid`` (1, S, S), bool.
        """
        import cv2

        if self.misalignment:
            depth = _displaced(rng, depth, rng.uniform(0, self.misalignment))
        valid = _holes(rng, depth, self.holes)
        depth = depth.clip(1e-3).astype(np.float32)
        measured = depth
        if self.noise:
            deviation = rng.uniform(0, self.noise) * np.ptp(depth)
            measured = (depth + rng.normal(0, deviation, depth.shape)).clip(1e-3).astype(np.float32)
        if self.sensors and rng.random() < self.sensors:
            measured = observe(rng, measured)
        return {
            "guide": torch.from_numpy(np.stack(cv2.split(guide))),
            "depth": torch.from_numpy(depth)[None],
            "measured": torch.from_numpy(measured)[None],
            "valid": torch.from_numpy(valid)[None],
        }


def _displaced(rng: np.random.Generator, depth: Pixels, deviation: float) -> Pixels:
    """Return the depth with its edges moved a little, by a smooth displacement; its values stay as they are."""
    import cv2

    size, points = len(depth), int(rng.integers(4, 24))
    moves = rng.normal(0, deviation, (2, points, points)).astype(np.float32)
    across, down = (cv2.resize(move, (size, size), interpolation=cv2.INTER_CUBIC) for move in moves)
    own = np.arange(size, dtype=np.float32)
    return cv2.remap(depth, own[None] + across, own[:, None] + down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def _holes(rng: np.random.Generator, depth: Pixels, share: float) -> Any:
    """Draw where the depth is valid: not in a few blobs, nor behind some depth edges, as with a stereo camera."""
    import cv2

    size = len(depth)
    valid = np.ones(depth.shape, np.uint8)
    most = rng.uniform(0, share) * depth.size
    if not share or most < 1:
        return valid.astype(bool)
    step = np.abs(np.diff(depth, axis=1, prepend=depth[:, :1])) > 0.1 * np.ptp(depth)
    wide = cv2.dilate(step.astype(np.uint8), np.ones((3, int(rng.integers(3, 12))), np.uint8), anchor=(0, 1))
    if 0 < wide.sum() < most:
        valid[wide > 0] = 0
    while (valid == 0).sum() < most:
        radius = min(size * math.exp(rng.uniform(math.log(0.01), math.log(0.1))), math.sqrt(most / 3))
        points = np.round((outline(rng, max(radius, 1)) + rng.uniform(0, size, 2)) * 16).astype(np.int32)
        before = int((valid == 0).sum())
        cv2.fillPoly(valid, [points], 0, shift=4)
        if int((valid == 0).sum()) == before:
            break
    return valid.astype(bool)
