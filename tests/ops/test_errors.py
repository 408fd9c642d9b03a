"""Error messages of the public functions: the requirement, the value, and the mend."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import ddfnet
from ddfnet.ops.geometry import Geometry
from tests.ops.cases import kernel, kernels

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


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.randn(8, 4, 4), torch.randn(9, 4, 4)], layout=layout)
    message = "must be a dense .* got a nested one"
    with pytest.raises(TypeError, match=f"input {message}"):
        ddfnet.ddf(nested, CHANNEL, None)
    with pytest.raises(TypeError, match=f"channel_filter {message}"):
        ddfnet.ddf_upsample(X, nested, None, scale_factor=2)
    with pytest.raises(TypeError, match=f"spatial_filter {message}"):
        ddfnet.ddf(X, None, nested, kernel_size=3)


def test_a_default_padding_too_large_for_any_map() -> None:
    """It is computed from two numbers, each of which is allowed."""
    for dilation, largest in ((2**30, "2147483648"), (2**31 - 1, "4294967294")):
        with pytest.raises(
            ValueError, match=rf"must be at most 2147483647, got \({largest}, {largest}\) for dilation="
        ):
            ddfnet.ddf(X, torch.randn(2, 8, 5, 5), None, dilation=dilation)
        with pytest.raises(ValueError, match=f"must be at most 2147483647, got .*{largest}"):
            ddfnet.ddf_upsample(X, torch.randn(2, 4, 8, 5, 5), None, dilation=dilation, scale_factor=2)
    assert ddfnet.ddf(X, CHANNEL, None, dilation=2**31 - 1).shape == X.shape


def test_a_result_too_large_for_any_memory() -> None:
    """Its number of values leaves 64 bits, or almost."""
    for padding in (2**29, 2**31 - 1):
        with pytest.raises(ValueError, match=r"the output would be too large: \(2, 8, "):
            ddfnet.ddf(X, CHANNEL, None, padding=padding)
    empty = torch.empty(0, 2**30, 1, 1)  # takes no memory, and neither would the result
    with pytest.raises(ValueError, match="the output would be too large: "):
        ddfnet.ddf(empty, torch.empty(0, 2**30, 1, 1), None, padding=2**20)


class Index:
    """A number of another library."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    "three",
    [np.int64(3), np.uint8(3), np.array(3), Index(), torch.tensor(3)],
    ids=["int64", "uint8", "array", "index", "tensor"],
)
def test_whatever_counts_as_an_int_is_one(three) -> None:
    expected = ddfnet.ddf(X, CHANNEL, None, stride=3, dilation=3, padding=3)
    options = {"stride": three, "dilation": (three, 3), "padding": [3, three], "kernel_size": three}
    assert torch.equal(ddfnet.ddf(X, CHANNEL, None, **options), expected)
    assert ddfnet.ddf_upsample(X, None, torch.randn(2, 81, 9, 11), scale_factor=three, kernel_size=three).shape[2] == 27


@pytest.mark.parametrize(
    "value",
    [np.bool_(True), np.float64(3), np.array([3, 3]), torch.tensor(True), torch.tensor(3.0)],
    ids=["bool", "float", "array", "tensor of bool", "tensor of float"],
)
def test_what_does_not_count_as_an_int_is_none(value) -> None:
    with pytest.raises(TypeError, match="kernel_size must be an int or a pair of ints, got"):
        ddfnet.ddf(X, None, SPATIAL, kernel_size=value)


@contextmanager
def limited_memory(spare: int) -> Iterator[None]:
    """Limit the addresses of the process to those that it has, and ``spare`` bytes."""
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limited on Linux only")
def test_a_lack_of_memory_is_one_line(capfd: pytest.CaptureFixture) -> None:
    """torch prints its own error with a page of stack frames where it passes the C interface."""
    x, channel = torch.zeros(1, 1, 1, 1).expand(1, 64, 4096, 4096), torch.ones(1, 64, 1, 1)
    flat = Geometry((1, 1)).flat()
    with limited_memory(2**30):
        for call in (
            lambda: ddfnet.ddf(x, channel, None),
            lambda: torch.ops.ddfnet.ddf_backward(x, x, channel, None, *flat, [True, True, False]),
        ):
            with pytest.raises(RuntimeError, match="can't allocate memory: .*4294967296 bytes") as caught:
                call()
            assert "\n" not in str(caught.value)
    assert "frame #" not in capfd.readouterr().err


