"""Filters that hardly vary become static ones, and how far they are off is measured."""

import copy

import pytest
import torch
from torch import nn

from ddfnet.nn import DDF2d, DDFConv2d
from ddfnet.surgery import freeze, fuse
from tests.alterations import ALTERATIONS

OPTIONS = {
    "both": {},
    "add, heads": {"combine": "add", "heads": 2},
    "spatial": {"filters": "spatial"},
    "channel": {"filters": "channel"},
    "strided": {"kernel_size": 5, "stride": 2, "padding": 1},
    "same": {"kernel_size": 4, "padding": "same"},
    "normalised": {"norm": "filter"},
    "static": {"static": True, "norm": "filter", "zero_init": False},
}


def error(result, expected):
    return ((result - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_layer_that_does_not_vary_is_folded_exactly(options):
    model = nn.Sequential(DDF2d(4, **{"norm": "none", "zero_init": True, **options}))
    x = torch.randn(3, 4, 10, 9)
    expected = model(x)
    report = freeze(model, [x[:1], x[1:]], tolerance=1e-5)
    assert isinstance(model[0], nn.Conv2d)
    assert error(model(x), expected) < 1e-5
    assert report.changes[0].begins.startswith("within ") and not report.skipped
    report.undo()
    assert torch.equal(model(x), expected)


def test_what_varies_stays_and_its_error_is_reported():
    torch.manual_seed(0)
    model = nn.Sequential(DDF2d(4, norm="none", zero_init=True), nn.ReLU(), DDFConv2d(4, 4, 3, padding=1))
    before, data = copy.deepcopy(model), [torch.randn(2, 4, 8, 8) for _ in range(3)]
    report = freeze(model, data, input_shape=(1, 4, 8, 8))
    assert isinstance(model[0], nn.Conv2d) and isinstance(model[2].ddf, DDF2d)
    [(name, why)] = report.skipped
    assert name == "2.ddf" and why.startswith("its filters vary, by ")
    assert report.macs[1] < report.macs[0]
    frozen = freeze(model, data, tolerance=float("inf"))
    assert isinstance(model[2].ddf, nn.Conv2d)
    # The error that is reported is that of the layer.
    stated = float(frozen.changes[0].begins.removeprefix("within "))
    middle = [before[:2](x) for x in data]
    found = error(torch.cat([model[2](x) for x in middle]), torch.cat([before[2](x) for x in middle]))
    bias = model[2].bias
    assert bias is None or not bias.any()
    assert stated == pytest.approx(found, rel=0.1)


def test_the_mean_is_the_best_static_filter_of_the_mean_input():
    """Two images with opposite channel filters have a mean that is neither."""
    layer = DDF2d(2, filters="channel", norm="none", reduction=1.0)
    with torch.no_grad():
        layer.channel.reduce.weight.fill_(1.0)
        layer.channel.reduce.bias.zero_()
        layer.channel.expand.weight.fill_(0.5)
        layer.channel.expand.bias.zero_()
    model = nn.Sequential(layer)
    ones = torch.ones(1, 2, 5, 5)
    freeze(model, [ones, 3 * ones], tolerance=float("inf"))
    # 2 and 6 in both hidden channels, halved and added up: 2 and 6.
    torch.testing.assert_close(model[0].weight, torch.full((2, 1, 3, 3), 4.0))


def test_layers_with_a_batch_norm_folded_into_them():
    torch.manual_seed(0)
    model = nn.Sequential(DDF2d(4, norm="none", zero_init=True), nn.BatchNorm2d(4), nn.ReLU())
    model[1].running_mean.normal_()
    fused = fuse(model)
    x = torch.randn(2, 4, 8, 8)
    expected = fused(x)
    freeze(fused, [x])
    assert not any(isinstance(layer, DDF2d) for layer in fused.modules())
    assert error(fused(x), expected) < 1e-5


def test_the_mode_and_the_weights_stay():
    model = nn.Sequential(DDF2d(4), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    freeze(model, [torch.randn(2, 4, 8, 8)])
    assert model.training and model[0].training and not model[0]._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_layers_that_compute_something_else_stay(alter):
    model, x = nn.Sequential(DDF2d(4, norm="none"), DDF2d(4, norm="none", zero_init=True)), torch.randn(2, 4, 8, 8)
    alter(model[0].spatial.conv)
    expected = model.eval()(x)
    report = freeze(model, [x], tolerance=float("inf"))
    assert [type(layer) for layer in model] == [DDF2d, nn.Conv2d]
    [(name, reason)] = report.skipped
    assert name == "0" and reason.startswith("it") and "its filters vary" not in reason
    assert error(model(x), expected) < 1e-5


def test_what_is_refused():
    model, x = nn.Sequential(DDF2d(4, norm="none", zero_init=True)), torch.randn(2, 4, 8, 8)
    for wrong, message in (
        (([],), "no DDF2d in this model was called"),
        ((iter([x]),), "data must give its batches twice"),
        (([x], -1), "tolerance must be at least 0, got -1"),
    ):
        data, *tolerance = wrong
        with pytest.raises(ValueError, match=message):
            freeze(model, data, **dict(zip(["tolerance"], tolerance, strict=False)))
        assert isinstance(model[0], DDF2d)
    with pytest.raises(ValueError, match="no DDF2d"):
        freeze(nn.Sequential(nn.Conv2d(4, 4, 3)), [x])
    with pytest.raises(TypeError, match="model must be"):
        freeze("model", [x])
