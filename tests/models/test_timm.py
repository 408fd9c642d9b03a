"""Files of weights, and names of networks, in timm and in libraries that use timm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("safetensors")

import timm
import torch
from safetensors.torch import save_file
from torch import nn

import ddfnet.models  # noqa: F401
from ddfnet.nn import DDF2d
from tests.official_networks import official_resnet

NAME, LAYERS = "ddf_mul_resnet50", (1, 1, 1, 1)  # a shallow network of the same blocks


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(NAME, layers=LAYERS).eval()


@pytest.fixture(params=[".safetensors", ".pth"])
def file(request: pytest.FixtureRequest, network: nn.Module, tmp_path: Path) -> str:
    path = tmp_path / f"weights{request.param}"
    if path.suffix == ".pth":
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    else:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return str(path)


def from_file(file: str, overlay: dict[str, int] | None = None, **options: object) -> nn.Module:
    overlay = {"file": file, **(overlay or {})}  # type: ignore[dict-item]
    model: nn.Module = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay=overlay, layers=LAYERS, **options
    )
    return model.eval()


def test_the_weights_of_a_file(network: nn.Module, file: str) -> None:
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(from_file(file)(x), network(x))


@pytest.mark.parametrize("overlay", [{}, {"num_classes": -1}], ids=["plain", "as train.py --pretrained-path"])
def test_another_number_of_classes_drops_the_head(network: nn.Module, file: str, overlay: dict[str, int]) -> None:
    model = from_file(file, overlay, num_classes=3)
    assert model.fc.out_features == 3  # type: ignore[union-attr]
    ours, theirs = network.state_dict(), model.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == ["fc.weight", "fc.bias"]


def test_another_number_of_channels_and_features_alone(network: nn.Module, file: str) -> None:
    grey = from_file(file, in_chans=1)
    assert torch.equal(grey.conv1.weight, network.conv1.weight.sum(1, keepdim=True))  # type: ignore[union-attr, operator]
    features = from_file(file, features_only=True)
    assert torch.equal(features.state_dict()["conv1.weight"], network.conv1.weight)  # type: ignore[union-attr, arg-type]


def test_official_weights_need_no_conversion(tmp_path: Path) -> None:
    official, file = official_resnet(LAYERS, 1000), tmp_path / "official.pth"
    torch.save(official.state_dict(), file)
    x = torch.randn(1, 3, 40, 40)
    torch.testing.assert_close(from_file(str(file))(x), official(x), rtol=1e-4, atol=1e-4)


# --- libraries that use timm ----------------------------------------------------------------------------------------


def test_an_encoder_of_segmentation_models(network: nn.Module, file: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    overlay = {"file": file}
    model = smp.Unet("tu-ddf_mul_resnet50", encoder_weights=True, pretrained_cfg_overlay=overlay, layers=LAYERS)
    state = model.encoder.model.state_dict()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_segmentation_models_train_the_50() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.Unet("tu-ddf_mul_resnet50", encoder_weights=None, classes=2)
    assert sum(isinstance(module, DDF2d) for module in model.encoder.modules()) == 16
    masks = model(torch.randn(2, 3, 64, 64))
    assert masks.shape == (2, 2, 64, 64)
    for block in model.encoder.modules():  # zeros in the last normalisation block the gradients
        if hasattr(block, "bn3"):
            nn.init.ones_(block.bn3.weight)
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.encoder.parameters())


def test_what_timms_train_script_does_with_its_flag() -> None:
    """Check ``--device-modules ddfnet.models``, which are imported after timm and before ``--model`` is made."""
    code = (
        "import argparse, importlib, timm\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--model')\n"
        "parser.add_argument('--device-modules', default=None, type=str, nargs='+')\n"
        "arguments = parser.parse_args(['--device-modules', 'ddfnet.models', '--model', 'ddf_mul_resnet18'])\n"
        "assert not timm.is_model(arguments.model)\n"
        "for module in arguments.device_modules:\n"
        "    importlib.import_module(module)\n"
        "print(type(timm.create_model(arguments.model, num_classes=10, layers=(1, 1, 1, 1))).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "DDFResNet\n"
