"""Floors of the package: no upward import, no import circle, and networks alone in `ddfnet.models`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import imports

EDGES = imports.graph()


def test_every_part_of_the_package_has_a_floor() -> None:
    assert {imports.floor(module) for module in EDGES} == imports.FLOOR.keys()


def test_no_module_imports_from_a_higher_floor() -> None:
    assert not [*imports.upward(EDGES)]


def test_there_is_no_import_circle() -> None:
    assert not imports.circles(EDGES)


def test_the_contributing_guide_names_the_floors() -> None:
    text = (imports.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for names in imports.FLOORS:
        assert ", ".join(f"`{name}`" for name in names) in text


def test_models_holds_networks_alone() -> None:
    files = {path.name for path in (imports.ROOT / "ddfnet" / "models").glob("*.py")}
    networks = {"classifier.py", "resnet.py", "faster_rcnn.py", "fpn.py", "upsamplers.py"}
    assert files == {"__init__.py", "timm_options.py", *networks}


@pytest.mark.parametrize(
    "source",
    [
        "import ddfnet.cli.main",
        "from ddfnet.cli import main",
        "from ddfnet.cli.main import run",
        "def call():\n    from ddfnet.cli import main",
        "if TYPE_CHECKING:\n    from ddfnet.cli.main import Run",
        "import_module('ddfnet.cli.main')",
        "COMMANDS = {'main': 'ddfnet.cli.main:main'}",
    ],
)
def test_an_upward_import_is_found(source: str) -> None:
    known = {"ddfnet": 0, "ddfnet.ops": 0, "ddfnet.cli": 0, "ddfnet.cli.main": 0}
    edges = {"ddfnet.ops": imports.imports("ddfnet.ops", source, known)}
    assert [*imports.upward(edges)] == ["ddfnet.ops imports ddfnet.cli.main"]


def test_a_name_that_is_put_together_counts_as_its_package() -> None:
    known = {"ddfnet.cli": 0, "ddfnet.cli.main": 0}
    assert imports.imports("ddfnet.ops", "import_module(f'ddfnet.cli.{name}')", known) == {"ddfnet.cli"}


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(imports.circles(edges)) == [["b", "c"], ["d", "e"]]


def test_the_graph_is_that_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "ddfnet" / "ops").mkdir(parents=True)
    (tmp_path / "ddfnet" / "__init__.py").write_text("from ddfnet.ops import ddf\n")
    (tmp_path / "ddfnet" / "ops" / "__init__.py").write_text("import torch\n")
    assert imports.graph(tmp_path) == {"ddfnet": {"ddfnet.ops"}, "ddfnet.ops": set()}
