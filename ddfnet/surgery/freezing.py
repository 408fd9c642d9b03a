"""Put static filters where predicted ones hardly vary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.nn import DDF2d, FusedDDF2d
from ddfnet.ops.geometry import Combine, accumulate_dtype
from ddfnet.surgery._utils import alteration, check_model, evaluation_mode
from ddfnet.surgery.report import Edit, InputShape, Report, operate


def freeze(
    model: nn.Module, data: Iterable[Any], *, tolerance: float = 0.01, input_shape: InputShape | None = None
) -> Report:
    r"""Fold DDF layers whose filters hardly vary on your data into depthwise convolutions, in the model itself.

    The mean of the filters that a `ddfnet.nn.DDF2d` predicts becomes a depthwise convolution's weight,

    .. math::
        w_{c,t} = \mathrm{comb}\left(\overline{D^{ch}_{c,t}},\; \overline{D^{sp}_{g(c),t}}\right), \qquad
        e = \frac{\lVert w * x - y \rVert_2}{\lVert y \rVert_2}

    and takes the layer's place where its error e over all of the data is at most ``tolerance``. That is measured, with
    the layer's own inputs, and not estimated; it bounds the layer's error on this data, not on other data, and says
    nothing of how the layers after it carry it on: compare the model's results before you keep them.

    Args:
        model: in any mode; it is measured and folded in evaluation mode, without gradients.
        data: batches that the model is called with, each a tensor or a tuple of arguments; gone through twice, so a
            list or a loader, not an iterator.
        tolerance: the error that is allowed, from 0 on; 0.01 is one per cent of the layer's output.
        input_shape: shape of the model's input, for multiply-adds in the report, see `ddfnet.profiler.estimate`.

    Returns:
        A `Report` with the error of each layer that was folded, and in ``skipped`` that of each that stays; ``undo()``
        puts the layers back. It has no changes where all of them vary more. Layers stay, too, that have hooks or a
        method that was replaced on the instance, or are parametrised, for that would be lost.

    Raises:
        ValueError: no `ddfnet.nn.DDF2d` in the model is called; no data, or none the second time; a tolerance below 0.
        TypeError: a model that is not one.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from ddfnet import surgery
        >>> from ddfnet.nn import DDF2d, FusedDDF2d
        >>> model = nn.Sequential(DDF2d(8, norm="none", zero_init=True), DDF2d(8))  # only the second one adapts
        >>> report = surgery.freeze(model, [torch.randn(2, 8, 16, 16)])
        >>> [type(layer).__name__ for layer in model]
        ['Conv2d', 'DDF2d']

    Source: ours.
    """
    check_model(model)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    names: dict[DDF2d, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, DDF2d) and name:
            names.setdefault(module, []).append(name)
    # Hooks and the like would be lost with their layer.
    altered = {layer: reason for layer in names for part in layer.modules() if (reason := alteration(part))}
    means = {layer: _Mean() for layer in names}
    _run(model, data, {layer: mean.add for layer, mean in means.items()})
    if not any(mean.count for mean in means.values()):
        raise ValueError("no DDF2d in this model was called; freeze needs data, and a model with DDF2d as children")
    folded = {layer: _folded(layer, mean) for layer, mean in means.items() if mean.count}
    errors = {layer: _Error(conv) for layer, conv in folded.items()}
    _run(model, data, {layer: error.add for layer, error in errors.items()})
    if not all(error.count for error in errors.values()):
        raise ValueError("data must give its batches twice: hand over a list or a loader, not an iterator")
    edits, skipped = [], []
    for layer, error in errors.items():
        if layer in altered:
            skipped.append((names[layer][0], altered[layer]))
        elif error.relative <= tolerance:
            edits.append(Edit(tuple(names[layer]), layer, folded[layer], f"within {error.relative:.2g}"))
        else:
            skipped.append((names[layer][0], f"its filters vary, by {error.relative:.2g} of its output"))
    return operate(model, edits, input_shape, skipped)


def _run(model: nn.Module, data: Iterable[Any], watch: dict[DDF2d, Any]) -> None:
    """Call the model with all of the data in evaluation mode, and each watcher with its layer's inputs and outputs."""
    with evaluation_mode(model) as stack:
        for layer, add in watch.items():
            stack.callback(layer.register_forward_hook(add).remove)
        for batch in data:
            model(*(batch if isinstance(batch, tuple) else (batch,)))


class _Mean:
    """Mean of the filters that a layer predicts, over samples and pixels."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, layer: DDF2d, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        if not output.numel():
            return
        self.count += x.shape[0]
        dtype = accumulate_dtype(x.dtype)
        channel, spatial = layer.predict(x)
        if channel is not None:
            self._add("channel", channel.to(dtype).sum(0).flatten(1))
        if spatial is not None:  # each image counts the same, however large it is
            filters = spatial.to(dtype).mean((2, 3)).sum(0)
            self._add("spatial", filters.unflatten(0, (layer.heads, -1)))

    def _add(self, kind: str, filters: Tensor) -> None:
        self._sums[kind] = self._sums[kind] + filters if kind in self._sums else filters

    def weight(self, layer: DDF2d) -> Tensor:
        """Return the two means combined, (C, K)."""
        channel, spatial = (self._sums.get(kind) for kind in ("channel", "spatial"))
        if spatial is None:
            assert channel is not None
            return channel / self.count
        each = spatial.repeat_interleave(layer.channels // layer.heads, 0) / self.count
        if channel is None:
            return each
        return Combine(layer.combine)(channel / self.count, each)


def _folded(layer: DDF2d, mean: _Mean) -> nn.Module:
    """Return the depthwise convolution with the mean filter, and the epilogue of a fused layer folded in."""
    scale, shift, relu = None, None, False
    if isinstance(layer, FusedDDF2d):
        scale, shift, relu = layer.epilogue_scale, layer.epilogue_shift, layer.relu
    like = next(layer.parameters())
    conv = nn.Conv2d(
        layer.channels,
        layer.channels,
        layer.kernel_size,
        layer.stride,
        "same" if any(layer.extra_padding) else layer.padding,
        layer.dilation,
        groups=layer.channels,
        bias=shift is not None,
        device=like.device,
        dtype=like.dtype,
    ).train(layer.training)
    weight = mean.weight(layer)
    with torch.no_grad():
        if scale is not None and shift is not None:
            weight = weight * scale[:, None]
            conv.bias.copy_(shift)  # type: ignore[union-attr]
        conv.weight.copy_(weight.reshape(conv.weight.shape))
    return nn.Sequential(conv, nn.ReLU()) if relu else conv


class _Error:
    """Error of a layer in the place of another, relative to the output of the other."""

    def __init__(self, folded: nn.Module) -> None:
        self._folded, self._off, self._all = folded, 0.0, 0.0
        self.count = 0

    def add(self, layer: DDF2d, inputs: tuple[Tensor], output: Tensor) -> None:
        self.count += 1
        dtype = accumulate_dtype(output.dtype)
        self._off += (self._folded(*inputs).to(dtype) - output.to(dtype)).square().sum().item()
        self._all += output.to(dtype).square().sum().item()

    @property
    def relative(self) -> float:
        return math.sqrt(self._off / self._all) if self._all else math.sqrt(self._off)
