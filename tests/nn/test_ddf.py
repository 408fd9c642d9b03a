"""DDF2d against the paper's equations 2 and 3, one output pixel at a time."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import ddfnet
from ddfnet.nn import DDF2d


def randomise(layer: DDF2d) -> DDF2d:
    """Move all parameters, those that begin with zeros too."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def normalise(filters: torch.Tensor) -> torch.Tensor:
    """Compute equation 3 without its scale, over the last dimension."""
    return (filters - filters.mean(-1, keepdim=True)) / filters.std(-1, keepdim=True)


def literal(layer: DDF2d, x: torch.Tensor, size: tuple[int, int], first: tuple[int, int]) -> torch.Tensor:
    """Compute the layer's result for one map (C, H, W) from the definition.

    The window of output pixel y begins at input pixel ``y*stride + first``.
    """
    state, (kh, kw), (sy, sx), (dy, dx) = layer.state_dict(), layer.kernel_size, layer.stride, layer.dilation
    channels, height, width = x.shape
    gain = math.sqrt(2 / (kh * kw))
    missing = 1.0 if layer.combine == "mul" else 0.0
    channel = torch.full((channels, kh, kw), missing, dtype=x.dtype)
    if layer.filters != "spatial":
        hidden = F.relu(state["channel.reduce.weight"].flatten(1) @ x.mean((1, 2)) + state["channel.reduce.bias"])
        predicted = state["channel.expand.weight"].flatten(1) @ hidden + state["channel.expand.bias"]
        channel = normalise(predicted.reshape(channels, -1)) * state["channel.norm.scale"].reshape(channels, -1)
        channel = channel.reshape(channels, kh, kw)
    result = torch.zeros(channels, *size, dtype=x.dtype)
    for row, column in itertools.product(*map(range, size)):
        top, left = row * sy + first[0], column * sx + first[1]
        spatial = torch.full((layer.heads, kh, kw), missing, dtype=x.dtype)
        if layer.filters != "channel":
            middle = [
                min(max(first + d * (k - 1) // 2, 0), n - 1)
                for first, d, k, n in zip((top, left), layer.dilation, (kh, kw), (height, width), strict=True)
            ]
            predicted = (
                state["spatial.conv.weight"].flatten(1) @ x[:, middle[0], middle[1]] + state["spatial.conv.bias"]
            )
            spatial = (gain * normalise(predicted.reshape(layer.heads, -1))).reshape(-1, kh, kw)
        for ky, kx in itertools.product(range(kh), range(kw)):
            y, z = top + ky * dy, left + kx * dx
            if 0 <= y < height and 0 <= z < width:
                each = spatial[:, ky, kx].repeat_interleave(channels // layer.heads)
                weight = channel[:, ky, kx] * each if layer.combine == "mul" else channel[:, ky, kx] + each
                result[:, row, column] += weight * x[:, y, z]
    return result


CASES = {
    "default": ({}, (-1, -1)),
    "stride": ({"stride": 2}, (-1, -1)),
    "no padding": ({"padding": 0}, (0, 0)),
    "less padding": ({"kernel_size": 5, "padding": 1, "stride": 2}, (-1, -1)),
    "middles in the padding": ({"padding": 3, "stride": 2}, (-3, -3)),
    "even": ({"kernel_size": 2}, (0, 0)),
    "even, strided and dilated": ({"kernel_size": 4, "stride": (2, 3), "dilation": (1, 2)}, (-1, -3)),
    "even, middles in the padding": ({"kernel_size": 4, "padding": 3}, (-3, -3)),
    "rectangular": ({"kernel_size": (1, 5), "padding": (0, 2)}, (0, -2)),
    "same": ({"kernel_size": (2, 3), "padding": "same", "dilation": (3, 2)}, (-1, -2)),
    "valid": ({"kernel_size": (2, 3), "padding": "valid"}, (0, 0)),
    "heads": ({"heads": 3}, (-1, -1)),
    "add": ({"combine": "add", "heads": 2}, (-1, -1)),
    "spatial": ({"filters": "spatial"}, (-1, -1)),
    "channel": ({"filters": "channel"}, (-1, -1)),
    "spatial, add": ({"filters": "spatial", "combine": "add"}, (-1, -1)),
    "channel, add": ({"filters": "channel", "combine": "add"}, (-1, -1)),
}


@pytest.mark.parametrize(("options", "first"), CASES.values(), ids=CASES)
def test_it_computes_the_papers_module(options, first):
    layer = DDF2d(6, **{"reduction": 0.5, "dtype": torch.double, **options})
    x = torch.randn(2, 6, 7, 8, dtype=torch.double)
    result = layer(x)
    expected = torch.stack([literal(layer, each, tuple(result.shape[2:]), first) for each in x])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)  # eps


@pytest.mark.parametrize("kernel_size", [2, 3, (3, 4), 5], ids=str)
def test_the_size_is_conv2ds_for_any_geometry(kernel_size):
    for stride, padding, dilation, size in itertools.product(
        (1, 2, 3), (None, 0, 1, 4), (1, 2), ((7, 11), (12, 13), (224, 1))
    ):
        layer = DDF2d(2, kernel_size, stride, padding, dilation)
        x = torch.randn(1, 2, *size)
        try:
            expected = F.conv2d(
                x, torch.ones(2, 2, *layer.kernel_size), stride=stride, padding=layer.padding, dilation=dilation
            )
        except RuntimeError:
            with pytest.raises(ValueError, match="the output would be empty"):
                layer(x)
        else:
            assert layer(x).shape == expected.shape


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 3), (3, 2), ((4, 1), 1)], ids=str)
def test_same_padding_is_where_conv2d_has_it(kernel_size, dilation):
    layer = DDF2d(3, kernel_size, padding="same", dilation=dilation, filters="channel", norm="none")
    torch.nn.init.zeros_(layer.channel.expand.weight)
    weight = layer.channel.expand.bias.reshape(3, 1, *layer.kernel_size)
    x = torch.randn(2, 3, 9, 10)
    torch.testing.assert_close(layer(x), F.conv2d(x, weight, padding="same", dilation=dilation, groups=3))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_default_padding_predicts_with_a_strided_convolution_of_the_input_itself(kernel_size, stride):
    layer = DDF2d(4, kernel_size, stride, dilation=2)
    seen = []
    layer.spatial.conv.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.randn(1, 4, 9, 10)
    layer(x)
    assert seen[0] is x
    assert layer.spatial.conv.stride == (stride, stride)


