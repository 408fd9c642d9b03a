"""Convolutions that become DDF layers: depthwise ones compute the same at first, and learn."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from ddfnet.nn import DDF2d, DDFConv2d
from ddfnet.surgery import replace_conv
from ddfnet.surgery.convolutions import SamePadding
from tests.alterations import ALTERATIONS

GEOMETRIES = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided, dilated": {"kernel_size": 5, "stride": 2, "dilation": 2, "padding": (3, 1)},
    "no bias": {"kernel_size": 3, "bias": False},
    "same": {"kernel_size": 7, "padding": "same"},
    "even, same": {"kernel_size": 4, "padding": "same"},
    "valid": {"kernel_size": (1, 3), "padding": "valid"},
}


def depthwise(channels=6, **options):
    return nn.Conv2d(channels, channels, groups=channels, **options)


def error(result, expected):
    return ((result - expected).abs().max() / expected.abs().max()).item()


class TestDepthwise:
    @pytest.mark.parametrize("norm", ["filter", "none"])
    @pytest.mark.parametrize("combine", ["mul", "add"])
    @pytest.mark.parametrize("options", GEOMETRIES.values(), ids=GEOMETRIES)
    def test_it_computes_the_same_and_learns_to_adapt(self, options, combine, norm):
        model = nn.Sequential(nn.ReLU(), depthwise(**options))
        x = torch.randn(3, 6, 13, 12)
        expected = model(x)
        report = replace_conv(model, "*", combine=combine, norm=norm, heads=2, reduction=2.0)
        result = model(x)
        assert error(result, expected) <= 1e-5
        [change] = report.changes
        assert (change.name, change.begins) == ("1", "identical")
        result.square().sum().backward()
        layer = model[1] if isinstance(model[1], DDF2d) else model[1].ddf
        if norm == "filter":
            learning = [layer.spatial.norm.scale, layer.channel.norm.scale]
        else:
            learning = [layer.spatial.conv.weight, layer.channel.expand.weight]
        for parameter in [layer.weight, *learning]:
            assert parameter.grad.abs().max() > 0

    def test_other_norms_have_no_identical_start(self):
        with pytest.raises(ValueError, match="static=True needs norm='filter' or 'none'"):
            replace_conv(nn.Sequential(depthwise(kernel_size=3)), "*", norm="sigmoid")

    def test_one_channel_is_depthwise(self):
        model = nn.Sequential(nn.Conv2d(1, 1, 3))
        x = torch.randn(2, 1, 9, 9)
        expected = model(x)
        replace_conv(model, "0")
        assert error(model(x), expected) <= 1e-5

    def test_dtype_mode_and_memory_format_stay(self):
        model = nn.Sequential(depthwise(kernel_size=3)).double().eval()
        x = torch.randn(2, 6, 9, 9, dtype=torch.double).contiguous(memory_format=torch.channels_last)
        expected = model(x)
        replace_conv(model, "*")
        result = model(x)
        assert error(result, expected) <= 1e-12
        assert not model[0].training and not model[0].ddf.training
        assert result.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("size", [(12, 15), (13, 8)], ids=str)
    @pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (4, 1, 1), (3, 1, 2)])
    def test_timms_padding_as_in_tensorflow_stays(self, kernel, stride, dilation, size):
        timm_layers = pytest.importorskip("timm.layers")
        conv = timm_layers.Conv2dSame(6, 6, kernel, stride, dilation=dilation, groups=6)
        model, x = nn.Sequential(conv), torch.randn(2, 6, *size)
        expected = model(x)
        replace_conv(model, "*")
        assert isinstance(model[0][0], SamePadding)
        assert error(model(x), expected) <= 1e-5


class TestFull:
    def test_it_is_replaced_as_in_the_paper(self):
        model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 8, 3, stride=2))
        x = torch.randn(2, 4, 14, 14)
        shape = model(x).shape
        report = replace_conv(model, nn.Conv2d, norm="sigmoid", reduction=0.5, static=False)
        assert isinstance(model[0], DDF2d) and isinstance(model[1], DDFConv2d)
        assert isinstance(model[0].spatial.norm, nn.Sigmoid) and model[1].pointwise.out_channels == 8
        assert model(x).shape == shape
        assert [change.begins for change in report.changes] == ["not identical"] * 2
        report.undo()
        replace_conv(model, "0", pointwise=True)
        assert model[0].pointwise is not None

    def test_it_has_a_static_weight_by_default(self):
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3))
        replace_conv(model, "0")
        replace_conv(model, "1", static=False)
        assert model[0].ddf.weight.shape == (4, 1, 3, 3) and model[1].ddf.weight is None

    def test_it_trains(self):
        model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
        replace_conv(model, "0")
        model(torch.randn(2, 4, 9, 9)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce = nn.Conv2d(8, 4, 1)
        self.spatial = nn.Conv2d(4, 4, 3, padding=1)
        self.expand = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        return x + self.expand(self.spatial(self.reduce(x)).relu())


def blocks():
    return nn.Sequential(Block(), Block(), nn.Conv2d(8, 8, 5, padding=2, groups=8))


class TestChoice:
    @pytest.mark.parametrize(
        ("where", "chosen"),
        [
            ("*", ["0.spatial", "1.spatial", "2"]),
            ("*.spatial", ["0.spatial", "1.spatial"]),
            ("1.*", ["1.spatial"]),
            (["0.*", "2"], ["0.spatial", "2"]),
            (nn.Conv2d, ["0.spatial", "1.spatial", "2"]),
            (lambda name, layer: getattr(layer, "groups", 1) > 1, ["2"]),
            (lambda name, layer: name.startswith("0"), ["0.spatial"]),
        ],
        ids=["all", "pattern", "block", "patterns", "class", "groups", "name"],
    )
    def test_by_pattern_class_and_function(self, where, chosen):
        report = replace_conv(blocks(), where)
        assert [change.name for change in report.changes] == chosen

    def test_by_kernel(self):
        assert [change.name for change in replace_conv(blocks(), "*", kernel_size=5).changes] == ["2"]
        assert len(replace_conv(blocks(), "*", kernel_size=(3, 3)).changes) == 2

    def test_a_layer_in_two_places_becomes_one_layer(self):
        conv = depthwise(kernel_size=3)
        model = nn.Sequential(conv, conv)
        x = torch.randn(1, 6, 9, 9)
        expected = model(x)
        report = replace_conv(model, "1")
        assert model[0] is model[1] and len(report.changes) == 1
        assert error(model(x), expected) <= 1e-5


def test_layers_in_the_place_of_frozen_ones_are_trainable():
    model = nn.Sequential(depthwise(kernel_size=3)).requires_grad_(False)
    report = replace_conv(model, "*")
    assert all(p.requires_grad for p in model.parameters())
    report.undo()
    assert not any(p.requires_grad for p in model.parameters())


class TestReport:
    def test_parameters_and_multiply_adds_before_and_after(self):
        model = blocks()
        before = sum(p.numel() for p in model.parameters())
        report = replace_conv(model, "*.spatial", input_shape=(1, 8, 10, 10))
        assert report.parameters == (before, sum(p.numel() for p in model.parameters()))
        [first, second] = report.changes
        assert first.parameters == (4 * 4 * 9 + 4, sum(p.numel() for p in model[0].spatial.parameters()))
        assert first.macs == second.macs and first.macs[0] == 100 * 4 * 4 * 9
        # Nine taps predicted of four channels, 1.5 operations per tap and channel, and a bottleneck of one.
        assert first.macs[1] == 100 * (4 * 9 + 1.5 * 4 * 9) + 4 + 4 * 9
        assert report.macs[0] - report.macs[1] == 2 * (first.macs[0] - first.macs[1])
        assert "0.spatial  Conv2d 3x3 4  DDFConv2d 3x3 4  not identical  148 -> " in str(report)

    def test_without_a_shape_there_are_no_multiply_adds(self):
        report = replace_conv(blocks(), "*")
        assert report.macs is None and "MACs" not in str(report)

    def test_undo(self):
        model = blocks()
        layers, x = dict(model.named_modules()), torch.randn(1, 8, 6, 6)
        expected = model(x)
        report = replace_conv(model, "*")
        report.undo()
        assert dict(model.named_modules()) == layers
        assert torch.equal(model(x), expected)
        with pytest.raises(ValueError, match="undone before"):
            report.undo()

    def test_undo_of_what_was_changed_since_is_refused(self):
        model = blocks()
        report = replace_conv(model, "*")
        kept = model[2] = nn.Identity()
        with pytest.raises(ValueError, match="2 is not what this surgery put there"):
            report.undo()
        assert model[2] is kept and not isinstance(model[0].spatial, nn.Conv2d)


def untouched(model, match, *arguments, kind=ValueError, **options):
    """Check that the call is refused, and that every module and parameter of the model is as it was."""
    modules, state = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=match):
        replace_conv(model, *arguments, **options)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("layer", "reason"),
        [
            (nn.Conv2d(8, 8, 3, groups=2), "groups=2 is not depthwise for 8 -> 8 channels"),
            (nn.Conv2d(4, 8, 3, groups=4), "groups=4 is not depthwise for 4 -> 8 channels"),
            (nn.ConvTranspose2d(8, 8, 3), "it is a ConvTranspose2d"),
            (nn.Conv1d(8, 8, 3), "it is a Conv1d"),
            (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
            (type("Standardised", (nn.Conv2d,), {})(8, 8, 3), "Standardised may compute something else"),
        ],
        ids=str,
    )
    def test_layers_that_no_ddf_layer_replaces(self, layer, reason):
        model = nn.Sequential(nn.Conv2d(8, 8, 3), layer)
        untouched(model, f"^1 cannot be replaced: .*{reason}.*; leave it out of where$", "*")
        assert replace_conv(model, "0")

    @pytest.mark.parametrize(
        "register",
        [
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
            "register_full_backward_pre_hook",
        ],
    )
    def test_layers_with_hooks(self, register):
        model, seen = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)), []
        handle = getattr(model[0], register)(lambda *_: seen.append(1))
        untouched(model, r"^0 cannot be replaced: it has hooks, .* remove them; leave it out of where$", "*")
        model(torch.randn(1, 8, 5, 5)).sum().backward()
        assert seen == [1]
        handle.remove()
        assert replace_conv(model, "*")

    def test_pruned_layers(self):
        model, x = nn.Sequential(depthwise(kernel_size=3)), torch.randn(1, 6, 9, 9)
        prune.l1_unstructured(model[0], "weight", 0.5)
        expected = model(x)
        untouched(model, "^0 cannot be replaced: it has hooks, as a pruned layer does", "*")
        prune.remove(model[0], "weight")
        replace_conv(model, "*")
        assert error(model(x), expected) <= 1e-5

    @pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
    @pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
    def test_layers_that_compute_something_else(self, alter):
        model, x = nn.Sequential(depthwise(kernel_size=3)), torch.randn(1, 6, 9, 9)
        alter(model[0])
        expected = model.eval()(x)
        untouched(model, "^0 cannot be replaced: it(s|) .*; leave it out of where$", "*")
        assert torch.equal(model(x), expected)

    def test_a_class_that_does_not_what_its_name_says(self):
        class Conv2dSame(nn.Conv2d):
            def _conv_forward(self, x, weight, bias):
                return super()._conv_forward(x, weight / weight.std(), bias)

        model = nn.Sequential(Conv2dSame(6, 6, 3, groups=6))
        untouched(model, "^0 cannot be replaced: this Conv2dSame computes something else than nn.Conv2d behind", "*")

    def test_a_pattern_that_matches_nothing(self):
        untouched(blocks(), r"where matches no convolution .* got 'layer1\.\*'; model.named_modules", "layer1.*")
        untouched(blocks(), "got '.*reduce'; 2 other layers match", "*reduce")
        untouched(blocks(), "no convolution of 9x9 of more than one tap", "*", kernel_size=9)

    def test_a_model_that_was_replaced_already(self):
        model = blocks()
        replace_conv(model, "*")
        untouched(model, "where matches no convolution .* got '\\*'; 0.spatial is a DDF layer already", "*")
        untouched(DDF2d(8), "where matches no convolution", "*")

    def test_a_shape_that_does_not_fit(self):
        untouched(blocks(), "0.reduce.*to have 8 channels", "*", input_shape=(1, 7, 10, 10))

    def test_wrong_options(self):
        untouched(blocks(), "heads must divide channels", "*", heads=3)
        untouched(blocks(), "combine must be", "2", combine="sub")
        untouched(blocks(), "where must be a pattern", 3, kind=TypeError)
        untouched(blocks(), "where must be a pattern", [], kind=TypeError)
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
            replace_conv("model", "*")
