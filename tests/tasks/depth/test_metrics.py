"""Flying pixels, counted by hand on maps of a step."""

import itertools
import math

import pytest
import torch

from ddfnet.tasks.depth.metrics import Flying, FlyingPixels

EVERYWHERE = torch.ones(10, 12, dtype=torch.bool)


@pytest.fixture
def step():
    """Return a near surface at 1, columns 0 to 5, before a far one at 3; near the edge are columns 4 to 7."""
    truth = torch.ones(10, 12)
    truth[:, 6:] = 3
    return truth


def count(truth, prediction, valid=EVERYWHERE, scored=EVERYWHERE):
    return FlyingPixels(truth, valid, scored)(prediction)


def test_the_truth_has_none(step):
    assert count(step, step) == Flying(pixels=120, near_edges=40, flying=0)


@pytest.mark.parametrize(
    ("value", "flies"),
    [(2.0, True), (1.25, True), (2.75, True), (1.15, False), (2.85, False), (1.0, False), (3.0, False)],
)
def test_between_the_surfaces_and_clear_of_both(step, value, flies):
    prediction = step.clone()
    prediction[5, 5] = value  # the gap is 2, the margin 0.2
    assert count(step, prediction).flying == flies


@pytest.mark.parametrize("value", [0.5, 3.5, -7.0, 100.0])
def test_outside_the_range_is_no_flight(step, value):
    assert count(step, torch.full_like(step, value)).flying == 0


def test_the_wrong_surface_is_no_flight(step):
    assert count(step, step.flip(1)).flying == 0
    assert count(step, torch.ones_like(step)).flying == 0


def test_far_from_edges_nothing_flies(step):
    prediction = torch.full_like(step, 2.0)
    result = count(step, prediction)
    assert result.flying == result.near_edges == 40
    assert result.share_near_edges == 1
    assert result.share == pytest.approx(40 / 120)


def test_only_scored_pixels_count(step):
    scored = EVERYWHERE.clone()
    scored[:, :6] = False
    assert count(step, torch.full_like(step, 2.0), scored=scored) == Flying(pixels=60, near_edges=20, flying=20)


def test_pixels_that_are_not_valid_are_neither_counted_nor_a_surface(step):
    valid = EVERYWHERE.clone()
    valid[:, 6:] = False
    step[:, 6:] = 0  # a step down to a hole is no depth edge
    assert count(step, torch.full_like(step, 0.5), valid) == Flying(pixels=60, near_edges=0, flying=0)
    assert count(step, step, valid).share_near_edges == 0
    valid[:, 8:], step[:, 8:] = True, 3.0
    # Across a hole of two columns no window sees both surfaces, across one it does.
    assert count(step, torch.full_like(step, 2.0), valid).near_edges == 0
    valid[:, 7] = True
    step[:, 7] = 3
    assert count(step, torch.full_like(step, 2.0), valid) == Flying(pixels=110, near_edges=20, flying=20)


def test_a_slanted_surface_is_no_edge():
    slant = torch.arange(120.0).reshape(10, 12).remainder(12) * 0.01 + 1
    slant[0, 0] = 20  # the range is that of the scene, not of the window
    result = count(slant, slant + 0.005)
    assert result.near_edges == 9  # the window of the corner pixel


def test_three_surfaces():
    """Between the first and the third, on the second: no flight. Between the first and the second: one."""
    truth = torch.ones(10, 12)
    truth[:, 5] = 2
    truth[:, 6:] = 3
    prediction = truth.clone()
    prediction[2, 5], prediction[3, 4], prediction[4, 4] = 2.05, 2.0, 1.5
    assert count(truth, prediction).flying == 1


def test_the_unit_does_not_matter(step):
    prediction = step + torch.rand_like(step) - 0.5
    counts = {count(step * scale, prediction * scale) for scale in (1, 1024, 1 / 1024)}
    assert len(counts) == 1
    assert counts.pop().flying > 0


def test_nan_does_not_fly(step):
    assert count(step, torch.full_like(step, math.nan)).flying == 0


def test_against_the_definition():
    """Pixel by pixel, on a random map of random surfaces with holes."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(1, 4, (10, 12), generator=generator) + 0.01 * torch.rand(10, 12, generator=generator)
    valid = torch.rand(10, 12, generator=generator) < 0.8
    prediction = 1 + 2.5 * torch.rand(10, 12, generator=generator)
    gap = 0.02 * (truth[valid].max() - truth[valid].min())
    near = flying = 0
    for row, column in valid.nonzero().tolist():
        rows, columns = slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3)
        values = sorted(truth[rows, columns][valid[rows, columns]].tolist())
        gaps = [(a, b) for a, b in itertools.pairwise(values) if b - a > gap]
        near += bool(gaps)
        p = prediction[row, column].item()
        flying += any(p - a > 0.1 * (b - a) and b - p > 0.1 * (b - a) for a, b in gaps)
    assert count(truth, prediction, valid) == Flying(int(valid.sum()), near, flying)
    assert near > flying > 0
