"""The layer in one call: when it serves, and that it computes what the steps compute."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import ddfnet
from ddfnet.nn import DDF2d, ddf
from tests.ops.cases import kernel, kernels

KERNELS = [name for name in kernels() if name != "reference"]
pytestmark = pytest.mark.skipif(not KERNELS, reason="no compiled kernel here")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of a DDF2d was served whole."""
    seen: list[bool] = []
    whole = ddf.filter_whole

    def watch(layer: DDF2d, x: torch.Tensor) -> torch.Tensor | None:
        output = whole(layer, x)
        seen.append(output is not None)
        return output

    monkeypatch.setattr(ddf, "filter_whole", watch)
    return seen


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def randomised(layer: DDF2d) -> DDF2d:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer.eval()


@pytest.mark.parametrize("isa", KERNELS)
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (64, {}),
        (16, {"stride": 2}),
        (20, {"stride": (1, 3)}),
        (40, {"heads": 4}),
        (32, {"heads": 2, "combine": "add"}),
        (7, {"dilation": 2}),
        (24, {"kernel_size": 5}),
        (24, {"kernel_size": (3, 7), "stride": 2}),
        (3, {"reduction": 0.01}),
    ],
)
def test_it_agrees_with_the_steps(isa: str, channels: int, options: dict, calls: list[bool]) -> None:
    layer = randomised(DDF2d(channels, **options))
    sizes = [(2, 19, 23), (1, 7, 7), (3, 1, 2)]
    for (batch, height, width), folded in itertools.product(sizes, (False, True)):
        x = channels_last(batch, channels, height, width)
        if folded and layer.after_scale is None:
            layer.fold_after(torch.randn(channels), torch.randn(channels), relu=True)
        with kernel(isa), torch.no_grad():
            got = layer(x)
        steps = layer(x)  # gradients may be wanted
        with ddfnet.ops.backend("reference"):
            expected = layer.double()(x.double())
        layer.float()
        # A spatial filter whose taps are close to each other loses digits in either way of computing it.
        error = (got - expected).abs().max()
        assert error <= 4 * (steps - expected).abs().max() + 1e-5 * expected.abs().max()
        assert got.is_contiguous(memory_format=torch.channels_last)
    assert calls == [True, False, False] * 6


def test_a_constant_filter_becomes_its_shift() -> None:
    layer = DDF2d(8)
    nn.init.zeros_(layer.spatial.conv.weight)
    nn.init.constant_(layer.spatial.conv.bias, 0.3)
    with torch.no_grad():
        assert torch.equal(layer(channels_last(1, 8, 6, 6)), torch.zeros(1, 8, 6, 6))


def test_same_bits_for_any_number_of_threads() -> None:
    layer, x = randomised(DDF2d(48, heads=2)), channels_last(3, 48, 40, 44)
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            results = [(torch.set_num_threads(count), layer(x))[1] for count in (1, 2, 3)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nan_stays_with_what_reads_it() -> None:
    layer, x = DDF2d(8).eval(), channels_last(2, 8, 9, 9)
    x[1, 3] = float("nan")
    with torch.no_grad():
        y = layer(x)
    assert not y[0].isnan().any()
    assert y[1].isnan().all()  # the mean over the picture is everywhere
    layer.fold_after(torch.ones(8), torch.zeros(8), relu=True)
    with torch.no_grad():
        assert layer(x)[1].isnan().all()


def test_it_serves_inference_alone(calls: list[bool]) -> None:
    layer, x = DDF2d(16).eval(), channels_last(2, 16, 9, 9)
    layer(x)
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x.clone())
    assert calls == [False, True, True]


def _hooked() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.conv.register_forward_hook(lambda *_: None)
    return layer


def _replaced() -> DDF2d:
    layer = DDF2d(16)
    layer.channel.norm = nn.Identity()
    return layer


def _wider() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.conv = nn.Conv2d(16, 9, 3, padding=1)
    return layer


def _overridden() -> DDF2d:
    layer = DDF2d(16)
    layer.spatial.norm.forward = torch.zeros_like
    return layer


def _moved() -> DDF2d:
    layer = DDF2d(16)
    layer.padding = (0, 0)
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
        _wider(),
        _overridden(),
        _moved(),
        DDF2d(16, norm="sigmoid"),
        DDF2d(16, filters="spatial"),
        DDF2d(16, padding=0),
        DDF2d(16, 4),
        DDF2d(16).double(),
    ],
    ids=[
        "hooked",
        "replaced",
        "parametrised",
        "wider",
        "overridden",
        "moved",
        "sigmoid",
        "spatial",
        "valid",
        "even",
        "double",
    ],
)
def test_whoever_wants_to_see_the_steps_sees_them(layer: DDF2d, calls: list[bool]) -> None:
    with torch.no_grad():
        dtype = layer.spatial.conv.weight.dtype
        layer(channels_last(2, 16, 9, 9).to(dtype))
    assert calls == [False]


def test_a_scale_that_was_changed_counts() -> None:
    layer, x = DDF2d(16).eval(), channels_last(2, 16, 9, 9)
    layer.spatial.norm.scale = 0.1
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_what_is_folded_is_a_copy_and_keeps_the_dtype_of_autocast() -> None:
    layer, x, norm = DDF2d(16).eval(), channels_last(2, 16, 9, 9), nn.BatchNorm2d(16)
    layer.fold_after(norm.weight, torch.zeros(1).expand(16), relu=False)
    assert {"after_scale", "after_shift"} <= set(layer.state_dict()) - {name for name, _ in layer.named_parameters()}
    with torch.no_grad():
        before = layer(x)
        norm.weight.zero_()
        assert torch.equal(layer(x), before)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype is torch.bfloat16


def test_the_mean_of_a_large_map_does_not_drift() -> None:
    layer, x = DDF2d(8).eval(), torch.full((32, 8, 256, 256), 0.1).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-4, atol=1e-5)


def test_whoever_intercepts_torch_functions_sees_the_steps(calls: list[bool]) -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Mode():
        DDF2d(16).eval()(channels_last(1, 16, 9, 9))
    assert calls == [False]


def test_contiguous_maps_other_dtypes_autocast_and_transforms_go_step_by_step(calls: list[bool]) -> None:
    layer, x = DDF2d(16).eval(), channels_last(2, 16, 9, 9)
    with torch.no_grad():
        layer(x.contiguous())
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype is torch.bfloat16
        torch.func.vmap(layer)(x[None])
        with ddfnet.ops.backend("reference"):
            layer(x)
    assert calls == [False] * 4


@pytest.mark.parametrize("size", [(2, 16, 0, 5), (0, 16, 5, 5)])
def test_empty_maps(size: tuple[int, ...]) -> None:
    layer = DDF2d(16).eval()
    with torch.no_grad():
        if size[0] == 0:
            assert layer(channels_last(*size)).shape == size
        else:
            with pytest.raises(ValueError, match="output would be empty"):
                layer(channels_last(*size))
