"""Reports of the layers that were replaced in a model, which can be undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from ddfnet.profiler import Estimate, estimate
from ddfnet.table import format_si, table

InputShape = Sequence[int] | Sequence[Sequence[int]]
"""The shape of a model's input, or of each of its inputs."""
BeforeAfter = tuple[float, float]
"""A number before and after."""


@dataclass(frozen=True)
class Change:
    """One layer that was replaced.

    Attributes:
        name: name of the layer in the model, as in ``named_modules``.
        before: the replaced layer, in a few words.
        after: the new layer, in a few words.
        begins: agreement of the new layer with the old one before any training, ``"identical"`` or
            ``"not identical"``, or the largest relative difference; empty if it is not known for a single layer.
        parameters: number of parameters before and after.
        macs: multiply-adds of a forward pass before and after; None if no input shape was given.
    """

    name: str
    before: str
    after: str
    begins: str
    parameters: tuple[int, int]
    macs: BeforeAfter | None


@dataclass(frozen=True)
class Edit:
    """A layer and its replacement, under every name that the layer has.

    Attributes:
        names: all names of the layer.
        old: the layer.
        new: its replacement.
        begins: see `Change`.
    """

    names: tuple[str, ...]
    old: nn.Module
    new: nn.Module
    begins: str


class Report:
    """Report of the changes of a model; ``str`` is a table of them.

    Attributes:
        changes: one `Change` per replaced layer, in the model's order.
        parameters: number of the model's parameters, before and after.
        macs: multiply-adds of the model's forward pass, before and after; None if no input shape was given.
        skipped: names of layers that stay as they were, with the reason.
        begins: largest relative difference of the model's results, if it was measured.
    """

    def __init__(
        self,
        model: nn.Module,
        edits: Sequence[Edit],
        changes: tuple[Change, ...],
        parameters: BeforeAfter,
        macs: BeforeAfter | None,
        skipped: Sequence[tuple[str, str]] = (),
        begins: str = "",
    ) -> None:
        self._model, self._edits, self._undone = model, edits, False
        self.changes, self.parameters, self.macs, self.skipped = changes, parameters, macs, tuple(skipped)
        self.begins = begins

    def undo(self) -> None:
        """Put the replaced layers back, with the weights that they had.

        Raises:
            ValueError: it was undone before, or the model was changed since then. The model then stays as it is.
        """
        if self._undone:
            raise ValueError("this surgery was undone before")
        for edit in self._edits:
            for name in edit.names:
                if _at(self._model, name) is not edit.new:
                    raise ValueError(f"{name} is not what this surgery put there; undo what came after it first")
        put_old(self._model, self._edits)
        self._undone = True

    def __str__(self) -> str:
        headers = ["layer", "before", "after", "begins", "parameters"]
        rows = [[c.name, c.before, c.after, c.begins, _from_to(c.parameters)] for c in self.changes]
        rows.append(["(model)", "", "", self.begins, _from_to(self.parameters)])
        if self.macs is not None:
            headers.append("MACs")
            for row, macs in zip(rows, [*(change.macs for change in self.changes), self.macs], strict=True):
                row.append("-" if macs is None else _from_to(macs))
        return "\n".join([table(headers, rows, left=4), *(f"{name} stays: {reason}" for name, reason in self.skipped)])


def operate(
    model: nn.Module, edits: Sequence[Edit], input_shape: InputShape | None, skipped: Sequence[tuple[str, str]] = ()
) -> Report:
    """Put the new layers into the model: all of them or, if the model cannot be estimated with them, none.

    Args:
        model: the model of these layers.
        edits: the replacements.
        input_shape: shape of the model's input, for multiply-adds before and after, see
            `ddfnet.profiler.estimate`; None counts none.
        skipped: see `Report`.
    """
    before = None if input_shape is None else estimate(model, input_shape)
    parameters = [parameter_count(model)]
    put_new(model, edits)
    try:
        after = None if input_shape is None else estimate(model, input_shape)
    except Exception:
        put_old(model, edits)
        raise
    parameters.append(parameter_count(model))
    costs = None if before is None or after is None else (before, after)
    macs = None if costs is None else (costs[0].predicted.macs, costs[1].predicted.macs)
    changes = tuple(change(edit.names, edit.old, edit.new, edit.begins, costs) for edit in edits)
    return Report(model, edits, changes, (parameters[0], parameters[1]), macs, skipped)


def change(
    names: tuple[str, ...], old: nn.Module, new: nn.Module, begins: str, costs: tuple[Estimate, Estimate] | None
) -> Change:
    """Return the change of a layer, with its multiply-adds in the costs of the model before and after."""
    return Change(
        name=names[0],
        before=describe(old),
        after=describe(new),
        begins=begins,
        parameters=(parameter_count(old), parameter_count(new)),
        macs=None if costs is None else (_macs(costs[0], names), _macs(costs[1], names)),
    )


def describe(layer: nn.Module) -> str:
    """Return a layer in a few words: its class, kernel size, channels and scale factor."""
    if type(layer) is nn.Sequential:  # a padding and the layer, or the layer and a ReLU
        layer = next((part for part in layer if parameter_count(part)), layer)
    words = [type(layer).__name__]
    inner = getattr(layer, "ddf", layer)  # the DDF2d of a DDFConv2d
    if isinstance(kernel := getattr(inner, "kernel_size", None), tuple):
        words.append("x".join(map(str, kernel)))
    channels = getattr(inner, "channels", None) or getattr(inner, "in_channels", None)
    if channels:
        out = getattr(getattr(layer, "pointwise", None) or inner, "out_channels", channels)
        words.append(f"{channels}" if out == channels else f"{channels}->{out}")
    if getattr(layer, "groups", 1) > 1:
        words.append("depthwise")
    if scale := getattr(layer, "scale_factor", None):
        words.append(f"by {'x'.join(map(str, scale)) if isinstance(scale, tuple) else scale}")
    if upsamplers := getattr(layer, "ddf_upsample", None):  # added by `replace_upsample`
        words.append("with " + ", ".join(describe(upsampler) for upsampler in upsamplers))
    return " ".join(words)


def put_new(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Put the replacements into the model."""
    for edit in edits:
        for name in edit.names:
            model.set_submodule(name, edit.new)


def put_old(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Put the replaced layers back into the model."""
    for edit in edits:
        for name in edit.names:
            model.set_submodule(name, edit.old)


def _at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def parameter_count(module: nn.Module) -> int:
    """Return the number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _macs(cost: Estimate, names: Sequence[str]) -> float:
    """Return the multiply-adds of all calls of a layer and of the layers inside of it."""
    inside = tuple(f"{name}." for name in names)
    called = (
        layer for layer in cost.layers if (own := layer.name.partition("#")[0]) in names or own.startswith(inside)
    )
    return sum(layer.macs for layer in called)


def _from_to(numbers: BeforeAfter) -> str:
    return " -> ".join(map(format_si, numbers))