@pytest.mark.parametrize(
    ("channels", "parameters"), [(64, 9_429), (128, 35_490), (256, 137_532), (512, 536_175)], ids=str
)
def test_it_has_as_many_parameters_as_the_official_layer(channels, parameters):
    assert sum(parameter.numel() for parameter in DDF2d(channels).parameters()) == parameters


@pytest.mark.parametrize(
    ("channels", "reduction", "width"), [(1, 0.2, 1), (4, 0.2, 1), (9, 0.2, 1), (256, 0.2, 51), (8, 2.0, 16)], ids=str
)
def test_the_bottleneck_is_rounded_down_but_never_empty(channels, reduction, width):
    layer = DDF2d(channels, reduction=reduction)
    assert layer.channel.reduce.out_channels == width
    assert layer(torch.randn(2, channels, 5, 5)).shape == (2, channels, 5, 5)


def predicted(layer: DDF2d, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the filters of both kinds, (filters, taps) each."""
    spatial, channel = layer.spatial(x), layer.channel(x)
    return [spatial.movedim(1, -1).reshape(-1, 9), channel.reshape(-1, 9)]


class TestNorm:
    """Properties that each normalisation gives to both kinds of filters."""

    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 5

    def test_softmax(self):
        for filters in predicted(DDF2d(4, norm="softmax", heads=2), self.x):
            assert (filters > 0).all()
            torch.testing.assert_close(filters.sum(1), torch.ones(len(filters)))

    def test_sigmoid(self):
        layer = DDF2d(4, norm="sigmoid")
        raw = F.conv2d(self.x, layer.spatial.conv.weight, layer.spatial.conv.bias)
        torch.testing.assert_close(layer.spatial(self.x), 1 / (1 + (-raw).exp()))
        assert all(((filters > 0) & (filters < 1)).all() for filters in predicted(layer, self.x))

    def test_none(self):
        layer = DDF2d(4, norm="none")
        assert torch.equal(layer.spatial(self.x), F.conv2d(self.x, layer.spatial.conv.weight, layer.spatial.conv.bias))
        assert layer.state_dict().keys() == {
            f"{part}.{name}"
            for part in ("spatial.conv", "channel.reduce", "channel.expand")
            for name in ("weight", "bias")
        }

    def test_batch(self):
        layer = DDF2d(4, norm="batch", heads=2)
        spatial = layer.spatial(self.x)
        torch.testing.assert_close(spatial.mean((0, 2, 3)), torch.zeros(18), atol=1e-5, rtol=0)
        torch.testing.assert_close(spatial.std((0, 2, 3)), torch.full((18,), math.sqrt(2) / 3), rtol=0.05, atol=0)
        assert layer.channel.norm.weight.shape == (4 * 9,)
        assert layer.eval()(self.x[:1]).isfinite().all()

    def test_filter(self):
        for filters in predicted(DDF2d(4, heads=2), self.x)[:1]:
            torch.testing.assert_close(filters.mean(1), torch.zeros(len(filters)), atol=1e-6, rtol=0)
            torch.testing.assert_close(filters.std(1), torch.full((len(filters),), math.sqrt(2) / 3))


@pytest.mark.parametrize("norm", ["batch", "sigmoid", "softmax", "none"])
def test_one_tap_is_for_other_norms(norm):
    assert DDF2d(4, 1, norm=norm)(torch.randn(2, 4, 3, 3)).shape == (2, 4, 3, 3)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_it_can_begin_as_a_depthwise_convolution(combine):
    layer = DDF2d(6, 5, stride=2, heads=2, norm="none", combine=combine, reduction=2.0, zero_init=True)
    x = torch.randn(3, 6, 11, 12)
    weight = layer.channel.expand.bias.reshape(6, 1, 5, 5)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.3)
    result = layer(x)
    torch.testing.assert_close(result, F.conv2d(x, weight, stride=2, padding=2, groups=6), rtol=1e-5, atol=1e-5)
    result.square().sum().backward()
    for branch in (layer.spatial.conv, layer.channel.expand):
        assert branch.weight.grad.abs().max() > 0, "it learns to adapt at once"


@pytest.mark.parametrize("filters", ["both", "spatial", "channel"])
@pytest.mark.parametrize("norm", ["filter", "none"])
@pytest.mark.parametrize("combine", ["mul", "add"])
class TestStaticWeight:
    @pytest.fixture
    def layer(self, norm, filters, combine):
        return DDF2d(6, stride=2, heads=2, norm=norm, filters=filters, combine=combine, reduction=1.0, static=True)

    def test_begins_as_its_depthwise_convolution(self, layer):
        x = torch.randn(3, 6, 11, 12)
        result = layer(x)
        torch.testing.assert_close(result, F.conv2d(x, layer.weight, stride=2, padding=1, groups=6))
        result.square().sum().backward()
        learning = {name for name, parameter in layer.named_parameters() if parameter.grad.abs().max() > 0}
        moved = "norm.scale" if layer.norm == "filter" else "weight"
        parts = {"spatial": f"spatial.{moved.replace('weight', 'conv.weight')}"}
        parts["channel"] = f"channel.{moved.replace('weight', 'expand.weight')}"
        wanted = [part for kind, part in parts.items() if getattr(layer, kind) is not None]
        assert learning >= {"weight", *wanted}

    def test_filters_are_changes_of_the_weight(self, layer, combine):
        randomise(layer)
        x = torch.randn(3, 6, 11, 12)
        channel = layer.weight.squeeze(1) + (0 if layer.channel is None else layer.channel(x))
        spatial = None if layer.spatial is None else layer.spatial(x) + (combine == "mul")
        options = {"kernel_size": 3, "stride": 2, "padding": 1, "combine": combine}
        result = ddfnet.ddf(x, channel.expand(3, -1, -1, -1), spatial, **options)
        torch.testing.assert_close(layer(x), result)
        with torch.no_grad():  # where all of it may be one operator
            torch.testing.assert_close(layer(x), result, rtol=1e-5, atol=1e-5)

    def test_autocast_gives_half_types(self, layer):
        randomise(layer)
        x = torch.randn(2, 6, 7, 8)
        with torch.autocast("cpu", torch.bfloat16):
            result = layer(x)
        assert result.dtype == torch.bfloat16
        torch.testing.assert_close(result.float(), layer(x), rtol=0.05, atol=0.1)


def test_one_operator_holds_the_static_weight():
    layer = randomise(DDF2d(16, static=True))
    assert layer.is_one_operator()
    x = torch.randn(2, 16, 9, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), ddfnet.ddf(x, *layer.predict(x), padding=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filters", ["both", "spatial", "channel"])
@pytest.mark.parametrize("norm", ["filter", "sigmoid", "softmax", "none"])
def test_it_can_begin_with_filters_that_are_the_same_everywhere(norm, filters):
    layer = DDF2d(4, norm=norm, filters=filters, reduction=2.0, zero_init=True)
    x = torch.randn(3, 4, 9, 9)
    result, shifted = layer(x), layer(x.roll((1, 1), (2, 3)))
    torch.testing.assert_close(result[..., 1:-2, 1:-2], shifted[..., 2:-1, 2:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(2 * x), 2 * result, rtol=1e-4, atol=1e-5)
    result.square().sum().backward()
    branch = layer.channel.expand if layer.spatial is None else layer.spatial.conv
    assert result.std() > 0.01 and branch.weight.grad.abs().max() > 0


@pytest.mark.parametrize("filters", ["both", "spatial", "channel"])
def test_the_branches_that_are_not_asked_for_are_not_there(filters):
    layer = DDF2d(4, filters=filters)
    assert (layer.spatial is not None, layer.channel is not None) == (filters != "channel", filters != "spatial")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 1}, "at least two taps"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"heads": 3}, "heads must divide channels, got heads=3 and channels=8"),
        ({"heads": 0}, "heads must divide channels, got heads=0"),
        ({"reduction": 0.0}, r"reduction must be above 0, got 0\.0"),
        ({"combine": "sub"}, "combine must be 'mul' or 'add', got 'sub'"),
        ({"norm": "layer"}, "norm must be 'filter', 'batch', 'sigmoid', 'softmax' or 'none', got 'layer'"),
        ({"filters": "neither"}, "filters must be 'both', 'spatial' or 'channel', got 'neither'"),
        ({"norm": "batch", "zero_init": True}, "zero_init=True needs another norm than 'batch'"),
        ({"norm": "sigmoid", "static": True}, "static=True needs norm='filter' or 'none' and no zero_init"),
        ({"norm": "none", "zero_init": True, "static": True}, "static=True needs norm='filter' or 'none' and no zero"),
        ({"padding": "reflect"}, "padding must be an int, .* got 'reflect'"),
        ({"padding": "same", "stride": 2}, r"padding='same' needs stride 1, got stride=\(2, 2\)"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"dilation": (1, 2, 3)}, r"dilation must be an int or \(h, w\)"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DDF2d(**{"channels": 8, **options})


def test_sizes_are_ints():
    with pytest.raises(TypeError, match="kernel_size must be an int or a pair of ints"):
        DDF2d(8, 3.0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 7, 5, 5), r"must be \(N, C, H, W\) with C = 8, got \(2, 7, 5, 5\)$"),
        ((8, 5, 5), r"got \(8, 5, 5\); add a batch dimension"),
        ((2, 8, 0, 5), "the output would be empty"),
    ],
    ids=["channels", "no batch", "empty"],
)
def test_other_inputs_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        DDF2d(8)(torch.randn(shape))


def test_the_input_is_a_tensor():
    with pytest.raises(TypeError, match=r"the input of DDF2d must be a torch\.Tensor, got list"):
        DDF2d(8)([1.0])


def test_its_repr_says_what_it_is():
    text = repr(DDF2d(8, (2, 3), padding="same", heads=2, combine="add", filters="spatial"))
    for part in ("8, kernel_size=(2, 3)", "padding=(0, 1)+(1, 0)", "heads=2", "combine='add'", "filters='spatial'"):
        assert part in text
