"""Import graph of the package, as a program: ``python tests/house/imports.py`` lists upward imports and circles.

Every import counts: of a module, inside a function, under ``if TYPE_CHECKING``, and by a module's name in a string, as
`importlib.import_module` takes it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = (  # lowest first; a file imports from its own floor or from a lower one
    ("_version", "arguments", "errors", "files", "images", "kinds", "reading", "table"),
    ("ops",),
    ("env_info", "nn"),
    ("pretrained",),
    ("compat", "family", "profiler", "surgery"),
    ("depth", "models"),
    ("data",),
    ("training",),
    ("tasks",),
    ("export",),
    ("ddfnet",),  # __init__.py: what `import ddfnet` offers, most of it when it is first used
    ("bench", "demo"),
    ("cli", "__main__"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Map the name of each module and package to its file."""
    names = {}
    for file in sorted((root / "ddfnet").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(module: str, source: str, known: Mapping[str, object]) -> set[str]:
    """Collect the modules of the package that a module imports.

    Args:
        module: name of the module.
        source: its code.
        known: names of all modules of the package.

    Returns:
        For ``from a import b``, the module ``a.b`` where there is one, else ``a``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]  # as in "ddfnet.tasks.depth:TASK"
            if re.fullmatch(r"ddfnet(\.\w+)+", name):
                found |= {name}
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):  # f"ddfnet.cli.{name}"
            found |= {str(node.values[0].value).rpartition(".")[0]}
    return (found & known.keys()) - {module}


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Map each module of the package to the modules that it imports."""
    known = modules(root)
    return {name: imports(name, file.read_text(encoding="utf-8"), known) for name, file in known.items()}


def floor(module: str) -> str:
    """Return the part of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def without_floor(edges: Mapping[str, set[str]]) -> set[str]:
    """Return the parts of the package that FLOORS does not name."""
    return {floor(module) for module in edges} - FLOOR.keys()


def upward(edges: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield each import from a higher floor."""
    for module, imported in sorted(edges.items()):
        for other in sorted(imported):
            if FLOOR.get(floor(other), 0) > FLOOR.get(floor(module), len(FLOORS)):
                yield f"{module} imports {other}"


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Find the strongly connected components of more than one module, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in sorted(edges[module]):
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(edges):
        if module not in index:
            visit(module)
    return found


def main(root: Path) -> int:
    """Print the upward imports and the circles, and return how many there are."""
    edges = graph(root)
    unknown = without_floor(edges)
    found = [
        *(f"{name} has no floor" for name in sorted(unknown)),
        *upward(edges),
        *(f"circle: {' - '.join(circle)}" for circle in circles(edges)),
    ]
    print(*found, f"{len(found)} findings", sep="\n")  # noqa: T201
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT), 1))
