"""Methods: the positions of their samples, filling, and filters that follow the guide."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddfnet.data.depth.protocols import PAC, PROTOCOLS
from ddfnet.tasks.depth.baselines import METHODS, ddfnet

CLASSICAL = [name for name in METHODS if name != "ddfnet"]


def run(name, low, valid, guide, factor, offset):
    if name in ("joint-bilateral", "guided-filter"):
        cv2 = pytest.importorskip("cv2")
        if not hasattr(cv2, "ximgproc"):
            pytest.skip("this OpenCV was built without ximgproc")
    return METHODS[name](low, valid, guide, factor=factor, offset=offset)


def two_surfaces(height=45, width=50):
    """Return a slanting edge between 1 and 3, and a guide of two greys with the same edge."""
    far = torch.arange(width) + torch.arange(height)[:, None] // 3 > 30
    depth = torch.where(far, 3.0, 1.0)
    guide = torch.where(far, 200, 40).to(torch.uint8).expand(3, -1, -1)
    return depth, guide


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_constant_map_with_holes_stays_constant(name, factor, protocol):
    depth, guide = torch.full((48, 56), 2.5), torch.randint(256, (3, 48, 56), dtype=torch.uint8)
    low, valid, offset = protocol.lowres(depth, torch.rand(48, 56) < 0.7, factor)
    assert factor == 8 or not valid.all()
    result = run(name, low, valid, guide, factor, offset)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, depth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", CLASSICAL)
def test_sizes_that_the_factor_does_not_divide(name):
    depth, guide = two_surfaces()
    low, valid, offset = PAC.lowres(depth, depth > 0, 8)
    result = run(name, low, valid, guide, 8, offset)
    assert result.shape == depth.shape
    assert result.isfinite().all()


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest"])
def test_samples_lie_where_they_were_taken(name):
    depth = torch.rand(40, 48) + 1
    for protocol_factor in (2, 4, 8):
        low, valid, offset = PAC.lowres(depth, depth > 0, protocol_factor)
        result = METHODS[name](low, valid, torch.zeros(3, 40, 48), factor=protocol_factor, offset=offset)
        first = slice(int(offset), None, protocol_factor)
        torch.testing.assert_close(result[first, first], low)


def test_half_a_pixel_off_is_torchs_interpolate():
    low = torch.rand(5, 6) + 1
    expected = torch.nn.functional.interpolate(low[None, None], scale_factor=4, mode="bilinear", align_corners=False)
    result = METHODS["bilinear-half-pixel"](low, low > 0, torch.zeros(3, 20, 24), factor=4, offset=1)
    torch.testing.assert_close(result, expected[0, 0])


def test_bicubic_is_torchs_where_the_samples_lie_in_the_middle_of_their_blocks():
    low = torch.rand(9, 10) + 1
    expected = torch.nn.functional.interpolate(low[None, None], scale_factor=4, mode="bicubic", align_corners=False)
    result = METHODS["bicubic"](low, low > 0, torch.zeros(3, 36, 40), factor=4, offset=1.5)
    torch.testing.assert_close(result[8:-8, 8:-8], expected[0, 0, 8:-8, 8:-8])


def test_pillows_bicubic_is_pillows():
    low = torch.rand(9, 10) + 1
    expected = Image.fromarray(low.numpy()).resize((40, 36), Image.Resampling.BICUBIC)
    result = METHODS["bicubic-pillow"](low, low > 0, torch.zeros(3, 36, 40), factor=4, offset=1)
    assert np.array_equal(result, np.array(expected))
    behind = METHODS["bicubic-pillow"](low, low > 0, torch.zeros(3, 35, 41), factor=4, offset=1)
    assert torch.equal(behind[:, :40], result[:35])
    assert torch.equal(behind[:, 40], result[:35, 39])


@pytest.mark.parametrize("name", ["joint-bilateral", "guided-filter"])
def test_the_filters_follow_the_guide(name):
    depth, guide = two_surfaces()
    low, valid, offset = PAC.lowres(depth, depth > 0, 4)
    errors = [
        (run(each, low, valid, image, 4, offset) - depth).square().mean().item()
        for each, image in (("bilinear", guide), (name, guide), (name, guide.flip(2)))
    ]
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] > 0.9 * errors[0]


@pytest.mark.parametrize(("size", "factor"), [((48, 56), 8), ((45, 50), 8), ((40, 200), 16)])
def test_ddfnet_lays_the_samples_where_they_were_taken(monkeypatch, size, factor):
    """Also where the sizes alone would tell of another ratio."""
    calls = []

    def upsample_depth(depth, guide, **options):
        calls.append((depth, guide, options))
        return torch.zeros(guide.shape[:2])

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", upsample_depth)
    depth, guide = two_surfaces(*size)
    low, valid, offset = PAC.lowres(depth, depth > 0, factor)
    result = ddfnet("weights.safetensors", tile=64)(low, valid, guide, factor=factor, offset=offset)
    assert result.shape == size
    [(small, image, options)] = calls
    assert torch.equal(image.permute(2, 0, 1), guide)
    assert torch.equal(small, low) and torch.equal(options.pop("valid"), valid)
    model = {"model": "weights.safetensors", "fill": True, "tile": 64}
    assert options == {"ratio": factor, "offset": (factor - 1) // 2, **model}
