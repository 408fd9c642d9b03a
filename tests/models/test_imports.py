"""Registration of the networks with timm, and imports without the extras."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("order", ["ddfnet.models, timm", "timm, ddfnet.models", "ddfnet.models.resnet, timm"])
def test_timm_lists_the_networks_after_ours_are_imported(order: str) -> None:
    pytest.importorskip("timm")
    code = f"import {order}; print(len(timm.list_models('ddf_*')), timm.create_model('small_resnet23').num_classes)"
    assert run(code) == ["8", "1000"]


def test_the_package_alone_imports_neither_timm_nor_huggingface_hub() -> None:
    code = (
        "import sys, ddfnet, ddfnet.depth.network, ddfnet.pretrained\n"
        "print(*{'timm', 'torchvision', 'huggingface_hub', 'safetensors', 'ddfnet.models'} & set(sys.modules))"
    )
    assert run(code) == []


def test_without_timm_the_guided_upsampler_is_there() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['timm', 'torchvision', 'huggingface_hub']))\n"
        "from ddfnet import models\n"
        "print(models.GuidedUpsampler.__name__)\n"
        "for name in ('ddf_mul_resnet50', 'Detector'):\n"
        "    try:\n"
        "        getattr(models, name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(str(error).endswith(\"pip install 'ddfnet[models]'\"))\n"
    )
    assert run(code) == ["GuidedUpsampler", "True", "True"]
