"""Selection of layers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from ddfnet.compat import DDFPack, DDFUpPack
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm

Where = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A pattern of names, as in a shell; a class; or what is called with a name and a layer."""

DDF_LAYERS = (DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm, DDFPack, DDFUpPack)


def layers(model: nn.Module) -> Iterator[tuple[tuple[str, ...], nn.Module]]:
    """Yield each module of a model once, with all its names, except the model itself and the parts of DDF layers."""
    names: dict[nn.Module, list[str]] = {}
    inside: str | None = None
    for name, module in model.named_modules(remove_duplicate=False):
        if inside is not None and name.startswith(inside):
            continue
        inside = None
        if isinstance(module, DDF_LAYERS):
            inside = f"{name}." if name else ""
        if name:
            names.setdefault(module, []).append(name)
    for module, own in names.items():
        yield tuple(own), module


def matcher(where: Where | Sequence[Where]) -> Callable[[Sequence[str], nn.Module], bool]:
    """Return a function that tells whether a module with these names is selected.

    Raises:
        TypeError: it is none of what `Where` names.
    """
    if isinstance(where, str):
        return lambda names, module: any(fnmatchcase(name, where) for name in names)
    if isinstance(where, type):
        return lambda names, module: isinstance(module, where)
    if callable(where):
        return lambda names, module: any(where(name, module) for name in names)
    if isinstance(where, Sequence) and where:
        each = [matcher(one) for one in where]
        return lambda names, module: any(matches(names, module) for matches in each)
    raise TypeError(
        "where must be a pattern of names such as 'layer3.*', a class of layers, a function of name and layer, or "
        f"several of them, got {where!r}"
    )
