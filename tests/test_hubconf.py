"""``torch.hub.load`` of this repository, from a process that knows nothing of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path) -> list[str]:
    start = f"import functools, sys, torch\nload = functools.partial(torch.hub.load, {str(ROOT)!r}, source='local')\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_networks(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    code = (
        "network = load('ddf_mul_resnet50', num_classes=3, layers=(1, 1, 1, 1)).eval()\n"
        "print(type(network).__name__, tuple(network(torch.rand(1, 3, 32, 32)).shape))\n"
        "print(type(load('fasterrcnn_resnet50_fpn', classes=['cat'])).__name__)\n"
    )
    assert run(code, tmp_path) == ["DDFResNet (1, 3)", "Detector"]


def test_the_guided_upsampler_needs_no_timm(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    code = (
        "sys.modules.update(dict.fromkeys(['timm', 'torchvision', 'huggingface_hub']))\n"
        "network = load('guided_upsampler')\n"
        "depth, valid = network(torch.rand(1, 1, 6, 8), torch.rand(1, 3, 24, 32), scale_factor=4)\n"
        "print(tuple(depth.shape), network.training)\n"
        "print(load('guided_upsampler', pretrained=False, scale_factor=2).scale_factor)\n"
        "try:\n"
        "    load('guided_upsampler', scale_factor=2)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "try:\n"
        "    load('ddf_mul_resnet50')\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    shape, scale, options, missing = run(code, tmp_path)
    assert (shape, scale) == ("(1, 1, 24, 32) False", "2")
    assert options == "pretrained=True has options of its own; give pretrained=False, or leave out ['scale_factor']"
    assert missing.endswith("pip install 'ddfnet[models]'")
