"""Reports of the differences between a model and a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ddfnet.profiler import estimate
from ddfnet.surgery._utils import check_model, evaluation_mode
from ddfnet.surgery.report import InputShape, Report, change, parameter_count


def compare(model: nn.Module, copy: nn.Module, input_shape: InputShape | None = None) -> Report:
    r"""Report the differences of a copy, such as that of `fuse`, from its model.

    .. math::
        e = \frac{\max_i |copy(x)_i - model(x)_i|}{\max_i |model(x)_i|}

    Args:
        model: the model.
        copy: a copy of it, with the same names of layers.
        input_shape: shape of the model's input, or of each input. With it the report has the multiply-adds before and
            after, see `ddfnet.profiler.estimate`, and e, on random numbers in evaluation mode. None runs neither.

    Returns:
        A `Report` with a `Change` for each layer that is of another class or has other parameters or buffers. It has
        nothing to undo, for the model is as it was.

    Raises:
        ValueError: the two have no names in common; an input shape that the models cannot take.
        TypeError: a model that is not one.

    Example:
        >>> from torch import nn
        >>> from ddfnet import surgery
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> report = surgery.compare(model, surgery.fuse(model), (1, 3, 16, 16))
        >>> [(change.name, change.after) for change in report.changes]
        [('0', 'Conv2d 3x3 3->8'), ('1', 'Identity')]
        >>> report.parameters
        (240, 224)

    Source: ours.
    """
    for name, module in (("model", model), ("copy", copy)):
        check_model(module, name)
    pairs = list(_pairs("", model, copy))
    if list(model.children()) and not any(name for name, *_ in pairs):
        raise ValueError(
            f"copy must be a copy of the model, with the same names; this {type(copy).__name__} shares none with the "
            f"{type(model).__name__}"
        )
    costs = None if input_shape is None else (estimate(model, input_shape), estimate(copy, input_shape))
    changes = tuple(
        change((name,), before, after, "", costs) for name, before, after in pairs if _differ(before, after)
    )
    return Report(
        model,
        (),
        changes,
        (parameter_count(model), parameter_count(copy)),
        None if costs is None else (costs[0].predicted.macs, costs[1].predicted.macs),
        begins="" if input_shape is None else f"within {_off(model, copy, input_shape):.2g}",
    )


def _pairs(name: str, before: nn.Module, after: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield the layers of both by name, but for those inside a layer that has another class in the copy."""
    yield name, before, after
    if type(before) is not type(after):
        return
    others = dict(after.named_children())
    for child, module in before.named_children():
        if child in others:
            yield from _pairs(f"{name}.{child}".lstrip("."), module, others[child])


def _differ(before: nn.Module, after: nn.Module) -> bool:
    """Return whether two layers differ in class or in their own tensors."""
    own, others = (
        dict([*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]) for layer in (before, after)
    )
    return (
        type(before) is not type(after)
        or own.keys() != others.keys()
        or not all(torch.equal(tensor, others[name]) for name, tensor in own.items())
    )


def _off(model: nn.Module, copy: nn.Module, input_shape: InputShape) -> float:
    """Return the largest difference of their results, as a share of the largest value."""
    shapes: Any = input_shape if isinstance(input_shape[0], (tuple, list)) else [input_shape]
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, generator=generator).to(like) for shape in shapes]
    results = []
    for each in (model, copy):
        with evaluation_mode(each):
            results.append([leaf for leaf in tree_leaves(each(*inputs)) if isinstance(leaf, Tensor)])
    off, size = 0.0, 0.0
    for value, other in zip(*results, strict=True):
        off = max(off, (other.double() - value.double()).abs().max().item())
        size = max(size, value.double().abs().max().item())
    return off / size if size else off
