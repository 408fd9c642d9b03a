"""No file imports from a higher floor than its own, when it is imported itself."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ddfnet"
FLOORS = (  # as CONTRIBUTING.md has them, and above all the package itself
    {"_version", "files", "loading", "table"},
    {"ops"},
    {"nn"},
    {"compat", "counting", "family", "planner"},
    {"export", "surgery"},
    {"models"},
    {"data"},
    {"tasks", "depth"},
    {"benchmarks"},
    {"cli"},
    {"__init__", "__main__"},
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imported(tree: ast.Module) -> set[str]:
    """Names of the package's parts that the statements of a module itself import."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ddfnet":
            names |= {f"ddfnet.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(f"{node.module}")
    parts = {name.split(".")[1] for name in names if name.startswith("ddfnet.")}
    return parts & FLOOR.keys()  # without what is no part, as __version__ is


def test_no_file_imports_from_a_higher_floor() -> None:
    higher = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        used = imported(ast.parse(path.read_text(encoding="utf-8")))
        higher += [f"{path.relative_to(PACKAGE)} imports {part}" for part in used if FLOOR[part] > FLOOR[own]]
    assert not higher
    assert "compat" in imported(ast.parse("from ddfnet import compat"))
