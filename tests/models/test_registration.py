"""Networks are registered with timm once timm is imported, and importing ours does not import it."""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddfnet.models.registration import when_imported

NAME = "ddfnet_tests_package"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that can be imported, and is not yet."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text("ready = True\n")
    (folder / "part.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.meta_path.copy()
    yield folder
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def test_it_is_done_when_the_package_has_been_executed_and_once(package: Path) -> None:
    ready: list[bool] = []
    when_imported(NAME, lambda: ready.append(sys.modules[NAME].ready))
    assert importlib.util.find_spec(NAME) is not None  # to look for it is not to import it
    assert NAME not in sys.modules and not ready
    importlib.import_module(f"{NAME}.part")
    assert ready == [True]
    importlib.reload(sys.modules[NAME])
    assert ready == [True]
    assert importlib.resources.files(NAME) / "part.py" == package / "part.py"


def test_it_is_done_at_once_where_the_package_is_there(package: Path) -> None:
    importlib.import_module(NAME)
    before, ready = sys.meta_path.copy(), []
    when_imported(NAME, lambda: ready.append(True))
    assert ready == [True] and sys.meta_path == before


def test_a_package_that_fails_or_is_not_there_is_not_followed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready: list[bool] = []
    when_imported(NAME, lambda: ready.append(True))
    source = package / "__init__.py"
    source.write_text("raise RuntimeError('broken')\n")
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module(NAME)
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(NAME)
    monkeypatch.delitem(sys.modules, NAME)
    assert not ready
    source.write_text("mended = 'a longer file than before'\n")
    importlib.import_module(NAME)
    assert ready == [True]


@pytest.mark.parametrize("order", ["ddfnet.models, timm", "timm, ddfnet.models"])
def test_timm_lists_the_networks_whichever_is_imported_first(order: str) -> None:
    pytest.importorskip("timm")
    code = f"import {order}; print(len(timm.list_models('ddf_*')), timm.create_model('ddf_mul_resnet18').num_classes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "1000"]


def test_the_guided_network_does_without_timm_and_huggingface_hub() -> None:
    code = "import sys, ddfnet.depth.network, ddfnet.depth; print({'timm', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fresh process each would take long")
def test_whatever_is_imported_first() -> None:
    """Those of our modules that import timm are in the middle of their own import when it calls for them."""
    pytest.importorskip("timm")
    code = (
        "import os, torch\n"
        "firsts = {'from ddfnet.models import ddf_mul_resnet50': 'small_resnet23',\n"
        "          'import ddfnet.models.resnet': 'ddf_add_resnet18'}\n"
        "for first, name in firsts.items():\n"
        "    if os.fork() == 0:\n"
        "        exec(first)\n"
        "        import timm\n"
        "        assert timm.is_model(name)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0, first\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
