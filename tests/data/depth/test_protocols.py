"""Protocols: the samples, their positions, and the scored pixels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddfnet.data.depth.protocols import BICUBIC, GDSR, PAC, PROTOCOLS
from ddfnet.data.depth.scenes import Scene
from ddfnet.depth.alignment import aligned_bilinear
from ddfnet.errors import DataError


def scene(height=32, width=40, unit="m"):
    depth = torch.rand(height, width) + 1
    guide = torch.zeros(3, height, width, dtype=torch.uint8)
    return Scene("room", guide, depth, torch.ones(height, width, dtype=torch.bool), unit, "Random.")


def test_by_name():
    assert {"pac": PAC, "bicubic": BICUBIC, "gdsr": GDSR} == PROTOCOLS
    assert [protocol.border for protocol in PROTOCOLS.values()] == [6, 6, 0]


@pytest.mark.parametrize(("factor", "first"), [(1, 0), (2, 0), (3, 1), (4, 1), (8, 3), (16, 7)])
@pytest.mark.parametrize("size", [(32, 40), (37, 43)])
def test_pac_takes_every_fth_pixel(factor, first, size):
    depth, valid = torch.rand(size) + 1, torch.rand(size) < 0.7
    low, known, offset = PAC.lowres(depth, valid, factor)
    assert offset == PAC.offset(factor) == first
    for row, column in np.ndindex(*low.shape):
        at = row * factor + first, column * factor + first
        assert known[row, column] == valid[at]
        assert low[row, column] == (depth[at] if valid[at] else 0)
    assert (low.shape[0] - 1) * factor + first < size[0] <= low.shape[0] * factor + first
    assert (low.shape[1] - 1) * factor + first < size[1] <= low.shape[1] * factor + first


def test_pac_uses_the_whole_scene():
    whole = scene(37, 43)
    assert PAC.crop(whole, 8) is whole


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_is_pillows_filter(factor):
    whole = scene()
    low, known, offset = BICUBIC.lowres(whole.depth, whole.valid, factor)
    expected = Image.fromarray(whole.depth.numpy()).resize((40 // factor, 32 // factor), Image.Resampling.BICUBIC)
    assert np.array_equal(low.numpy(), np.asarray(expected))
    assert known.all()
    assert offset == BICUBIC.offset(factor) == (factor - 1) / 2


def test_bicubic_samples_lie_in_the_middle_of_their_blocks():
    """A slanted plane comes back exactly, away from the border, only where the offset is right."""
    plane = torch.arange(64.0)[:, None] + 2 * torch.arange(64.0) + 1
    low, known, offset = BICUBIC.lowres(plane, plane > 0, 4)
    inner = slice(12, -12), slice(12, -12)
    back = aligned_bilinear(low, (64, 64), valid=known, ratio=4, offset=offset)
    torch.testing.assert_close(back[inner], plane[inner])


def test_bicubic_with_holes():
    depth, valid = torch.full((16, 16), 2.0), torch.ones(16, 16, dtype=torch.bool)
    valid[0, :2], valid[4:8, 4:7] = False, False  # the first block mostly valid, the second mostly not
    depth = torch.where(valid, depth, 1000.0)
    low, known, _ = BICUBIC.lowres(depth, valid, 4)
    assert not known[1, 1]
    assert known.sum() == 15
    assert low[1, 1] == 0
    torch.testing.assert_close(low[known], torch.full((15,), 2.0))  # nothing of what lies in the holes


def test_bicubic_crops_to_whole_blocks():
    cropped = BICUBIC.crop(scene(37, 43), 8)
    assert cropped.size == cropped.guide.shape[1:] == cropped.valid.shape == (32, 40)
    assert BICUBIC.crop(cropped, 8) is cropped
    with pytest.raises(ValueError, match="a map that 8 divides is required, got 37x43; crop it first"):
        BICUBIC.lowres(torch.ones(37, 43), torch.ones(37, 43, dtype=torch.bool), 8)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_bad_maps(protocol):
    valid = torch.ones(8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"required, got \(8, 8\), \(8, 4\)"):
        protocol.lowres(torch.ones(8, 8), valid[:, :4], 2)
    for factor in (0, -4, 32):
        with pytest.raises(ValueError, match=f"a factor from 1 up to the map's size is required, got {factor}"):
            protocol.lowres(torch.ones(8, 8), valid, factor)


def step(low, high, height=8, width=16):
    """Return a scene with an edge between two blocks, (H, W)."""
    values = torch.full((height, width), float(low))
    values[:, width // 2 :] = high
    guide = torch.zeros(3, height, width, dtype=torch.uint8)
    return Scene("step", guide, values, torch.ones(height, width, dtype=torch.bool), "levels", "Two values.")


def test_gdsr_samples_a_step_as_the_filter_says():
    """A cubic filter (a = -0.5) as wide as four blocks, which reads two pixels of each."""
    edge = step(0, 256)
    low, known, offset = GDSR.lowres(edge.depth, edge.valid, 2)
    assert low.tolist() == 4 * [[0, 0, -3, 17, 239, 259, 256, 256]]
    assert known.all()
    assert offset == GDSR.offset(2) == 0.5


def test_gdsr_has_the_input_of_bicubic():
    whole = scene(37, 43)
    holed = replace(whole, valid=torch.rand(37, 43) < 0.8)
    for own in (whole, holed):
        cropped = GDSR.crop(own, 8)
        assert cropped.size == (32, 40)
        a, b = (protocol.lowres(cropped.depth, cropped.valid, 8) for protocol in (GDSR, BICUBIC))
        assert torch.equal(a.depth, b.depth) and torch.equal(a.valid, b.valid)


def test_gdsr_scores_every_pixel():
    truth = scene(10, 12, unit="levels")
    prediction = truth.depth.clone()
    prediction[0, 0] += 3
    prediction[-1, -1] -= 4
    assert GDSR.scored(truth).all()
    assert GDSR.rmse(prediction, truth) == pytest.approx(math.sqrt(25 / 120), rel=1e-5)
    nothing = replace(truth, valid=torch.zeros(10, 12, dtype=torch.bool))
    with pytest.raises(DataError, match="room: a valid pixel is required to score a result, got none in 10x12 pixels"):
        GDSR.scored(nothing)


def test_gdsr_clips_a_result_to_what_its_file_could_hold():
    truth = replace(step(0, 255), limits=(0, 255))
    prediction = truth.depth + torch.where(truth.depth > 0, 300.0, -7.0)
    prediction[0, 0] = 4
    assert GDSR.rmse(prediction, truth) == pytest.approx(math.sqrt(16 / 128))
    assert GDSR.rmse(prediction, replace(truth, limits=None)) > 100
    prediction[0, 0] = math.inf
    with pytest.raises(ValueError, match="step: a value at every scored pixel is required, got nan or inf at 1"):
        GDSR.rmse(prediction, truth)


def test_rmse_by_hand():
    truth = scene(unit="px")
    prediction = truth.depth.clone()
    prediction[:6] = prediction[-6:] = prediction[:, :6] = prediction[:, -6:] = math.nan  # the border does not count
    prediction[6, 6] += 3
    prediction[-7, -7] -= 4
    assert PAC.rmse(prediction, truth) == pytest.approx(math.sqrt(25 / (20 * 28)), rel=1e-5)
    assert PAC.unit(truth) == "px"


def test_metres_are_reported_in_centimetres():
    truth = scene(unit="m")
    assert PAC.rmse(truth.depth + 0.5, truth) == pytest.approx(50, rel=1e-5)
    assert PAC.unit(truth) == "cm"


def test_only_valid_pixels_count():
    truth = scene()
    valid = truth.valid.clone()
    valid[10:20] = False
    truth = replace(truth, valid=valid)
    prediction = truth.depth.clone()
    prediction[10:20] = math.nan
    assert PAC.rmse(prediction, truth) == 0


def test_a_hole_in_the_result_is_an_error():
    truth = scene()
    prediction = truth.depth.clone()
    prediction[10, 10:13] = math.nan
    with pytest.raises(ValueError, match="room: a value at every scored pixel is required, got nan or inf at 3"):
        PAC.rmse(prediction, truth)
    with pytest.raises(ValueError, match=r"room: a map \(32, 40\) is required, got \(32, 39\)"):
        PAC.rmse(prediction[:, :-1], truth)


@pytest.mark.parametrize("size", [(12, 40), (5, 5)])
def test_nothing_to_score(size):
    with pytest.raises(DataError, match="room: a valid pixel further than 6 from the border is required"):
        PAC.scored(scene(*size))
