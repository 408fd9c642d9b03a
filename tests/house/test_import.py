"""Cost of ``import ddfnet``: nothing but torch and the operator's own modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATER = (
    "ddfnet.bench",
    "ddfnet.cli",
    "ddfnet.compat",
    "ddfnet.data",
    "ddfnet.depth",
    "ddfnet.export",
    "ddfnet.family",
    "ddfnet.models",
    "ddfnet.ops.triton",
    "ddfnet.profiler",
    "ddfnet.surgery",
    "ddfnet.tasks",
    "ddfnet.training",
    "huggingface_hub",
    "jsonargparse",
    "lightning",
    "PIL",
    "safetensors",
    "scipy",
    "timm",
    "torch._dynamo",
    "torch.profiler._memory_profiler",
    "torchvision",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Return the modules that ``import ddfnet`` loads beyond those of ``import torch``."""
    return set(
        run(
            "import sys, torch; before = set(sys.modules); import ddfnet; print(*sorted(set(sys.modules) - before))"
        ).split()
    )


@pytest.mark.parametrize("module", LATER)
def test_it_is_imported_when_it_is_first_used(module: str, loaded: set[str]) -> None:
    assert "ddfnet.ops" in loaded
    assert module not in loaded


def test_what_the_package_names_is_there() -> None:
    assert run("import ddfnet; print(*(name for name in ddfnet.__all__ if not hasattr(ddfnet, name)))") == "\n"
