"""Error messages of the public functions: the requirement, the value, and the mend."""

from __future__ import annotations

import re

import pytest
import torch

import ddfnet

X = torch.randn(2, 8, 9, 11)
CHANNEL = torch.randn(2, 8, 3, 3)
SPATIAL = torch.randn(2, 9, 9, 11)
UP_CHANNEL = torch.randn(2, 4, 8, 3, 3)
UP_SPATIAL = torch.randn(2, 36, 9, 11)


def case(id: str, error: type, message: str, *tensors, **options):
    return pytest.param(tensors, options, error, re.escape(message), id=id)


BOTH = [
    case("no-filter", ValueError, "channel_filter and spatial_filter must not both be None", X, None, None),
    case("no-tensor", TypeError, "input must be a torch.Tensor, got list", [1.0], CHANNEL, SPATIAL),
    case("none", TypeError, "input must be a torch.Tensor, got NoneType", None, CHANNEL, SPATIAL),
    case("no-tensor-filter", TypeError, "channel_filter must be a torch.Tensor, got float", X, 1.0, SPATIAL),
    case(
        "integer",
        TypeError,
        "input must be float64, float32, float16 or bfloat16, got torch.int64",
        X.long(),
        CHANNEL,
        SPATIAL,
    ),
    case(
        "complex",
        TypeError,
        "spatial_filter must be float64, float32, float16 or bfloat16, got torch.complex64",
        X,
        None,
        SPATIAL + 0j,
    ),
    case(
        "float8",
        TypeError,
        "input must be float64, float32, float16 or bfloat16, got torch.float8",
        X.to(torch.float8_e4m3fn),
        CHANNEL,
        None,
    ),
    case(
        "sparse",
        TypeError,
        "input must be a dense (strided) tensor, got torch.sparse_coo; use .to_dense()",
        X.to_sparse(),
        CHANNEL,
        None,
    ),
    case(
        "three-dimensions",
        ValueError,
        "input must be (N, C, H, W), got (8, 9, 11); add a batch dimension",
        X[0],
        CHANNEL,
        SPATIAL,
    ),
    case(
        "no-channels",
        ValueError,
        "input must have at least one channel, got (N, C, H, W) = (2, 0, 9, 11)",
        X[:, :0],
        CHANNEL,
        None,
    ),
    case(
        "devices",
        ValueError,
        "must be on one device, got input on cpu and spatial_filter on meta",
        X,
        None,
        SPATIAL.to("meta"),
    ),
    case("combine", ValueError, "combine must be 'mul' or 'add', got 'max'", X, CHANNEL, SPATIAL, combine="max"),
    case("dilation-0", ValueError, "dilation must be at least 1, got 0", X, None, SPATIAL, kernel_size=3, dilation=0),
    case(
        "dilation-triple",
        ValueError,
        "dilation must be an int or (h, w), got (1, 1, 1)",
        X,
        None,
        SPATIAL,
        kernel_size=3,
        dilation=(1, 1, 1),
    ),
    case(
        "dilation-float",
        TypeError,
        "dilation must be an int or a pair of ints, got 1.5",
        X,
        None,
        SPATIAL,
        kernel_size=3,
        dilation=1.5,
    ),
    case(
        "dilation-bool",
        TypeError,
        "dilation must be an int or a pair of ints, got True",
        X,
        None,
        SPATIAL,
        kernel_size=3,
        dilation=True,
    ),
    case("no-kernel-size", ValueError, "kernel_size is required where channel_filter is None", X, None, SPATIAL),
    case(
        "kernel-size-0", ValueError, "kernel_size must be at least 1, got (3, 0)", X, None, SPATIAL, kernel_size=(3, 0)
    ),
    case(
        "kernel-size-text",
        TypeError,
        "kernel_size must be an int or a pair of ints, got '3'",
        X,
        None,
        SPATIAL,
        kernel_size="3",
    ),
]
DDF = [
    *BOTH,
    case(
        "dtypes",
        TypeError,
        "must have one dtype, got input torch.float32, channel_filter torch.float64, spatial_filter torch.float32; cast them",
        X,
        CHANNEL.double(),
        SPATIAL,
    ),
    case(
        "kernel-size-differs",
        ValueError,
        "kernel_size must agree with channel_filter, whose last two sizes are (3, 3), got kernel_size=5",
        X,
        CHANNEL,
        SPATIAL,
        kernel_size=5,
    ),
    case("stride-0", ValueError, "stride must be at least 1, got (1, 0)", X, CHANNEL, SPATIAL, stride=(1, 0)),
    case("padding-negative", ValueError, "padding must be at least 0, got -1", X, CHANNEL, SPATIAL, padding=-1),
    case(
        "padding-text",
        TypeError,
        "padding must be an int or a pair of ints, got 'same'",
        X,
        CHANNEL,
        SPATIAL,
        padding="same",
    ),
    case(
        "empty-output",
        ValueError,
        "the output would be empty: input is (H, W) = (9, 11) and kernel_size=(3, 3) with dilation=(9, 9), padding=(0, 0)",
        X,
        CHANNEL,
        None,
        dilation=9,
        padding=0,
    ),
    case(
        "empty-map",
        ValueError,
        "the output would be empty: input is (H, W) = (0, 11)",
        X[:, :, :0],
        CHANNEL,
        None,
        padding=4,
    ),
    case("channel-dimensions", ValueError, "channel_filter must be (N, C, kH, kW), got (8, 3, 3)", X, CHANNEL[0], None),
    case(
        "channel-batch",
        ValueError,
        "channel_filter must be (N, C, kH, kW) = (2, 8, 3, 3), got (1, 8, 3, 3)",
        X,
        CHANNEL[:1],
        None,
    ),
    case(
        "channel-channels",
        ValueError,
        "channel_filter must be (N, C, kH, kW) = (2, 8, 3, 3), got (2, 1, 3, 3)",
        X,
        CHANNEL[:, :1],
        None,
    ),
    case("channel-no-taps", ValueError, "channel_filter must have at least one tap", X, CHANNEL[..., :0], None),
    case(
        "spatial-dimensions",
        ValueError,
        "spatial_filter must be (N, G*kH*kW, Ho, Wo), got (9, 9, 11)",
        X,
        CHANNEL,
        SPATIAL[0],
    ),
    case(
        "spatial-batch",
        ValueError,
        "spatial_filter must be (N, G*kH*kW, Ho, Wo) with N = 2 and size (9, 11), got (1, 9, 9, 11)",
        X,
        CHANNEL,
        SPATIAL[:1],
    ),
    case("spatial-size", ValueError, "with N = 2 and size (5, 6), got (2, 9, 9, 11)", X, CHANNEL, SPATIAL, stride=2),
    case(
        "spatial-one-pixel",
        ValueError,
        "with N = 2 and size (9, 11), got (2, 9, 1, 1)",
        X,
        CHANNEL,
        SPATIAL[..., :1, :1],
    ),
    case(
        "spatial-taps",
        ValueError,
        "its channels a multiple of kH*kW = 9, got (2, 8, 9, 11)",
        X,
        CHANNEL,
        SPATIAL[:, :8],
    ),
    case(
        "spatial-no-taps",
        ValueError,
        "its channels a multiple of kH*kW = 9, got (2, 0, 9, 11)",
        X,
        CHANNEL,
        SPATIAL[:, :0],
    ),
    case(
        "heads",
        ValueError,
        "the heads of spatial_filter must divide the 8 channels of input, got 3 of (2, 27, 9, 11)",
        X,
        CHANNEL,
        SPATIAL.repeat(1, 3, 1, 1),
    ),
]
UPSAMPLE = [
    *BOTH,
    case("scale-0", ValueError, "scale_factor must be at least 1, got 0", X, UP_CHANNEL, None, scale_factor=0),
    case("scale-float", TypeError, "scale_factor must be an int or a pair of ints, got 2.0", X, UP_CHANNEL, None, scale_factor=2.0),
    case("even-kernel", ValueError, "ddf_upsample needs an odd kernel, whose centre is the pixel, got kernel_size=(3, 2)", X, None, UP_SPATIAL, kernel_size=(3, 2)),
    case("channel-dimensions", ValueError, "channel_filter must be (N, s*s, C, kH, kW), got (2, 8, 3, 3)", X, CHANNEL, None),
    case("channel-subpixels", ValueError, "channel_filter must be (N, s*s, C, kH, kW) = (2, 4, 8, 3, 3), got (2, 3, 8, 3, 3)", X, UP_CHANNEL[:, :3], None),
    case("spatial-size", ValueError, "spatial_filter must be (N, s*s*G*kH*kW, H, W) with N = 2 and size (9, 11), got (2, 36, 18, 22)", X, UP_CHANNEL, UP_SPATIAL.repeat(1, 1, 2, 2)),
    case("spatial-taps", ValueError, "its channels a multiple of s*s*kH*kW = 36, got (2, 9, 9, 11)", X, UP_CHANNEL, SPATIAL),
    case("heads", ValueError, "the heads of spatial_filter must divide the 8 channels of input, got 3 of", X, UP_CHANNEL, UP_SPATIAL.repeat(1, 3, 1, 1)),
    case("empty-map", ValueError, "the output would be empty: input is (H, W) = (9, 0)", X[..., :0], UP_CHANNEL, None),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "options", "error", "message"), DDF)
