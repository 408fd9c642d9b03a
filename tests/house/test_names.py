"""Names of the package: one word for one thing, and a file name twice only for the same thing on two floors."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.house import imports

MODULES = imports.modules()
WORDS = {"Pair", "Report", "Row", "Shape", "Size", "Window"}  # most easily used for many things
OFFICIAL = {"FilterNorm"}  # `ddfnet.compat` has the official names
SAME = {  # file name: the one thing that it means in each folder
    "check": "the comparison of benchmark results, and its command",
    "folder": "a data set in a folder",
    "images": "images as arrays",
    "registry": "the table of all that is registered",
    "classification": "the task, in data, tasks, ...",
    "data": "a task's Lightning data module",
    "depth": "the task",
    "detection": "the task",
    "evaluation": "a task's table of metrics",
    "export": "the command that exports, and the one that times it",
    "family": "the benchmark of the family, and its command",
    "functional": "operators as functions",
    "layer": "the benchmark of the layer, and its command",
    "module": "a task's Lightning module",
    "network": "the benchmark of networks, and its command",
    "op": "the benchmark of the operator, and its command",
    "scenes": "images with depth maps, and the command that renders them",
    "upsample": "DDF-Up: the layer, the depth tool, its command",
}


def defined(module: str) -> tuple[set[str], set[str]]:
    """Collect the classes, and the type aliases, of a module."""
    classes, names = set(), set()
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            classes.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.add(node.targets[0].id)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return classes, {name for name in names if name[:1].isupper() and not name.isupper()}


def test_a_class_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for module in MODULES:
        classes, aliases = defined(module)
        for name in classes | (aliases & WORDS):
            homes[name].append(module)
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert not {name: modules for name, modules in twice.items() if not name.startswith("_") and name not in OFFICIAL}


def test_a_file_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for module, file in MODULES.items():
        if file.name != "__init__.py":
            homes[file.stem].append(module)
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1 and not name.startswith("_")}
    assert not {name: modules for name, modules in twice.items() if name not in SAME}
