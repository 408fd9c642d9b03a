"""Cost of ``import ddfnet``: torch and the operator's own modules; of the command: neither."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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


def test_what_the_documentation_names_is_there() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("reproduce/**/*.md")]
    names = {name for page in pages for name in re.findall(r"`(ddfnet(?:\.\w+)+)", page.read_text())}
    assert "ddfnet.ops.library_path" in names
    missing = []
    for name in sorted(names):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("order", ["import ddfnet, torch", "import torch, ddfnet", "import ddfnet.nn"])
def test_the_operators_are_registered(order: str) -> None:
    assert run(f"{order}\nimport torch\nprint(torch.ops.ddfnet.ddf)") == "ddfnet.ddf\n"


def test_the_command_leaves_torch_to_who_needs_it() -> None:
    code = (
        "import ddfnet_command, sys, ddfnet\n"
        "print({'torch', 'numpy'} & set(sys.modules))\n"
        "print(ddfnet.ddf.__module__, 'torch' in sys.modules, set(ddfnet.__all__) <= set(dir(ddfnet)))"
    )
    assert run(code).splitlines() == ["set()", "ddfnet.ops.functional True True"]


def test_a_first_use_inside_a_compiled_function() -> None:
    code = (
        "import ddfnet_command, ddfnet, torch\n"
        "call = torch.compile(lambda x, c: ddfnet.ddf(x, c, None), backend='eager', fullgraph=True)\n"
        "print(*call(torch.rand(1, 2, 4, 5), torch.rand(1, 2, 3, 3)).shape)"
    )
    assert run(code) == "1 2 4 5\n"
