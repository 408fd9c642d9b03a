"""Layers under ``torch.fx``: traced through, and as leaves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from ddfnet import compat, family
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm, FusedDDF2d

CHANNELS = 8
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "DDF2d": lambda: DDF2d(CHANNELS),
    "DDF2d of other options": lambda: DDF2d(CHANNELS, 4, padding="same", heads=2, norm="softmax", combine="add"),
    "DDF2d strided": lambda: DDF2d(CHANNELS, (3, 5), 2, padding=0, norm="batch", filters="spatial"),
    "DDFConv2d": lambda: DDFConv2d(CHANNELS, 12, 3, padding=1),
    "DDFConv2d with a bias": lambda: DDFConv2d(CHANNELS, CHANNELS, 3, stride=2),
    "DDFUpsample2d": lambda: DDFUpsample2d(CHANNELS),
    "DDFUpsample2d replicated": lambda: DDFUpsample2d(
        CHANNELS, (2, 3), norm="none", padding_mode="replicate", init="bilinear"
    ),
    "FusedDDF2d": lambda: FusedDDF2d(DDF2d(CHANNELS), torch.rand(CHANNELS), torch.rand(CHANNELS), relu=True),
    "FilterNorm": lambda: FilterNorm(2, 2, "spatial", learn_shift=True),
    "CARAFE": lambda: family.CARAFE(CHANNELS),
    "DySample": lambda: family.DySample(CHANNELS),
    "DySample of other options": lambda: family.DySample(CHANNELS, style="pl", groups=2, dyscope=True),
    "Involution": lambda: family.Involution(CHANNELS, 3, 2, group_channels=4),
    "DDFPack": lambda: compat.DDFPack(CHANNELS, stride=2),
    "DDFUpPack": lambda: compat.DDFUpPack(CHANNELS),
}
GUIDED: dict[str, Callable[[], nn.Module]] = {
    "DDFUpsample2d": lambda: DDFUpsample2d(CHANNELS, guide_channels=3),
    "DDFUpsample2d at the output": lambda: DDFUpsample2d(CHANNELS, guide_channels=3, guide_at="output"),
    "JBU": lambda: family.JBU(3, CHANNELS, 4),
    "JBUStack": lambda: family.JBUStack(CHANNELS),
    "DDFUpPack": lambda: compat.DDFUpPack(CHANNELS, joint_channels=3),
}
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[[int, int], list[tuple[int, ...]]]]] = {
    "carafe": (lambda x, m: family.carafe(x, m, 5), lambda h, w: [(2, 8, h, w), (2, 25, 2 * h, 2 * w)]),
    "dysample": (lambda x, o: family.dysample(x, o), lambda h, w: [(2, 8, h, w), (2, 32, h, w)]),
    "involution": (lambda x, f: family.involution(x, f, 3), lambda h, w: [(2, 8, h, w), (2, 18, h, w)]),
    "adaptive_conv": (
        lambda x, f: family.adaptive_conv(x, f),
        lambda h, w: [(2, 8, h + 2, w + 2), (2, h, w, 3, 3)],
    ),
    "joint_bilateral": (
        lambda x, g: family.joint_bilateral(x, guide=g, kernel_size=3),
        lambda h, w: [(2, 8, h, w), (2, 3, 2 * h, 2 * w)],
    ),
    "pac": (lambda x, g, f: family.pac(x, g, f), lambda h, w: [(2, 8, h, w), (2, 3, h, w), (8, 1, 3, 3)]),
    "pac_transpose": (
        lambda x, g, f: family.pac_transpose(x, g, f, padding=1, output_padding=1),
        lambda h, w: [(2, 8, h, w), (2, 3, 2 * h, 2 * w), (8, 1, 3, 3)],
    ),
    "kernel_prediction": (
        lambda x, f: family.kernel_prediction(x, f, 3),
        lambda h, w: [(2, 4, 3, h, w), (2, 4, 9, h, w)],
    ),
    "dynamic_depthwise": (
        lambda x, f: family.dynamic_depthwise(x, f),
        lambda h, w: [(2, 8, h, w), (2, 8, 3, 3)],
    ),
    "local_mean": (lambda x: family.local_mean(x, 3), lambda h, w: [(2, 8, h, w)]),
    "local_softmax": (
        lambda x, logits: family.local_softmax(x, logits, 3),
        lambda h, w: [(2, 8, h, w), (2, 2, h, w)],
    ),
    "compat.ddf": (
        lambda x, c, s: compat.ddf(x, c, s),
        lambda h, w: [(2, 8, h, w), (2, 8, 3, 3), (2, 9, h, w)],
    ),
}


def assert_equal_at_other_sizes(model: nn.Module, traced: Callable[..., Any], guide: bool = False) -> None:
    for n, height, width in ((2, 8, 10), (1, 12, 6), (3, 14, 18)):
        given = [torch.randn(n, CHANNELS, height, width)]
        if guide:
            given.append(torch.rand(n, 3, 2 * height, 2 * width))
        torch.testing.assert_close(traced(*given), model(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_traced_through(name: str) -> None:
    layer = LAYERS[name]().eval()
    assert_equal_at_other_sizes(layer, fx.symbolic_trace(layer))
    inside = nn.Sequential(nn.Identity(), layer, nn.ReLU()).eval()
    traced = fx.symbolic_trace(inside)
    assert_equal_at_other_sizes(inside, traced)
    assert dict(traced.named_parameters()).keys() == dict(inside.named_parameters()).keys()


@pytest.mark.parametrize("name", GUIDED)
def test_layers_with_a_guide_are_traced_through(name: str) -> None:
    layer = GUIDED[name]().eval()
    assert_equal_at_other_sizes(layer, fx.symbolic_trace(layer), guide=True)


@pytest.mark.parametrize("name", ["DDF2d", "DDFUpsample2d", "FusedDDF2d", "CARAFE", "DDFPack"])
def test_layers_are_leaves(name: str) -> None:
    class Leaves(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, path: str) -> bool:
            return path == "1" or super().is_leaf_module(module, path)

    inside = nn.Sequential(nn.Identity(), LAYERS[name](), nn.ReLU()).eval()
    graph = Leaves().trace(inside)
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
    assert_equal_at_other_sizes(inside, fx.GraphModule(inside, graph))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_one_node(name: str) -> None:
    call, sizes = FUNCTIONS[name]
    traced = fx.symbolic_trace(call)
    [node] = [node for node in traced.graph.nodes if node.op == "call_function"]
    assert node.target is getattr(compat if name == "compat.ddf" else family, name.removeprefix("compat."))
    for height, width in ((6, 8), (10, 7)):
        given = [torch.rand(size) for size in sizes(height, width)]
        torch.testing.assert_close(traced(*given), call(*given))


def test_a_trace_of_a_layer_trains() -> None:
    layer = DDF2d(CHANNELS)
    traced = fx.symbolic_trace(layer)
    x = torch.randn(2, CHANNELS, 9, 7)
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    got = torch.autograd.grad(traced(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_trace_takes_other_weights() -> None:
    fused = FusedDDF2d(DDF2d(CHANNELS), torch.rand(CHANNELS), torch.rand(CHANNELS))
    jbu = family.JBU(3, CHANNELS, 4).eval()
    traced_fused, traced_jbu = fx.symbolic_trace(fused), fx.symbolic_trace(jbu)
    for layer, traced in ((fused, traced_fused), (jbu, traced_jbu)):
        other = {name: torch.rand_like(value) for name, value in layer.state_dict().items() if value.dim()}
        layer.load_state_dict(other, strict=False)
        traced.load_state_dict(other, strict=False)
        given = [torch.randn(1, CHANNELS, 9, 8), torch.rand(1, 3, 12, 10)][: 1 + (layer is jbu)]
        torch.testing.assert_close(traced(*given), layer(*given), rtol=1e-4, atol=1e-5)


def test_a_trace_raises_the_errors_of_the_layer() -> None:
    for layer, given, said in (
        (DDF2d(CHANNELS), [torch.randn(1, 3, 6, 6)], "the input of DDF2d must be .* got .1, 3, 6, 6."),
        (DDFUpsample2d(CHANNELS), [torch.randn(1, CHANNELS, 6, 6), torch.rand(1, 3, 6, 6)], "takes no guide"),
        (DDFUpsample2d(CHANNELS, guide_channels=3), [torch.randn(1, CHANNELS, 6, 6)], "needs a guide"),
        (family.Involution(CHANNELS, 3, 2, group_channels=4), [torch.randn(1, CHANNELS, 5, 6)], "must divide the map"),
    ):
        with pytest.raises(ValueError, match=said):
            fx.symbolic_trace(layer)(*given)


def test_a_copy_of_a_trace_runs() -> None:
    layer = DDFConv2d(CHANNELS, 4, 3, padding=1).eval()
    traced = fx.symbolic_trace(layer)
    for again in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert_equal_at_other_sizes(layer, again)


def test_quantization_prepares_a_model() -> None:
    quantization = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), DDF2d(CHANNELS), nn.BatchNorm2d(CHANNELS), nn.ReLU()).eval()
    given = torch.randn(4, 3, 16, 16)
    prepared = quantization.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (given,))
    torch.testing.assert_close(prepared(given), model(given), rtol=1e-4, atol=1e-5)
    if "x86" in torch.backends.quantized.supported_engines:
        got = quantization.convert_fx(prepared)(given)
        assert (got - model(given)).norm() < 0.1 * model(given).norm()
