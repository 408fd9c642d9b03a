"""DDFConv2d: nn.Conv2d's sizes and arguments, made of DDF2d and a 1x1 convolution."""

import pytest
import torch
from torch import nn

from ddfnet.nn import DDF2d, DDFConv2d

GEOMETRIES = {
    "default": (3,),
    "stride": (3, 2),
    "padding": (5, 2, 3),
    "dilation": (3, 1, 2, 2),
    "rectangular": ((2, 5), (3, 1), (0, 2), (1, 2)),
    "same": (3, 1, "same", 3),
    "same, even": ((4, 2), 1, "same"),
    "valid": (4, 2, "valid"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("arguments", GEOMETRIES.values(), ids=GEOMETRIES)
def test_arguments_and_size_are_conv2ds(arguments):
    x = torch.randn(2, 4, 15, 12)
    assert DDFConv2d(4, 6, *arguments)(x).shape == nn.Conv2d(4, 6, *arguments)(x).shape


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_ddf_and_then_a_pointwise_convolution_with_the_bias(bias):
    layer = DDFConv2d(4, 6, 3, 2, 1, bias=bias)
    x = torch.randn(2, 4, 9, 9)
    expected = torch.einsum("oc,nchw->nohw", layer.pointwise.weight[:, :, 0, 0], layer.ddf(x))
    if bias:
        expected += layer.pointwise.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)
    assert (layer.pointwise.bias is not None) == bias
    assert layer.bias is None


def test_without_a_pointwise_convolution_the_bias_is_a_value_a_channel():
    layer = DDFConv2d(4, 4, 3)
    x = torch.randn(2, 4, 9, 9)
    assert layer.pointwise is None
    assert torch.equal(layer(x), layer.ddf(x))
    nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(x), layer.ddf(x) + layer.bias.reshape(4, 1, 1))
    assert DDFConv2d(4, 4, 3, bias=False).state_dict().keys() == {f"ddf.{name}" for name in DDF2d(4).state_dict()}


@pytest.mark.parametrize(
    ("channels", "pointwise", "expected"),
    [((4, 4), False, False), ((4, 4), True, True), ((4, 5), False, True), ((4, 5), True, True)],
    ids=str,
)
def test_the_pointwise_convolution_is_where_it_is_needed_or_asked_for(channels, pointwise, expected):
    assert (DDFConv2d(*channels, 3, pointwise=pointwise).pointwise is not None) == expected


def test_options_reach_the_filter():
    layer = DDFConv2d(4, 6, 3, heads=2, reduction=0.5, combine="add", norm="softmax", filters="both").ddf
    assert (layer.heads, layer.combine, layer.channel.reduce.out_channels) == (2, "add", 2)
    assert type(layer.channel.norm) is type(layer.spatial.norm) is type(DDF2d(4, norm="softmax").spatial.norm)
    assert DDFConv2d(4, 6, 3, filters="channel").ddf.spatial is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": 2}, NotImplementedError, "groups=1 alone, got groups=2; heads give"),
        ({"padding_mode": "reflect"}, NotImplementedError, "zeros alone, got padding_mode='reflect'"),
        ({"bias": 4}, TypeError, "bias must be a bool, got 4; the arguments after it go by name"),
        ({"out_channels": 0}, ValueError, "out_channels must be at least 1, got 0"),
        ({"padding": "same", "stride": 2}, ValueError, "padding='same' needs stride 1"),
        ({"kernel_size": 1}, ValueError, "at least two taps"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        DDFConv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})
