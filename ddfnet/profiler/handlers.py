"""What counting tools must be told of DDF layers, each in its own way, so that they agree with PyTorch's counter.

`torch.utils.flop_counter.FlopCounterMode` knows the operator. fvcore is told of the operator, ptflops and thop of the
layer, in which they would not see it, and all three that batch norms, ReLU and pooling count nothing, as for PyTorch:

    FlopCountAnalysis(model, x).set_op_handle(**ddfnet.profiler.handlers.FVCORE).total()
    get_model_complexity_info(model, (3, 224, 224), custom_modules_hooks=ddfnet.profiler.handlers.PTFLOPS)
    thop.profile(model, inputs=(x,), custom_ops=ddfnet.profiler.handlers.THOP)

All of them count multiply-adds, of a model in evaluation mode. What other activations and norms cost they add by their
own rules. A tap with both filters is 1.5 of them: the product of the two filters is an operation,
applying it is two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ddfnet.nn import DDF2d, DDFUpsample2d

__all__ = ["FVCORE", "PTFLOPS", "THOP"]


def _of_operator(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """fvcore's: multiply-adds of one call in a traced graph, by the types of its values."""
    channel, spatial = (value.type().kind() != "NoneType" for value in inputs[1:3])
    kernel = [size.toIValue() for size in inputs[3].node().inputs()]
    return round(math.prod(outputs[0].type().sizes()) * math.prod(kernel) * _a_tap(channel, spatial))


def _a_tap(channel: bool, spatial: bool) -> float:
    return 1.5 if channel and spatial else 1.0


def layer_macs(layer: DDF2d | DDFUpsample2d, x: Tensor, y: Tensor) -> int:
    """Multiply-adds of a layer's call: the convolutions that predict its filters, and the filtering."""
    n, _, height, width = x.shape
    positions = n * math.prod(y.shape[2:])
    if isinstance(layer, DDFUpsample2d):  # a filter of each sub-pixel is predicted at one pixel
        positions = n * height * width
    total = 0.0
    for name, conv in layer.named_modules():
        if isinstance(conv, nn.Conv2d):
            calls = n if name.startswith("channel.") else positions
            total += calls * conv.weight.numel()
    channel, spatial = layer.channel is not None, layer.spatial is not None
    return round(total + y.numel() * math.prod(layer.kernel_size) * _a_tap(channel, spatial))


def _of_ptflops(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    layer.__flops__ += layer_macs(layer, inputs[0], output)


def _of_thop(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    layer.total_ops += layer_macs(layer, inputs[0], output)


def _nothing(*_: Any) -> None:
    """ptflops's and thop's, of layers that a counter of multiply-adds leaves out."""


def _zero(*_: Any) -> int:
    """fvcore's, whose own rule for an operator a None would leave in place."""
    return 0


_Layers = dict[type[nn.Module], Callable[..., None]]
_UNCOUNTED: _Layers = dict.fromkeys(
    (nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AvgPool2d), _nothing
)

FVCORE: dict[str, Callable[..., int]] = {
    "ddfnet::ddf": _of_operator,
    "aten::batch_norm": _zero,
    "aten::adaptive_avg_pool2d": _zero,
}
"""For ``set_op_handle(**FVCORE)`` of ``fvcore.nn.FlopCountAnalysis``."""
PTFLOPS: _Layers = _UNCOUNTED | {DDF2d: _of_ptflops, DDFUpsample2d: _of_ptflops}
"""For ``custom_modules_hooks`` of ``ptflops.get_model_complexity_info``."""
THOP: _Layers = _UNCOUNTED | {DDF2d: _of_thop, DDFUpsample2d: _of_thop}
"""For ``custom_ops`` of ``thop.profile``."""
