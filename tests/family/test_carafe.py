"""CARAFE: its formula, and what it refuses. What all layers promise is in test_layers."""

import pytest
import torch
import torch.nn.functional as F

from ddfnet.family import CARAFE


def reference(layer: CARAFE, x: torch.Tensor) -> torch.Tensor:
    """Compute the paper's formula: weight and sum the window around the pixel that each output pixel lies in."""
    (sh, sw), (kh, kw), heads = layer.scale_factor, layer.up_kernel, layer.up_group
    n, channels, height, width = x.shape
    taps = kh * kw
    scores = layer.encode(layer.compress(x)).reshape(n, sh, sw, heads, taps, height, width)
    weights = scores.softmax(4)
    windows = F.unfold(x, (kh, kw), padding=(kh // 2, kw // 2)).reshape(
        n, heads, channels // heads, taps, height, width
    )
    result = torch.einsum("nabgthw,ngcthw->ngchawb", weights, windows)
    return result.reshape(n, channels, sh * height, sw * width)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"up_group": 4, "up_kernel": 3, "compressed_channels": 5},
        {"scale_factor": (2, 3), "up_kernel": (3, 5), "encoder_kernel": (1, 3)},
    ],
)
def test_it_is_the_formula(options):
    layer = CARAFE(8, **options)
    torch.nn.init.normal_(layer.encode.weight)  # so that no two filters are alike
    x = torch.randn(2, 8, 6, 7)
    torch.testing.assert_close(layer(x), reference(layer, x), rtol=1e-4, atol=1e-5)


def test_a_constant_stays_constant_away_from_the_border():
    layer = CARAFE(4)
    torch.nn.init.normal_(layer.encode.weight)
    result = layer(torch.full((1, 4, 9, 9), 3.0))
    torch.testing.assert_close(result[:, :, 4:-4, 4:-4], torch.full((1, 4, 10, 10), 3.0))


def test_at_first_it_is_nearly_an_average():
    x = torch.randn(1, 16, 8, 8)
    expected = F.interpolate(F.avg_pool2d(x, 5, stride=1, padding=2), scale_factor=2, mode="nearest")
    assert (CARAFE(16)(x) - expected).abs().max() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"up_group": 3}, "up_group must divide channels, got up_group=3 and channels=8"),
        ({"up_kernel": 4}, "up_kernel must be odd, for its middle is the pixel, got 4"),
        ({"encoder_kernel": (3, 2)}, r"encoder_kernel must be odd, for its middle is the pixel, got \(3, 2\)"),
        ({"compressed_channels": 0}, "compressed_channels must be at least 1, got 0"),
        ({"scale_factor": 0}, "scale_factor must be at least 1, got 0"),
    ],
)
def test_a_wrong_option(options, message):
    with pytest.raises(ValueError, match=message):
        CARAFE(**{"channels": 8, **options})


def test_a_wrong_input():
    with pytest.raises(ValueError, match=r"the input of CARAFE must be \(N, C, H, W\) with C = 8, got \(1, 4, 5, 5\)"):
        CARAFE(8)(torch.randn(1, 4, 5, 5))
