"""FusedDDF2d: that it computes what DDF2d and the layers after it compute, and when it is one operator."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ddfnet
from ddfnet.nn import DDF2d, FusedDDF2d
from tests.ops.cases import kernel, kernels

KERNELS = [name for name in kernels() if name != "reference"]
needs_kernel = pytest.mark.skipif(not KERNELS, reason="no compiled kernel here")
OPTIONS = [
    (64, {}),
    (16, {"stride": 2}),
    (20, {"stride": (1, 3)}),
    (40, {"heads": 4}),
    (32, {"heads": 2, "combine": "add"}),
    (7, {"dilation": 2}),
    (24, {"kernel_size": 5}),
    (24, {"kernel_size": (3, 7), "stride": 2}),
    (3, {"reduction": 0.01}),
    (24, {"static": True, "heads": 2, "stride": 2}),
    (16, {"static": True, "combine": "add"}),
]


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Counter of the calls of ``ddf_layer``."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.ddfnet.ddf_layer.default
        return function(*args, **(kwargs or {}))


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def randomised(layer: DDF2d) -> DDF2d:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.eval()


def composed(layer: DDF2d) -> DDF2d:
    """Return a copy that calls its branches."""
    layer = copy.deepcopy(layer)
    layer.spatial.register_forward_hook(lambda *_: None)
    return layer


def fused(channels: int = 16, **options: Any) -> FusedDDF2d:
    return FusedDDF2d(randomised(DDF2d(channels, **options)))


@needs_kernel
@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize(("channels", "options"), OPTIONS)
def test_the_kernel_agrees_with_the_layer(isa: str, channels: int, options: dict) -> None:
    layer = randomised(DDF2d(channels, **options))
    scale, shift = torch.randn(channels), torch.randn(channels)
    sizes = [(2, 19, 23), (1, 7, 7), (3, 1, 2)]
    for (batch, height, width), folded in itertools.product(sizes, (False, True)):
        whole = FusedDDF2d(layer, scale, shift, relu=True) if folded else FusedDDF2d(layer)
        x = channels_last(batch, channels, height, width)
        with kernel(isa), torch.no_grad():
            got, contiguous = whole(x), whole(x.contiguous())
        with torch.no_grad():
            plain = composed(layer)(x)
            with ddfnet.ops.backend("reference"):
                expected = copy.deepcopy(layer).double()(x.double())
        if folded:
            plain, expected = (F.relu(y * scale[:, None, None] + shift[:, None, None]) for y in (plain, expected))
        # A spatial filter whose taps are close to each other loses digits in either way of computing it.
        error = (got - expected).abs().max()
        assert error <= 4 * (plain - expected).abs().max() + 1e-5 * expected.abs().max()
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert contiguous.is_contiguous()
        torch.testing.assert_close(contiguous, got)


def test_a_constant_filter_becomes_its_shift() -> None:
    layer = DDF2d(8)
    nn.init.zeros_(layer.spatial.conv.weight)
    nn.init.constant_(layer.spatial.conv.bias, 0.3)
    with torch.no_grad():
        assert torch.equal(FusedDDF2d(layer)(channels_last(1, 8, 6, 6)), torch.zeros(1, 8, 6, 6))


@needs_kernel
def test_same_bits_for_any_number_of_threads() -> None:
    layer, x = fused(48, heads=2), channels_last(3, 48, 40, 44)
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            results = [(torch.set_num_threads(count), layer(x))[1] for count in (1, 2, 3)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nan_stays_with_what_reads_it() -> None:
    x = channels_last(2, 8, 9, 9)
    x[1, 3] = float("nan")
    layer = DDF2d(8)
    with torch.no_grad():
        y = FusedDDF2d(layer)(x)
        assert not y[0].isnan().any()
        assert y[1].isnan().all()  # the mean over the image is everywhere
        assert FusedDDF2d(layer, torch.ones(8), torch.zeros(8), relu=True)(x)[1].isnan().all()


@pytest.mark.parametrize("layer", [fused(), randomised(DDF2d(16)).requires_grad_(False)], ids=["fused", "layer"])
def test_it_is_one_operator_for_inference(layer: DDF2d) -> None:
    x = channels_last(2, 16, 9, 9)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context, Calls() as calls:
            layer(x.clone())
        assert calls.count == 1
    with Calls() as calls:
        layer(x.clone().requires_grad_())
    assert calls.count == 0


def test_a_hook_that_comes_later_runs() -> None:
    layer, x, seen = fused(), channels_last(2, 16, 9, 9), []
    layer.channel.act.register_forward_hook(lambda *_: seen.append(None))
    layer(x)
    assert seen == [None]


def _hooked() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.conv.register_forward_hook(lambda module, args, output: output * 2)
    return layer


def _replaced() -> DDF2d:
    layer = DDF2d(16)
    layer.channel.norm = nn.Identity()
    return layer


def _with_padding() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.conv = nn.Conv2d(16, 9, 3, padding=1)
    return layer


def _overridden() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.norm.forward = torch.ones_like
    return layer


def _overridden_inside() -> DDF2d:
    layer = DDF2d(16)
    conv = layer.channel.reduce
    conv._conv_forward = lambda x, weight, bias: nn.functional.conv2d(x, 2 * weight, bias)  # type: ignore[method-assign]
    return layer


def _parametrised() -> DDF2d:
    layer = DDF2d(16)
    nn.utils.parametrizations.weight_norm(layer.channel.expand)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        _hooked(),
        _replaced(),
        _parametrised(),
        _with_padding(),
        _overridden(),
        _overridden_inside(),
        DDF2d(16, norm="sigmoid"),
        DDF2d(16, filters="spatial"),
        DDF2d(16, padding=0),
        DDF2d(16, 4),
    ],
    ids=[
        "hooked",
        "replaced",
        "parametrised",
        "wider",
        "overridden",
        "overridden inside",
        "sigmoid",
        "spatial",
        "valid",
        "even",
    ],
)
def test_parts_that_are_not_as_built_are_called(layer: DDF2d) -> None:
    x, scale, shift = channels_last(2, 16, 9, 9), torch.randn(16), torch.randn(16)
    whole = FusedDDF2d(layer, scale, shift, relu=True)
    with torch.no_grad(), Calls() as calls:
        got, plain = whole(x), layer(x)
    assert calls.count == 0
    torch.testing.assert_close(got, F.relu(plain * scale[:, None, None] + shift[:, None, None]))


def test_double_is_computed_in_double() -> None:
    layer, x = randomised(DDF2d(16).double()), channels_last(2, 16, 9, 9).double()
    with torch.no_grad():
        torch.testing.assert_close(FusedDDF2d(layer)(x), composed(layer)(x))


def test_a_scale_that_was_changed_counts() -> None:
    layer, x = DDF2d(16), channels_last(2, 16, 9, 9)
    layer.spatial.norm.scale = 0.1
    with torch.no_grad():
        torch.testing.assert_close(FusedDDF2d(layer)(x), composed(layer)(x))


def test_the_epilogue_is_a_copy_and_keeps_the_dtype_of_autocast() -> None:
    x, norm = channels_last(2, 16, 9, 9), nn.BatchNorm2d(16)
    layer = FusedDDF2d(DDF2d(16), norm.weight, torch.zeros(1).expand(16))
    with torch.no_grad():
        before = layer(x)
        norm.weight.zero_()
        assert torch.equal(layer(x), before)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype is torch.bfloat16


def test_the_state_dict_holds_all_that_was_folded() -> None:
    scale, shift, x = torch.randn(16), torch.randn(16), channels_last(2, 16, 9, 9)
    one = FusedDDF2d(randomised(DDF2d(16)), scale, shift, relu=True)
    other = FusedDDF2d(DDF2d(16), torch.ones(16), torch.zeros(16))
    other.load_state_dict(one.state_dict())
    assert other.relu
    with torch.no_grad():
        assert torch.equal(other(x), one(x))
    other.load_state_dict(FusedDDF2d(DDF2d(16), scale, shift).state_dict())
    assert not other.relu
    with pytest.raises(RuntimeError, match="epilogue_relu"):
        other.load_state_dict(DDF2d(16).state_dict(), strict=True)


def test_a_fused_layer_is_frozen_and_the_layer_stays() -> None:
    layer = DDF2d(16).train()
    whole = FusedDDF2d(layer)
    assert not whole.training and not any(parameter.requires_grad for parameter in whole.parameters())
    assert layer.training and all(parameter.requires_grad for parameter in layer.parameters())
    assert whole.spatial is not layer.spatial


@pytest.mark.parametrize(
    ("scale", "shift", "message"),
    [
        (torch.ones(8), torch.ones(16), r"scale must be \(C,\) = \(16,\), got \(8,\)"),
        (torch.ones(16), torch.ones(16, 1), r"shift must be \(C,\) = \(16,\), got \(16, 1\)"),
        (torch.ones(16), None, "scale and shift go together"),
    ],
)
def test_wrong_epilogues_are_refused(scale: torch.Tensor, shift: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedDDF2d(DDF2d(16), scale, shift)


def test_the_gradient_of_the_input_is_that_of_the_layer() -> None:
    layer, scale, shift = randomised(DDF2d(16).double()), torch.randn(16).double(), torch.randn(16).double()
    whole, x = FusedDDF2d(layer, scale, shift), channels_last(2, 16, 9, 9).double().requires_grad_()
    weight = torch.randn(2, 16, 9, 9).double()
    [got] = torch.autograd.grad((whole(x) * weight).sum(), x)
    [expected] = torch.autograd.grad(((layer(x) * scale[:, None, None] + shift[:, None, None]) * weight).sum(), x)
    torch.testing.assert_close(got, expected)
    assert torch.autograd.gradcheck(whole, channels_last(1, 16, 4, 3).double().requires_grad_())


def test_transforms_see_the_operations() -> None:
    layer, x, direction = fused(), channels_last(2, 16, 9, 9), channels_last(2, 16, 9, 9)
    step = 1e-3
    with torch.no_grad():
        _, got = torch.func.jvp(layer, (x,), (direction,))
        double = copy.deepcopy(layer).double()
        near = [double(x.double() + sign * step * direction.double()) for sign in (1, -1)]
        torch.testing.assert_close(got.double(), (near[0] - near[1]) / (2 * step), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.func.vmap(layer)(torch.stack([x, x + 1]))[1], layer(x + 1))


def test_the_operator_passes_opcheck() -> None:
    layer, x = fused(8, heads=2), channels_last(2, 8, 9, 9)
    spatial, channel = layer.spatial, layer.channel
    weights = [t.detach() for conv in (spatial.conv, channel.reduce, channel.expand) for t in (conv.weight, conv.bias)]
    scale, shift = torch.randn(8), torch.randn(8)
    geometry = (3, 3), (1, 1), (1, 1), (1, 1), "mul"
    arguments = x, weights, None, None, channel.norm.scale.detach(), None, scale, shift, *geometry
    torch.library.opcheck(
        torch.ops.ddfnet.ddf_layer.default, (*arguments, spatial.norm.scale, 1e-6, 1.0, 1e-6, True), {}
    )


def test_a_compiled_layer_agrees() -> None:
    layer, x = fused(), channels_last(2, 16, 9, 9)
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, dynamic=True)
        torch.testing.assert_close(compiled(x), layer(x))
        exported = torch.export.export(layer, (x,))
        torch.testing.assert_close(exported.module()(x), layer(x))


def test_the_mean_of_a_large_map_does_not_drift() -> None:
    layer, x = DDF2d(8).eval(), torch.full((32, 8, 256, 256), 0.1).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(FusedDDF2d(layer)(x), composed(layer)(x.contiguous()), rtol=1e-4, atol=1e-5)


def test_whoever_intercepts_torch_functions_is_asked() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Mode():
        fused()(channels_last(1, 16, 9, 9))
    assert torch.ops.ddfnet.ddf_layer.default in seen


@pytest.mark.parametrize("size", [(2, 16, 0, 5), (0, 16, 5, 5)])
def test_empty_maps(size: tuple[int, ...]) -> None:
    layer = fused()
    with torch.no_grad():
        if size[0] == 0:
            assert layer(channels_last(*size)).shape == size
        else:
            with pytest.raises(ValueError, match="output would be empty"):
                layer(channels_last(*size))
