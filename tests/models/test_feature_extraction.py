"""Networks under ``torch.fx``: the feature extractors of torchvision and timm, and plain traces."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")

import timm
import torch
from timm.models import create_feature_extractor as timm_extractor
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

import ddfnet.models  # noqa: F401  (registers the networks)
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models.fpn import PyramidBackbone
from ddfnet.nn import DDF2d
from ddfnet.surgery import fuse

SIZES = ((1, 64, 96), (2, 97, 65))


def network(name: str, **options: object) -> nn.Module:
    made = timm.create_model(name, **options)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)  # zeros would hide their blocks
    return made.eval()


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(dict(got), dict(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ddf_mul_resnet18", "small_resnet23"])
def test_feature_extractors(name: str) -> None:
    own = network(name, num_classes=5)
    names = {"layer1": "fine", "layer3.0.act1": "inside", "fc": "logits"}
    seen: dict[str, Tensor] = {}
    for path, called in names.items():
        own.get_submodule(path).register_forward_hook(
            lambda module, given, y, called=called: seen.__setitem__(called, y)
        )
    whole = timm_extractor(own, names)
    through = create_feature_extractor(own, names)
    assert not any(".ddf.channel" in str(node.target) for node in whole.graph.nodes)  # layers are leaves
    leaves = [own.get_submodule(str(n.target)) for n in whole.graph.nodes if n.op == "call_module"]
    assert any(isinstance(each, DDF2d) for each in leaves)
    for size in SIZES:
        x = torch.randn(size[0], 3, *size[1:])
        own(x)
        expected = dict(seen)
        assert_equal(through(x), expected)
        assert_equal(whole(x), expected)


def test_a_feature_inside_a_layer() -> None:
    own = network("ddf_mul_resnet18")
    layer = own.layer2[0].conv2.ddf
    extractor = create_feature_extractor(own, {"layer2.0.conv2.ddf.spatial": "filters"})
    filters: list[Tensor] = []
    layer.spatial.register_forward_hook(lambda module, given, y: filters.append(y))
    x = torch.randn(1, 3, 64, 64)
    own(x)
    torch.testing.assert_close(extractor(x)["filters"], filters[0], rtol=1e-4, atol=1e-4)


def test_timm_s_features_by_a_graph() -> None:
    torch.manual_seed(0)
    plain = network("ddf_add_resnet18", features_only=True)
    graph = timm.create_model("ddf_add_resnet18", features_only=True, feature_cls="fx").eval()
    graph.graph_module.load_state_dict(plain.state_dict(), strict=False)
    for size in SIZES:
        x = torch.randn(size[0], 3, *size[1:])
        for got, expected in zip(graph(x), plain(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_fused_network_is_traced() -> None:
    fused = fuse(network("small_resnet23"))
    traced = fx.symbolic_trace(fused)
    for size in SIZES:
        x = torch.randn(size[0], 3, *size[1:])
        torch.testing.assert_close(traced(x), fused(x), rtol=1e-4, atol=1e-4)


def test_a_pyramid_is_traced() -> None:
    own = PyramidBackbone(
        "mobilenetv3_small_050", "ddf", width=16, pretrained=False, frozen_stages=0, norm="batch", options={}
    ).eval()
    traced = fx.symbolic_trace(own)
    for size in SIZES:
        x = torch.randn(size[0], 3, *size[1:])
        assert_equal(traced(x), own(x))


@pytest.mark.parametrize("carry", [True, False])
def test_the_guided_upsampler_is_traced(carry: bool) -> None:
    own = GuidedUpsampler(4, channels=4, guide_channels=4, carry=carry).eval()
    traced = fx.symbolic_trace(own, concrete_args={"scale_factor": None})
    for n, height, width in ((1, 6, 8), (2, 9, 7)):
        depth, guide = torch.rand(n, 1, height, width), torch.rand(n, 3, 4 * height, 4 * width)
        valid = torch.rand(n, 1, height, width) > 0.2
        got, expected = traced(depth, guide, valid), own(depth, guide, valid)
        torch.testing.assert_close(got.depth, expected.depth, rtol=1e-4, atol=1e-5)
        assert torch.equal(got.valid, expected.valid)
