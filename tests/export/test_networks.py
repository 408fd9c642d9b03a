"""Layers and networks in ONNX Runtime, at sizes other than the traced one."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.export import export, images
from ddfnet.export.catalog import LAYERS, _classifier, _subject_of, subject
from ddfnet.export.inputs import sample_inputs
from ddfnet.export.verify import TOLERANCES
from ddfnet.models.fpn import PyramidBackbone
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d
from ddfnet.ops.geometry import Combine


def alive(model: nn.Module) -> nn.Module:
    """Set evaluation mode, and weights other than zero in all normalisations, which would hide their blocks."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(tmp_path: Path, inspect: Any, name: str) -> None:
    own = subject(name)
    report = export(own.model, own.inputs, tmp_path / "a.onnx", size=(2, 10, 12))
    assert report.agrees and report.worst.largest < 1e-4
    shape = inspect(report.file).graph.input[0].type.tensor_type.shape
    assert [each.dim_param for each in shape.dim] == ["batch", "", "height", "width"]


class Several(nn.Module):
    """Model with one output per layer, each with other options."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "strided": DDF2d(8, stride=2, heads=2, norm="softmax"),
                "even": DDF2d(8, kernel_size=(2, 4), combine="add", norm="sigmoid"),
                "valid": DDF2d(8, kernel_size=5, padding="valid", filters="spatial"),
                "same": DDFConv2d(8, 12, 4, padding="same", dilation=(2, 1), norm="none"),
                "static": DDF2d(8, heads=2, static=True),
                "batch": DDF2d(8, filters="channel", norm="batch"),
                "replicated": DDFUpsample2d(8, (2, 3), norm="none", padding_mode="replicate", init="bilinear"),
            }
        )
        self.joint = DDFUpsample2d(8, guide_channels=8, guide_at="output", heads=2)
        self.rounded = DDF2d(8).half()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        results = {name: layer(x) for name, layer in self.layers.items()}
        return results | {"joint": self.joint(x, results["replicated"]), "rounded": self.rounded(x.half())}


def test_layers_with_options(tmp_path: Path, inspect: Any) -> None:
    report = export(alive(Several()), torch.randn(2, 8, 12, 16), tmp_path / "a.onnx")
    inspect(report.file)
    assert {each.output for each in report.differences} == {*Several().layers, "joint", "rounded"}
    assert all(each.largest < 1e-4 for each in report.differences if each.output != "rounded")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # A block of each stage has every kind of layer that the stage has. `ddfnet bench export` has all blocks.
        ("ddf_mul_resnet50", {"layers": (1, 1, 1, 1)}),
        ("small_resnet23", {"layers": (1, 1, 1), "block_args": {"combine": "add"}}),
    ],
    ids=["resnet50", "small"],
)
def test_resnets(tmp_path: Path, inspect: Any, name: str, options: dict[str, Any]) -> None:
    network = alive(timm.create_model(name, num_classes=10, **options))
    sizes = [(1, 65, 97), (3, 96, 33), (2, 128, 128)]
    report = export(network, images(3), tmp_path / "a.onnx", size=(2, 64, 96), check=sizes)
    model = inspect(report.file)
    assert {each.name for each in model.graph.initializer} >= {"fc.weight", "fc.bias"}
    assert report.worst.largest < 1e-4
    assert report.facts["outputs"] == {"output": {"dtype": "float32", "shape": ["batch", 10]}}


@pytest.mark.parametrize("carry", [True, False])
def test_the_guided_upsampler(tmp_path: Path, inspect: Any, carry: bool) -> None:
    scale = 4 if carry else 2
    own = _subject_of(GuidedUpsampler(scale, channels=4, guide_channels=4, carry=carry).eval())
    report = export(own.model, own.inputs, tmp_path / "a.onnx", size=(2, 6, 8))
    inspect(report.file)
    assert {each.output for each in report.differences} == {"output_depth", "output_valid"}
    assert report.facts["inputs"]["guide"]["shape"] == ["batch", 3, f"{scale}*height", f"{scale}*width"]


def test_the_detector_s_pyramid(tmp_path: Path, inspect: Any) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": 16, "pretrained": False, "frozen_stages": 0, "norm": "batch", "options": {}}
    backbone = PyramidBackbone("mobilenetv3_small_050", "ddf", **options).eval()
    report = export(backbone, images(3), tmp_path / "a.onnx", size=(2, 96, 128), step=32)
    inspect(report.file)
    assert {each.output for each in report.differences} == {"output_0", "output_1", "output_2", "output_3", "pool"}
    assert report.worst.largest < 1e-4


def test_a_classifier_by_name_has_no_block_that_the_check_cannot_see() -> None:
    own = _classifier("small_resnet23", None)
    norms = [module for module in own.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(module.weight.any() for module in norms)
    assert not any(module.training for module in own.model.modules()) and {each.momentum for each in norms} == {0.1}


@pytest.mark.parametrize("name", ["small_resnet23", "ddf_add_resnet18"])
def test_a_classifier_with_random_weights_keeps_its_activations_at_one(name: str) -> None:
    own = _classifier(name, None)
    seen: list[float] = []
    for module in own.model.modules():
        if isinstance(module, nn.BatchNorm2d):  # those at the ends of branches have a scale for the number of branches
            module.register_forward_hook(lambda own, _, output: seen.append(float(output.std() / own.weight.mean())))
        elif isinstance(module, (BasicBlock, Bottleneck)):
            module.register_forward_hook(lambda *given: seen.append(float(given[-1].std())))
    with torch.no_grad():
        own.model(*sample_inputs(own.inputs, (2, *own.size), seed=3).values())
    assert seen and min(seen) > 0.5 and max(seen) < 2


@pytest.mark.parametrize("name", ["ddf_add_resnet18", "ddf_add_resnet152"])
def test_a_deep_classifier_with_random_weights_rounds_as_little_as_a_shallow_one(name: str) -> None:
    """Float32 is nearer to float64 than the check's tolerance, so that no file is excused by what its model rounds."""
    own = subject(name)
    image = sample_inputs(own.inputs, (1, 64, 96), seed=3)["input"]
    with torch.no_grad():
        single, exact = own.model(image), copy.deepcopy(own.model).double()(image.double())
        rms = exact.square().mean().sqrt()
        assert (single - exact).abs().max() < TOLERANCES[torch.float32] / 3 * rms
        for layer in [module for module in own.model.modules() if isinstance(module, DDF2d)]:
            right, layer.combine = layer.combine, Combine("mul")
            off, layer.combine = (own.model(image) - single).abs().max(), right
            assert off > 0.1 * rms  # a wrong layer anywhere is seen


def test_our_networks_have_names_in_a_process_that_has_not_imported_them() -> None:
    code = "from ddfnet.export.catalog import subject; print(type(subject('small_resnet23').model).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "SmallResNet", done.stderr
