"""Small ResNet, with each layer in the middle of its blocks."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

import timm
import torch
from torch import nn

import ddfnet
import ddfnet.models
from ddfnet.models.resnet import MIXERS
from ddfnet.nn import DDF2d


def costs(**options: object) -> tuple[int, float]:
    cost = ddfnet.profiler.estimate(
        timm.create_model("small_resnet23", num_classes=10, **options).eval(), (1, 3, 32, 32)
    )
    return cost.parameters, cost.predicted.macs


def test_parameters_and_macs() -> None:
    conv, ddf, depthwise = (costs(mixer=mixer) for mixer in ("conv", "ddf", "depthwise"))
    assert conv == (568_842, 14_192_384) and ddf == (361_959, 8_246_816) and depthwise[0] == 293_658
    assert ddf[1] / conv[1] == pytest.approx(0.58, abs=0.005)
    assert ddf[0] / conv[0] == pytest.approx(0.64, abs=0.005)


@pytest.mark.parametrize("mixer", MIXERS)
def test_nothing_but_the_mixer_differs(mixer: str) -> None:
    model = timm.create_model("small_resnet23", num_classes=10, mixer=mixer)
    names = {name for name in model.state_dict() if ".conv2." not in name}
    assert names == {name for name in timm.create_model("small_resnet23").state_dict() if ".conv2." not in name}
    mixers = [module.conv2 for module in model.modules() if hasattr(module, "conv2")]
    assert len(mixers) == 7
    for layer in mixers:
        if mixer == "ddf":
            assert isinstance(layer, DDF2d)
        else:
            assert isinstance(layer, nn.Conv2d) and (layer.groups == layer.in_channels) == (mixer == "depthwise")


@pytest.mark.parametrize("mixer", MIXERS)
def test_forward_and_backward(mixer: str) -> None:
    model = timm.create_model("small_resnet23", num_classes=5, mixer=mixer, in_chans=1, layers=(1, 1, 2))
    logits = model(torch.randn(2, 1, 20, 20))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("stride", "size"), [(1, 2), (2, 1)])
def test_digits_keep_their_size_in_the_stem(stride: int, size: int) -> None:
    model = timm.create_model("small_resnet23", in_chans=1, stem_stride=stride)
    assert model.forward_features(torch.randn(2, 1, 8, 8)).shape == (2, 384, size, size)


def test_options_of_the_blocks() -> None:
    model = timm.create_model("small_resnet23", block_args={"filters": "spatial", "heads": 4, "norm": "none"})
    assert model.layer2[0].conv2.heads == 4 and model.layer2[0].conv2.channel is None
    model = timm.create_model("small_resnet23", mixer="conv", block_args={"attn_layer": "se"})
    assert model.layer2[0].se is not None


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="mixer must be one of 'conv', 'depthwise', 'ddf', got 'magic'"):
        timm.create_model("small_resnet23", mixer="magic")
    with pytest.raises(ValueError, match="layers and channels must name three stages"):
        timm.create_model("small_resnet23", layers=(1, 1))
    with pytest.raises(RuntimeError, match="No pretrained weights exist for small_resnet23"):
        timm.create_model("small_resnet23", pretrained=True)


@pytest.mark.parametrize("norm", ["filter", "none"])
@pytest.mark.parametrize("name", ["small_resnet23", "ddf_mul_resnet18"])
def test_filters_begin_as_the_same_everywhere_where_that_is_asked_for(name: str, norm: str) -> None:
    """Check zero_init: timm initialises every convolution of a network after its blocks have done so."""
    model = timm.create_model(name, num_classes=4, block_args={"zero_init": True, "norm": norm}).eval()
    layers = [layer for layer in model.modules() if isinstance(layer, DDF2d)]
    assert len(layers) > 5
    for layer in layers:
        x = torch.randn(2, layer.channels, 6, 6)
        spatial, channel = layer.spatial(x), layer.channel(x)
        torch.testing.assert_close(spatial, spatial[:1, :, :1, :1].expand_as(spatial))
        torch.testing.assert_close(channel[0], channel[1])
        assert channel.std() > 0.1 and (norm == "none" or spatial.std() > 0.1)
        if norm == "none":
            assert torch.equal(spatial, torch.ones_like(spatial))
    plain = timm.create_model(name, num_classes=4)
    assert all(layer.spatial.conv.weight.any() for layer in plain.modules() if isinstance(layer, DDF2d))


@pytest.mark.parametrize("norm", ["filter", "none"])
def test_static_weights_begin_as_those_of_the_depthwise_network(norm: str) -> None:
    """Check static: the network is the depthwise one at first, with weights of the same deviation."""
    model = timm.create_model("small_resnet23", num_classes=4, block_args={"static": True, "norm": norm}).eval()
    depthwise = timm.create_model("small_resnet23", num_classes=4, mixer="depthwise").eval()
    layers = [layer for layer in model.modules() if isinstance(layer, DDF2d)]
    for layer in layers:
        assert layer.weight is not None
        assert layer.weight.std().item() == pytest.approx((2 / 9 / layer.channels) ** 0.5, rel=0.25)
    shared = {name: value for name, value in model.state_dict().items() if name in depthwise.state_dict()}
    assert shared.keys() == depthwise.state_dict().keys()
    depthwise.load_state_dict(shared)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), depthwise(x), rtol=1e-4, atol=1e-5)
