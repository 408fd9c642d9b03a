"""Depth as sensors and networks give it: mixed at edges, wrong in places, rounded."""

from __future__ import annotations

import math

import numpy as np

from ddfnet.data.depth.textures import Pixels


def observe(rng: np.random.Generator, depth: Pixels) -> Pixels:
    """Return the depth as one of the sensors here gives it, which is drawn.

    A map that a network estimated is also wrong by a factor and a constant. Those are left out: an upsampled map keeps
    them, whatever they are.

    Args:
        rng: source of all draws.
        depth: (S, S), float32, above 0, in any unit.

    Returns:
        (S, S), float32, above 0.

    Example:
        >>> import numpy as np
        >>> from ddfnet.data.depth.sensors import observe
        >>> observe(np.random.default_rng(0), np.ones((64, 64), np.float32)).shape
        (64, 64)
    """
    sensor = (_time_of_flight, _structured_light, _stereo, _estimate)[int(rng.integers(4))]
    lowest, span = depth.min(), np.ptp(depth)
    seen = sensor(rng, depth)
    if rng.random() < 0.5:
        step = span / math.exp(rng.uniform(math.log(60), math.log(2000)))
        if step:
            seen = lowest + step * np.round((seen - lowest) / step)
    result: Pixels = seen.clip(lowest / 2).astype(np.float32)
    return result


def _time_of_flight(rng: np.random.Generator, depth: Pixels) -> Pixels:
    """Mix the surfaces that a pixel sees, which is why pixels fly at edges; the noise grows with the distance."""
    seen = _blurred(depth, rng.uniform(0.5, 4))
    deviation = rng.uniform(0, 0.01) * np.ptp(depth) * (depth / depth.max()) ** 2
    return seen + deviation * rng.standard_normal(depth.shape, np.float32)


def _structured_light(rng: np.random.Generator, depth: Pixels) -> Pixels:
    """Move each edge of the depth by steps, for a window of the pattern lies on one surface or on the other."""
    import cv2

    side = 2 * int(rng.integers(1, 6)) + 1
    grow = cv2.dilate if rng.random() < 0.5 else cv2.erode
    return np.asarray(grow(cv2.medianBlur(depth, 5), np.ones((side, side), np.uint8)))


def _stereo(rng: np.random.Generator, depth: Pixels) -> Pixels:
    """Put a depth from elsewhere into small spots, the wrong matches."""
    import cv2

    size = len(depth)
    seen = depth.copy()
    for _ in range(int(rng.integers(1, 60))):
        value = float(depth[tuple(rng.integers(size, size=2))])
        centre = [int(each) for each in rng.integers(size, size=2)]
        cv2.circle(seen, centre, int(rng.integers(0, 5)), value, thickness=-1)
    return seen


def _estimate(rng: np.random.Generator, depth: Pixels) -> Pixels:
    """Blur the edges, as a network does that sees a smaller image."""
    return _blurred(depth, rng.uniform(1, 8))


def _blurred(depth: Pixels, deviation: float) -> Pixels:
    import cv2

    return np.asarray(cv2.GaussianBlur(depth, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE))
