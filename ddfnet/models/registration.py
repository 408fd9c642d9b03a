"""Doing something once another package is imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(package: str, then: Callable[[], object]) -> None:
    """Call ``then`` at once where this package is imported already, and else as soon as it is."""
    if sys.modules.get(package) is not None:
        then()
    else:
        sys.meta_path.insert(0, _Follower(package, then))


class _Follower(MetaPathFinder):
    """Finds the package as the others do, and has its loader call ``then`` when it is done."""

    def __init__(self, package: str, then: Callable[[], object]) -> None:
        self.package, self.then = package, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_then(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:  # the first time
                    sys.meta_path.remove(self)
                    self.then()

            spec.loader.exec_module = execute_then  # type: ignore[method-assign]
        return spec
