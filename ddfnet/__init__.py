"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021).

Every part is imported when it is first used, torch too, so that a command that needs no network starts at once. The
operators are registered with torch as soon as both are imported, in whichever order.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddfnet._version import __version__
from ddfnet.kinds import declare_kinds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from ddfnet import nn, ops
    from ddfnet.depth.upsample import upsample_depth
    from ddfnet.ops import ddf, ddf_upsample

_PARTS = ("compat", "export", "family", "models", "nn", "ops", "profiler", "surgery")
_FUNCTIONS = {"ddf": "ddfnet.ops", "ddf_upsample": "ddfnet.ops", "upsample_depth": "ddfnet.depth"}

# Only this file may name modules of all floors: it stands above them. Python runs it before any other of the package,
# so that every file of weights finds its class, and nothing is imported before one is read.
declare_kinds(
    {
        "classification": "ddfnet.models.classifier",
        "detection": "ddfnet.models.faster_rcnn",
        "depth": "ddfnet.depth.network",
    }
)

__all__ = ["__version__", "ddf", "ddf_upsample", "nn", "ops", "upsample_depth", *_PARTS[:4], *_PARTS[6:]]


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: `nn` needs torch, for example, and `models` timm."""
    if name in _PARTS:
        value: Any = import_module(f"ddfnet.{name}")
    elif name in _FUNCTIONS:
        value = getattr(import_module(_FUNCTIONS[name]), name)
    else:
        raise AttributeError(f"module 'ddfnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _OperatorsAfterTorch:
    """Finder after which an import of torch imports the operators, too.

    A program of `torch.export` has an operator by its name alone, so ``import ddfnet`` must be enough to run one.
    """

    def find_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return how torch is imported: as without this finder, and then the operators; None for other modules."""
        if name != "torch":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and (loader := spec.loader) is not None:
            execute = loader.exec_module

            def execute_both(module: "ModuleType") -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                import_module("ddfnet.ops")

            setattr(loader, "exec_module", execute_both)  # noqa: B010  (mypy takes a method for constant)
        return spec


if "torch" in sys.modules:
    import_module("ddfnet.ops")
else:
    sys.meta_path.insert(0, _OperatorsAfterTorch())