def test_ddf_refuses(tensors, options, error, message) -> None:
    with pytest.raises(error, match=message):
        ddfnet.ddf(*tensors, **options)


@pytest.mark.parametrize(("tensors", "options", "error", "message"), UPSAMPLE)
def test_ddf_upsample_refuses(tensors, options, error, message) -> None:
    with pytest.raises(error, match=message):
        ddfnet.ddf_upsample(*tensors, **{"scale_factor": 2, **options})


def test_what_is_right_is_not_refused() -> None:
    """Valid shapes, from which the errors start, are accepted."""
    assert ddfnet.ddf(X, CHANNEL, SPATIAL, kernel_size=[3, 3], stride=(1, 1), dilation=1).shape == X.shape
    assert ddfnet.ddf_upsample(X, UP_CHANNEL, UP_SPATIAL, scale_factor=2).shape == (2, 8, 18, 22)


def test_what_was_right_before_does_not_make_a_wrong_argument_right() -> None:
    """2, 2.0 and True are one key of a dictionary; the checks must not take them for one."""
    assert ddfnet.ddf(X, CHANNEL, None, stride=(2, 2)).shape == (2, 8, 5, 6)
    assert ddfnet.ddf(X, CHANNEL, None, dilation=(1, 1)).shape == X.shape
    with pytest.raises(TypeError, match=re.escape("got (2.0, 2.0)")):
        ddfnet.ddf(X, CHANNEL, None, stride=(2.0, 2.0))
    with pytest.raises(TypeError, match=re.escape("got (True, True)")):
        ddfnet.ddf(X, CHANNEL, None, dilation=(True, True))


@pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
def test_numbers_too_large_for_any_map(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at most 2147483647, got 2147483648"):
        ddfnet.ddf(X, CHANNEL, None, **{option: 2**31})


def test_nested_tensors() -> None:
    nested = torch.nested.nested_tensor([torch.randn(8, 4, 4), torch.randn(8, 5, 5)])
    with pytest.raises(TypeError, match="input must be a dense .* got a nested one"):
        ddfnet.ddf(nested, CHANNEL, None)
