"""DDFUpsample2d against one DDF a sub-pixel and pixel_shuffle, as figure 5 of the paper draws it."""

import math

import pytest
import torch
import torch.nn.functional as F

from ddfnet.nn import DDFUpsample2d
from ddfnet.nn.upsample import SOFT, to_subpixel_major
from ddfnet.ops import ddf, ddf_upsample


def normalise(filters: torch.Tensor) -> torch.Tensor:
    """Compute equation 3 without its scale, over the third dimension."""
    return (filters - filters.mean(2, keepdim=True)) / filters.std(2, keepdim=True)


def figure5(layer: DDFUpsample2d, x: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Compute the output from the parameters; sub-pixel q predicts its spatial filters from ``maps[q]``."""
    state, (kh, kw), heads = layer.state_dict(), layer.kernel_size, layer.heads
    batch, channels, height, width = x.shape
    count, taps = len(maps), kh * kw
    part = lambda name, q: state[name].chunk(count)[q]  # noqa: E731  sub-pixel major
    outputs = []
    for q, source in enumerate(maps):
        spatial = F.conv2d(source, part("spatial.conv.weight", q), part("spatial.conv.bias", q))
        spatial = normalise(spatial.reshape(batch, heads, taps, height, width)).reshape(spatial.shape) / math.sqrt(taps)
        pooled = x.mean((2, 3), keepdim=True)
        hidden = F.relu(F.conv2d(pooled, part("channel.reduce.weight", q), part("channel.reduce.bias", q)))
        channel = F.conv2d(hidden, part("channel.expand.weight", q), part("channel.expand.bias", q))
        channel = normalise(channel.reshape(batch, channels, taps))
        channel = channel * part("channel.norm.scale", q).reshape(channels, taps)
        outputs.append(ddf(x, channel.reshape(batch, channels, kh, kw), spatial, combine=layer.combine))
    sh, sw = layer.scale_factor
    enlarged = torch.empty(batch, channels, height * sh, width * sw, dtype=x.dtype)
    for q, output in enumerate(outputs):
        enlarged[..., q // sw :: sh, q % sw :: sw] = output
    return enlarged


OPTIONS = {
    "default": {},
    "rectangular": {"scale_factor": (2, 3), "kernel_size": (3, 5)},
    "heads, add": {"heads": 2, "combine": "add"},
    "scale 1": {"scale_factor": 1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_without_a_guide(options):
    layer = DDFUpsample2d(4, **{"reduction": 0.5, "dtype": torch.double, **options})
    x = torch.randn(2, 4, 5, 6, dtype=torch.double)
    source = F.conv2d(x, layer.depthwise.weight, layer.depthwise.bias, padding=1, groups=4)
    expected = figure5(layer, x, [source] * math.prod(layer.scale_factor))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)  # eps


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_with_a_guide_of_the_inputs_size(options):
    layer = DDFUpsample2d(4, **{"guide_channels": 3, "reduction": 0.5, "dtype": torch.double, **options})
    x, guide = torch.randn(2, 4, 5, 6, dtype=torch.double), torch.randn(2, 3, 5, 6, dtype=torch.double)
    expected = figure5(layer, x, [guide] * math.prod(layer.scale_factor))
    torch.testing.assert_close(layer(x, guide), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_with_a_guide_of_the_outputs_size(options):
    options = {"guide_channels": 3, "guide_at": "output", "reduction": 0.5, "dtype": torch.double, **options}
    layer = DDFUpsample2d(4, **options)
    sh, sw = layer.scale_factor
    x, guide = torch.randn(2, 4, 5, 6, dtype=torch.double), torch.randn(2, 3, 5 * sh, 6 * sw, dtype=torch.double)
    expected = figure5(layer, x, [guide[..., y::sh, z::sw] for y in range(sh) for z in range(sw)])
    torch.testing.assert_close(layer(x, guide), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("guide_at", ["input", "output"])
@pytest.mark.parametrize("size", [(4, 6), (3, 1), (9, 30), (16, 24), (37, 41)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_guide_of_any_size_is_resized_with_antialiasing(guide_at, size, dtype):
    layer = DDFUpsample2d(2, guide_channels=3, guide_at=guide_at, dtype=dtype)
    x, guide = torch.randn(2, 2, 4, 6).to(dtype), torch.randn(2, 3, *size).to(dtype)
    goal = (4, 6) if guide_at == "input" else (8, 12)
    resized = F.interpolate(guide.float(), goal, mode="bilinear", antialias=True).to(dtype)
    assert torch.equal(layer(x, guide), layer(x, resized))


def test_both_readings_of_a_guide_agree_where_it_is_constant_in_a_pixel():
    coarse = DDFUpsample2d(2, guide_channels=3)
    fine = DDFUpsample2d(2, guide_channels=3, guide_at="output")
    fine.load_state_dict(coarse.state_dict())
    x, guide = torch.randn(2, 2, 5, 4), torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(fine(x, guide.repeat_interleave(2, 2).repeat_interleave(2, 3)), coarse(x, guide))


@pytest.mark.parametrize("guide_at", ["input", "output"])
@pytest.mark.parametrize("norm", ["filter", "softmax", "none"])
def test_filters_from_map_and_guide_are_of_their_sum(guide_at, norm):
    layer = DDFUpsample2d(4, (2, 3), guide_channels=3, guide_at=guide_at, from_map=True, heads=2, norm=norm)
    size = (5, 6) if guide_at == "input" else (10, 18)
    x, guide = torch.randn(2, 4, 5, 6), torch.randn(2, 3, *size)
    source = guide if guide_at == "input" else to_subpixel_major(guide, (2, 3))
    around = F.conv2d(x, layer.depthwise.weight, layer.depthwise.bias, padding=1, groups=4)
    filters = layer.spatial.norm(layer.spatial.conv(source) + F.conv2d(around, layer.spatial.beside.weight))
    channel = layer.channel(x).unflatten(1, (-1, 4))
    expected = ddf_upsample(x, channel, filters, scale_factor=(2, 3), kernel_size=3)
    torch.testing.assert_close(layer(x, guide), expected)
    layer(x, guide).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("init", ["nearest", "bilinear"])
def test_softmax_begins_near_an_interpolation_and_stays_between_its_samples(init, kernel_size):
    start = {"norm": "softmax", "init": init, "padding_mode": "replicate", "kernel_size": kernel_size}
    layer = DDFUpsample2d(4, guide_channels=3, guide_at="output", from_map=True, **start)
    x, guide = torch.rand(2, 4, 5, 6), torch.rand(2, 3, 10, 12)
    expected = F.interpolate(x, scale_factor=2, mode=init)
    torch.testing.assert_close(layer(x, guide), expected, rtol=0, atol=SOFT)
    torch.nn.init.normal_(layer.spatial.conv.weight, std=9)
    torch.nn.init.normal_(layer.spatial.beside.weight, std=9)
    assert (layer(x, guide) - expected).abs().max() > 0.2
    assert layer(x, guide).max() <= x.max() + 1e-6 and layer(x, guide).min() >= x.min() - 1e-6


def test_it_reaches_a_single_channel():
    assert DDFUpsample2d(1, 4, guide_channels=3)(torch.randn(1, 1, 3, 3), torch.rand(1, 3, 12, 12)).shape == (
        1,
        1,
        12,
        12,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1"),
        ({"heads": 3}, "heads must divide channels"),
        ({"combine": "max"}, "combine must be 'mul' or 'add'"),
        ({"norm": "x"}, "norm must be"),
        ({"kernel_size": 1}, "at least two taps"),
        ({"kernel_size": (3, 4)}, r"kernel_size must be odd, .* got \(3, 4\)"),
        ({"scale_factor": 0}, "scale_factor must be at least 1"),
        ({"reduction": -1.0}, "reduction must be above 0"),
        ({"guide_channels": 0}, "guide_channels must be None or at least 1, got 0"),
        ({"guide_channels": 3, "guide_at": "centre"}, "guide_at must be 'input' or 'output', got 'centre'"),
        ({"from_map": True}, "from_map=True adds to a guide: give guide_channels, or leave from_map out"),
        ({"init": "nearest"}, "init='nearest' needs norm='none' or 'softmax', .* got 'filter'"),
        ({"guide_at": "output"}, "guide_at='output' needs a guide: give guide_channels"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DDFUpsample2d(**{"channels": 4, **options})


@pytest.mark.parametrize(
    ("guide_channels", "guide", "error", "message"),
    [
        (None, torch.ones(2, 3, 5, 5), ValueError, "takes no guide: give it guide_channels"),
        (3, None, ValueError, r"needs a guide \(N, 3, h, w\)"),
        (3, torch.ones(2, 4, 5, 5), ValueError, r"the guide .* C = 3, got \(2, 4, 5, 5\)"),
        (3, torch.ones(1, 3, 5, 5), ValueError, r"the guide must have N = 2 .* got \(1, 3, 5, 5\)"),
        (3, torch.ones(2, 3, 0, 5), ValueError, "at least one pixel"),
        (3, torch.ones(2, 3, 5, 5, dtype=torch.uint8), TypeError, r"must be floating, got torch\.uint8"),
        (3, "image", TypeError, r"the guide .* must be a torch\.Tensor, got str"),
    ],
    ids=["unasked", "missing", "channels", "batch", "empty", "dtype", "type"],
)
def test_wrong_guides_are_refused(guide_channels, guide, error, message):
    with pytest.raises(error, match=message):
        DDFUpsample2d(4, guide_channels=guide_channels)(torch.randn(2, 4, 5, 5), guide)


def test_wrong_inputs_are_refused():
    with pytest.raises(
        ValueError, match=r"the input of DDFUpsample2d must be \(N, C, H, W\) with C = 4, got \(2, 3, 5, 5\)"
    ):
        DDFUpsample2d(4)(torch.randn(2, 3, 5, 5))


def test_its_repr_says_what_it_is():
    assert (
        "4, scale_factor=(2, 2), kernel_size=(3, 3), heads=1, combine='mul', guide_channels=3, guide_at='output'"
        in repr(DDFUpsample2d(4, guide_channels=3, guide_at="output"))
    )
