"""Handlers with which other counting tools agree with PyTorch's counter on DDF layers.

`torch.utils.flop_counter.FlopCounterMode` knows the operator. fvcore needs a handler for the operator, ptflops and thop
need handlers for the layers, inside which they would not see it. All three need handlers that count nothing for batch
norm, ReLU and pooling, as PyTorch does:

    FlopCountAnalysis(model, x).set_op_handle(**ddfnet.profiler.handlers.FVCORE).total()
    get_model_complexity_info(model, (3, 224, 224), custom_modules_hooks=ddfnet.profiler.handlers.PTFLOPS)
    thop.profile(model, inputs=(x,), custom_ops=ddfnet.profiler.handlers.THOP)

All of them count multiply-accumulates (MACs) of a model in evaluation mode. They count other activations and norms by
their own rules. A tap with both filters is 1.5 MACs: one operation multiplies the two filters, two apply the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ddfnet.nn import DDF2d, DDFUpsample2d, FusedDDF2d

__all__ = ["FVCORE", "PTFLOPS", "THOP"]


def _fvcore_operator(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the MACs of one call in fvcore's traced graph from the types of its values."""
    channel, spatial = (value.type().kind() != "NoneType" for value in inputs[1:3])
    kernel = [size.toIValue() for size in inputs[3].node().inputs()]
    return round(math.prod(outputs[0].type().sizes()) * math.prod(kernel) * _macs_per_tap(channel, spatial))


def _macs_per_tap(channel: bool, spatial: bool) -> float:
    return 1.5 if channel and spatial else 1.0


def layer_macs(layer: DDF2d | DDFUpsample2d, x: Tensor, y: Tensor) -> int:
    """Count the MACs of a layer's call: the convolutions that predict its filters, and the filtering."""
    n, _, height, width = x.shape
    positions = n * math.prod(y.shape[2:])
    if isinstance(layer, DDFUpsample2d):  # the filters of all sub-pixels are predicted at one pixel
        positions = n * height * width
    total = 0.0
    for name, conv in layer.named_modules():
        if isinstance(conv, nn.Conv2d):
            calls = n if name.startswith("channel.") else positions
            total += calls * conv.weight.numel()
    channel, spatial = layer.channel is not None, layer.spatial is not None
    return round(total + y.numel() * math.prod(layer.kernel_size) * _macs_per_tap(channel, spatial))


def _ptflops_layer(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    layer.__flops__ += layer_macs(layer, inputs[0], output)


def _thop_layer(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    layer.total_ops += layer_macs(layer, inputs[0], output)


def _count_nothing(*_: Any) -> None:
    """Count nothing, for ptflops and thop."""


def _fvcore_zero(*_: Any) -> int:
    """Count zero for fvcore; None would leave its own rule in place."""
    return 0


_Layers = dict[type[nn.Module], Callable[..., None]]
_UNCOUNTED: _Layers = dict.fromkeys(
    (nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AvgPool2d), _count_nothing
)

FVCORE: dict[str, Callable[..., int]] = {
    "ddfnet::ddf": _fvcore_operator,
    "aten::batch_norm": _fvcore_zero,
    "aten::adaptive_avg_pool2d": _fvcore_zero,
}
"""Handlers for ``set_op_handle(**FVCORE)`` of ``fvcore.nn.FlopCountAnalysis``."""
PTFLOPS: _Layers = _UNCOUNTED | dict.fromkeys((DDF2d, FusedDDF2d, DDFUpsample2d), _ptflops_layer)
"""Hooks for ``custom_modules_hooks`` of ``ptflops.get_model_complexity_info``."""
THOP: _Layers = _UNCOUNTED | dict.fromkeys((DDF2d, FusedDDF2d, DDFUpsample2d), _thop_layer)
"""Operators for ``custom_ops`` of ``thop.profile``."""