# --- the registered operator ----------------------------------------------------------------------------------------

GEOMETRY = Geometry((3, 3), padding=(1, 1))


def raw(id: str, message: str, tensors=(X, CHANNEL, SPATIAL), **options):
    """Return a wrong call of ``torch.ops.ddfnet.ddf``: its tensors, and what differs from `GEOMETRY`."""
    flat = GEOMETRY._asdict() | {"combine": "mul"} | options
    return pytest.param(tensors, tuple(flat.values()), message, id=id)


RAW = [
    raw("combine", "combine must be 'mul' or 'add', got 'max'", combine="max"),
    raw("combine-of-one-filter", "combine must be 'mul' or 'add', got ''", (X, CHANNEL, None), combine=""),
    *(
        raw(f"{name}-{id}", f"{name} must be {message}", **{name: value})
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1), ("upscale", 1))
        for id, value, message in (
            ("one", [1], r"an int or \(h, w\)"),
            ("three", [1, 1, 1], r"an int or \(h, w\)"),
            ("none", [], r"an int or \(h, w\)"),
            ("too-small", [1, least - 1], f"at least {least}"),
            ("negative", [-(2**62), 1], f"at least {least}"),
            ("too-large", [1, 2**31], "at most 2147483647"),
        )
    ),
    raw("no-filter", "must not both be None", (X, None, None)),
    raw("input-dimensions", r"input must be \(N, C, H, W\), got \(8, 9, 11\)", (X[0], CHANNEL, SPATIAL)),
    raw("no-channels", "input must have at least one channel", (X[:, :0], CHANNEL[:, :0], None)),
    raw("input-dtype", "input must be float64, float32, float16 or bfloat16", (X.long(), CHANNEL.long(), None)),
    raw("dtypes", "must have one dtype", (X, CHANNEL.double(), SPATIAL)),
    raw("half-dtypes", "must have one dtype", (X.half(), CHANNEL.half(), SPATIAL.bfloat16())),
    raw("empty-output", "the output would be empty", (X, CHANNEL, None), padding=[0, 0], dilation=[9, 9]),
    raw("empty-map", "the output would be empty", (X[..., :0], CHANNEL, None)),
    raw("channel-dimensions", "channel_filter must be .*, got \\(8, 3, 3\\)", (X, CHANNEL[0], None)),
    raw("channel-batch", "channel_filter must be .*, got \\(1, 8, 3, 3\\)", (X, CHANNEL[:1], SPATIAL)),
    raw("channel-taps", "channel_filter must be .*, got \\(2, 8, 3, 2\\)", (X, CHANNEL[..., :2], SPATIAL)),
    raw("channel-subpixels", "channel_filter must be", (X, CHANNEL, None), upscale=[2, 2]),
    raw("spatial-dimensions", "spatial_filter must be .*, got \\(9, 9, 11\\)", (X, CHANNEL, SPATIAL[0])),
    raw("spatial-batch", "spatial_filter must be .*, got \\(1, 9, 9, 11\\)", (X, CHANNEL, SPATIAL[:1])),
    raw("spatial-size", "spatial_filter must be .*, got \\(2, 9, 9, 5\\)", (X, CHANNEL, SPATIAL[..., :5])),
    raw("spatial-taps", "a multiple of kH\\*kW = 9", (X, None, SPATIAL[:, :8])),
    raw("spatial-no-taps", "a multiple of kH\\*kW = 9", (X, None, SPATIAL[:, :0])),
    raw("heads", "must divide the 8 channels of input, got 3 of", (X, None, SPATIAL.repeat(1, 3, 1, 1))),
    # Products that leave 64 bits, or that would come back into them as small numbers.
    raw("overflow", "the output would be too large", (X, None, SPATIAL), upscale=[2**31 - 1] * 2),
    raw("overflow-channel", "the output would be too large", (X, CHANNEL, None), upscale=[2**31 - 1] * 2),
    raw("overflow-taps", "the output would be empty", (X, None, SPATIAL), kernel_size=[2**31 - 1] * 2),
    raw("overflow-output", "the output would be too large", (X, CHANNEL, None), padding=[2**31 - 1] * 2),
    raw(
        "overflow-channels",
        "would be too large",
        (X[:0, :1, :1, :1].expand(0, 2**62, 1, 1),) * 2 + (None,),
        kernel_size=[1, 1],
        padding=[0, 0],
    ),
    raw(
        "overflow-filters",
        "would be too large",
        (X[:0], torch.empty(0, 1, 1, 1).expand(0, 2**35, 2**14, 2**14), None),
        kernel_size=[2**14] * 2,
        upscale=[2**16] * 2,
        padding=[2**14] * 2,
    ),
    raw(
        "overflow-of-nothing",
        "would be too large",
        (X[:0, :1], None, torch.empty(0, 1, 1, 1).expand(0, 2**62, 9, 11)),
        kernel_size=[2**15] * 2,
        upscale=[2**16] * 2,
        padding=[2**14] * 2,
    ),
]
REFUSED = (ValueError, TypeError, RuntimeError)


