"""Cost of ``import ddfnet``: next to nothing alone, and with torch nothing but the operator's own modules."""

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


@pytest.mark.parametrize(
    "order", ["import ddfnet, torch", "import torch, ddfnet", "import ddfnet.nn", "import ddfnet.ops"]
)
def test_the_operators_are_registered_as_soon_as_torch_is_there(order: str) -> None:
    found = run(f"{order}\nimport torch, sys\nprint('ddfnet.ops' in sys.modules, torch.ops.ddfnet.ddf, *sys.meta_path)")
    assert found.startswith("True ddfnet.ddf ") and "OperatorsAfterTorch" not in found


def test_torch_is_imported_when_it_is_first_used() -> None:
    code = (
        "import sys, ddfnet, importlib.util\n"
        "print(importlib.util.find_spec('torch') is not None, {'torch', 'numpy'} & set(sys.modules))\n"
        "print(ddfnet.ddf.__module__, 'torch' in sys.modules, set(ddfnet.__all__) <= set(dir(ddfnet)))"
    )
    assert run(code).splitlines() == ["True set()", "ddfnet.ops.functional True True"]


def test_a_first_use_inside_a_compiled_function() -> None:
    code = (
        "import ddfnet, torch\n"
        "call = torch.compile(lambda x, c: ddfnet.ddf(x, c, None), backend='eager', fullgraph=True)\n"
        "print(*call(torch.rand(1, 2, 4, 5), torch.rand(1, 2, 3, 3)).shape)"
    )
    assert run(code) == "1 2 4 5\n"
