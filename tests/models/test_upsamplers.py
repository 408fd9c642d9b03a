"""Registered upsamplers: sizes, initial weights, and the costs of table 6."""

from __future__ import annotations

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("lightning")
pytest.importorskip("faster_coco_eval")

import torch
import torch.nn.functional as F
from torch import nn

from ddfnet.models.faster_rcnn import Detector
from ddfnet.models.upsamplers import UPSAMPLERS, register_upsampler, upsampler
from ddfnet.tasks.detection.evaluation import upsampler_macs
from tests.meta_device import check_reset

PAPER = {"nearest": 0.0, "bilinear": 0.02, "deconv": 12.57, "pixelshuffle": 50.18, "carafe": 2.14, "ddf": 0.58}
CHANNELS = 256
PIXELS = {
    False: 25 * 40 + 50 * 80 + 100 * 160,
    True: 13 * 20 + 25 * 40 + 50 * 80 + 100 * 160,
}  # pixels of the enlarged maps


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_twice_the_size_and_gradients_everywhere(name: str) -> None:
    layer, x = upsampler(name, 8), torch.randn(2, 8, 5, 7, requires_grad=True)
    result = layer(x)
    assert result.shape == (2, 8, 10, 14)
    result.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_interpolation_has_no_parameters(name: str) -> None:
    layer, x = upsampler(name, 8), torch.randn(1, 8, 5, 7)
    assert not list(layer.parameters())
    torch.testing.assert_close(layer(x), F.interpolate(x, scale_factor=2, mode=name))


@pytest.mark.parametrize("name", ["deconv", "pixelshuffle"])
def test_the_others_begin_as_in_mmdetection(name: str) -> None:
    [layer] = [m for m in upsampler(name, 64).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert layer.weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.02)
    assert layer.bias is not None and not layer.bias.any()


@pytest.mark.usefixtures("registries")
def test_a_registered_upsampler_is_in_the_detector() -> None:
    @register_upsampler("bicubic")
    def bicubic(channels: int) -> nn.Module:
        return nn.Upsample(scale_factor=2, mode="bicubic")

    assert register_upsampler("bicubic")(bicubic) is bicubic
    with pytest.raises(ValueError, match="upsampler 'ddf' is registered already; choose another name"):
        register_upsampler("ddf")(bicubic)
    detector = Detector(["a"], "mobilenetv3_small_050", "bicubic", width=8, head_width=8)
    assert {layer.mode for layer in detector.backbone.fpn.upsamplers} == {"bicubic"}
    assert upsampler_macs("bicubic", 8, 32, 32) == 8 * (2 * 2 + 4 * 4 + 8 * 8)


def test_no_such_upsampler() -> None:
    expected = f"upsampler must be one of {', '.join(map(repr, UPSAMPLERS))}, got 'magic'"
    with pytest.raises(ValueError, match=expected):
        upsampler("magic", 8)


@pytest.mark.parametrize("from_pooled", [False, True])
@pytest.mark.parametrize("name", UPSAMPLERS)
def test_the_cost_is_that_of_its_parts(name: str, from_pooled: bool) -> None:
    """Count every product per pixel of the smaller map, which becomes four."""
    levels = 4 if from_pooled else 3
    bottleneck = int(0.2 * CHANNELS)
    each = {
        "nearest": 0,
        "bilinear": 4 * CHANNELS,  # one per value
        "deconv": 9 * CHANNELS**2,
        "pixelshuffle": 9 * CHANNELS * 4 * CHANNELS,
        "carafe": CHANNELS * 64 + 9 * 64 * 100 + 4 * 25 * CHANNELS,
        "dysample": CHANNELS * 2 * 4 * 4 + 4 * CHANNELS,  # two offsets for each of 4 groups and 4 pixels; one per value
        # The depthwise convolution, the 1x1 convolution to 4 filters of 9 taps, and 1.5 per tap with both filters.
        "ddf": 9 * CHANNELS + CHANNELS * 36 + 3 * 4 * 9 * CHANNELS // 2,
    }
    # The channel branch of DDF-Up sees one averaged pixel per level.
    rest = {"ddf": levels * 4 * (CHANNELS * bottleneck + bottleneck * 9 * CHANNELS)}
    expected = PIXELS[from_pooled] * each[name] + rest.get(name, 0)
    assert upsampler_macs(name, CHANNELS, 800, 1280, from_pooled=from_pooled) == expected


@pytest.mark.parametrize(
    ("name", "tolerance"), [("bilinear", 0.1), ("deconv", 0.003), ("pixelshuffle", 0.001), ("carafe", 0.011)]
)
def test_the_costs_are_those_of_table_6(name: str, tolerance: float) -> None:
    """Its pyramid is mmdetection's FPN_CARAFE, whose top-down path begins one level higher than torchvision's.

    The paper's figures are differences of totals, rounded to 0.01 G. It counts biases, which FlopCounterMode does not
    (0.02 G for each row with a convolution): with them pixel shuffle comes to 50.18 and the transposed convolution to
    12.56. A hundredth of CARAFE's cost is not explained.
    """
    assert upsampler_macs(name, CHANNELS, 800, 1280, from_pooled=True) / 1e9 == pytest.approx(
        PAPER[name], rel=tolerance
    )
    assert upsampler_macs("nearest", CHANNELS, 800, 1280) == 0
    biases = {"deconv": 4 * CHANNELS, "pixelshuffle": 4 * CHANNELS}
    if name in biases:
        counted = upsampler_macs(name, CHANNELS, 800, 1280, from_pooled=True) + PIXELS[True] * biases[name]
        assert counted / 1e9 == pytest.approx(PAPER[name], abs=0.01)


def test_the_cost_of_ddf_up_is_less_for_one_depthwise_convolution_and_more_for_combining() -> None:
    """Check that 0.58 G are a depthwise and a 1x1 convolution per sub-pixel and one multiply-add per tap: 27 * 4."""
    n = PIXELS[False]
    assert n * 27 * 4 * CHANNELS / 1e9 == pytest.approx(PAPER["ddf"], abs=0.005)
    shared, combining = n * 3 * 9 * CHANNELS, n * 4 * 9 * CHANNELS // 2
    branch = upsampler_macs("ddf", CHANNELS, 800, 1280) - (n * 27 * 4 * CHANNELS - shared + combining)
    assert 0 < branch < 0.005 * 1e9


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_memory_from_the_meta_device_gets_the_constructors_values(name: str) -> None:
    check_reset(lambda: upsampler(name, 8))