@contextmanager
def serving(name: str) -> Iterator[torch.device]:
    """Yield the device of the tensors that a kernel takes; "fake" is what a compiler asks."""
    with contextlib.nullcontext() if name == "fake" else kernel(name):
        yield torch.device("meta" if name == "fake" else "cpu")


@pytest.mark.parametrize("name", [*kernels(), "fake"])
@pytest.mark.parametrize(("tensors", "options", "message"), RAW)
def test_every_kernel_refuses_a_wrong_direct_call(name: str, tensors, options, message: str) -> None:
    with serving(name) as device:
        tensors = [None if t is None else t.to(device) for t in tensors]
        with pytest.raises(REFUSED, match=message):
            torch.ops.ddfnet.ddf(*tensors, *options)
        grad = torch.ones_like(tensors[0])
        with pytest.raises(REFUSED, match=message):
            torch.ops.ddfnet.ddf_backward(grad, *tensors, *options, [True, True, True])
        with torch.no_grad(), torch.inference_mode(), pytest.raises(REFUSED, match=message):
            torch.ops.ddfnet.ddf(*tensors, *options)


@pytest.mark.parametrize("name", [*kernels(), "fake"])
def test_every_kernel_refuses_a_wrong_gradient(name: str) -> None:
    with serving(name) as device:
        tensors = [t.to(device) for t in (X, CHANNEL, SPATIAL)]
        backward = torch.ops.ddfnet.ddf_backward
        for grad, message in (
            (tensors[0][..., 1:], "grad_output must be"),
            (tensors[0][:1], "grad_output must be"),
            (tensors[0].double(), "one dtype"),
        ):
            with pytest.raises(REFUSED, match=message):
                backward(grad, *tensors, *GEOMETRY.flat(), [True, True, True])
        with pytest.raises(REFUSED, match="output_mask must have 3 values, got 2"):
            backward(tensors[0], *tensors, *GEOMETRY.flat(), [True, True])


@pytest.mark.parametrize("name", [*kernels(), "fake"])
def test_every_kernel_takes_the_right_direct_call(name: str) -> None:
    """Each kernel accepts the call from which the refused ones differ."""
    with serving(name) as device:
        tensors = [t.to(device) for t in (X, CHANNEL, SPATIAL)]
        assert torch.ops.ddfnet.ddf(*tensors, *GEOMETRY.flat()).shape == X.shape
        gradients = torch.ops.ddfnet.ddf_backward(tensors[0], *tensors, *GEOMETRY.flat(), [True, True, True])
        assert [g.shape for g in gradients] == [t.shape for t in tensors]


@pytest.mark.skipif(not any(n.startswith("cpu-") for n in kernels()), reason="no compiled kernel here")
def test_the_compiled_kernel_writes_into_fitting_memory_alone() -> None:
    native, tensors, flat = torch.ops.ddfnet, (X, CHANNEL, SPATIAL), GEOMETRY.flat()
    out = torch.empty_like(X)
    with pytest.raises(RuntimeError, match="output must be"):
        native._ddf_out(out[..., 1:], *tensors, *flat)
    with pytest.raises(RuntimeError, match="input and output must have one dtype"):
        native._ddf_out(out.double(), *tensors, *flat)
    with pytest.raises(RuntimeError, match="grad_output must be"):
        native._ddf_backward_out(None, None, None, out[..., 1:], *tensors, *flat)
    with pytest.raises(RuntimeError, match="grad_spatial must be None where its tensor is"):
        native._ddf_backward_out(None, None, SPATIAL, out, X, CHANNEL, None, *flat)
