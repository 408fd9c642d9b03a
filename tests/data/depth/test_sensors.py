"""Depth as sensors give it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")

from ddfnet.data.depth import sensors
from ddfnet.data.depth.measurement import Measurement
from ddfnet.data.depth.textures import Pixels

SIZE = 96


@pytest.fixture
def step() -> Pixels:
    """Return a near surface, 1, on the left of a far one, 3."""
    return np.where(np.arange(SIZE) < SIZE // 2, 1, 3).repeat(SIZE).reshape(SIZE, SIZE).T.astype(np.float32)


def between(seen: Pixels) -> np.ndarray:
    """Return the columns with pixels that are clearly on neither surface."""
    return np.flatnonzero(((seen > 1.2) & (seen < 2.8)).any(0))


def test_time_of_flight_mixes_surfaces_at_the_edge_alone_and_far_noise_is_stronger(step: Pixels) -> None:
    draws = [sensors._time_of_flight(np.random.default_rng(seed), step) for seed in range(20)]
    for seen in draws:
        assert 0 < len(between(seen)) < 20 and abs(between(seen) - SIZE / 2).max() < 12
    near, far = (np.mean([seen[:, columns].std() for seen in draws]) for columns in (slice(0, 24), slice(72, None)))
    assert far > 5 * near


def test_structured_light_moves_the_edge_and_mixes_nothing(step: Pixels) -> None:
    edges = set()
    for seed in range(20):
        seen = sensors._structured_light(np.random.default_rng(seed), step)
        assert set(np.unique(seen)) == {1, 3}
        edges.add(int((seen[SIZE // 2] == 1).sum()) - SIZE // 2)
    assert {-5, 5} <= edges and all(1 <= abs(edge) <= 5 for edge in edges)


def test_stereo_puts_depths_of_the_scene_into_few_pixels(step: Pixels) -> None:
    shares = []
    for seed in range(20):
        seen = sensors._stereo(np.random.default_rng(seed), step)
        assert set(np.unique(seen)) == {1, 3}
        shares.append((seen != step).mean())
    assert 0 < max(shares) < 0.2


def test_estimates_have_blurred_edges(step: Pixels) -> None:
    widths = [len(between(sensors._estimate(np.random.default_rng(seed), step))) for seed in range(20)]
    assert min(widths) >= 1 and max(widths) > 8


def test_what_is_observed_is_above_0_and_some_of_it_is_rounded() -> None:
    ramp = np.linspace(0.1, 2, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    values = []
    for seed in range(40):
        seen = sensors.observe(np.random.default_rng(seed), ramp)
        assert seen.dtype == np.float32 and seen.shape == ramp.shape and seen.min() > 0 and np.isfinite(seen).all()
        values.append(len(np.unique(seen)))
    assert min(values) < 300 and max(values) > 4000
    flat = np.full((SIZE, SIZE), 2, np.float32)
    assert all(np.isfinite(sensors.observe(np.random.default_rng(seed), flat)).all() for seed in range(20))


def test_a_share_of_the_samples_is_observed(step: Pixels) -> None:
    guide = np.zeros((SIZE, SIZE, 3), np.uint8)
    for share, least, most in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 38, 40)):
        drawn = [Measurement(SIZE, sensors=share).sample(np.random.default_rng(i), guide, step) for i in range(40)]
        assert least <= sum(bool((each["measured"] != each["depth"]).any()) for each in drawn) <= most
    with pytest.raises(ValueError, match="sensors must be a share from 0 to 1, got 1.5"):
        Measurement(SIZE, sensors=1.5)
