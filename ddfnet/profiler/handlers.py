"""Handlers with which other counting tools agree with PyTorch's counter on DDF layers.

`torch.utils.flop_counter.FlopCounterMode` knows the operator. fvcore needs a handler for the operator, ptflops and thop
need handlers for the layers, inside which they would not see it. ptflops and thop have other rules for convolutions:
one counts their biases, one counts a transposed convolution as if its input were as large as its output. All three need
handlers that count nothing for batch norm, ReLU, pooling and interpolation, as PyTorch does:

    FlopCountAnalysis(model, x).set_op_handle(**ddfnet.profiler.handlers.FVCORE).total()
    get_model_complexity_info(
        model,
        (3, 224, 224),
        custom_modules_hooks=ddfnet.profiler.handlers.PTFLOPS,
        backend_specific_config={"count_functional": False},
    )
    thop.profile(model, inputs=(x,), custom_ops=ddfnet.profiler.handlers.THOP)

All of them count multiply-accumulates (MACs) of a model in evaluation mode. They count other activations and norms by
their own rules. With ``count_functional``, its default, ptflops also adds an operation for each value of ``F.relu``,
``F.interpolate`` and others, which no handler can change. A tap with both filters is 1.5 MACs: one operation multiplies
the two filters, two apply the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.compat import DDFPack, DDFUpPack
from ddfnet.family import CARAFE, JBU, DySample, Involution
from ddfnet.nn import DDF2d, DDFUpsample2d, FusedDDF2d

__all__ = ["FVCORE", "PTFLOPS", "THOP"]


def _fvcore_operator(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the MACs of one call in fvcore's traced graph from the types of its values."""
    channel, spatial = (value.type().kind() != "NoneType" for value in inputs[1:3])
    kernel = [size.toIValue() for size in inputs[3].node().inputs()]
    return round(math.prod(outputs[0].type().sizes()) * math.prod(kernel) * _macs_per_tap(channel, spatial))


def _macs_per_tap(channel: bool, spatial: bool) -> float:
    return 1.5 if channel and spatial else 1.0


# --- MACs of a layer's call ---------------------------------------------------------------------------------------


def _convolution(layer: Any, inputs: Sequence[Tensor], output: Tensor) -> int:
    """Count the weight once for each pixel of the output, or of the input where the convolution is transposed."""
    if layer.transposed:
        return inputs[0].numel() // layer.in_channels * layer.weight.numel()
    return output.numel() // layer.out_channels * layer.weight.numel()


def _linear(layer: nn.Linear, inputs: Sequence[Tensor], output: Tensor) -> int:
    return output.numel() * layer.in_features


def _ddf_layer(layer: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> int:
    """Count what PyTorch counts, in a second pass through the layer."""
    if isinstance(layer, DDFUpsample2d) and layer.guide_channels and len(inputs) == 1:
        # A guide that was given by name; its size does not matter, for it is resized.
        inputs = (*inputs, inputs[0].new_zeros(len(output), layer.guide_channels, *output.shape[2:]))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.forward(*inputs)
    return counter.get_total_flops() // 2


def _nothing(*_: Any) -> int:
    return 0


_LAYERS: dict[type[nn.Module], Callable[..., int]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _convolution),
    nn.Linear: _linear,
    **dict.fromkeys((DDF2d, FusedDDF2d, DDFUpsample2d, DDFPack, DDFUpPack), _ddf_layer),
    **dict.fromkeys((CARAFE, DySample, Involution, JBU), _ddf_layer),
    **dict.fromkeys((nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AvgPool2d), _nothing),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _nothing),
}


# --- the tools ----------------------------------------------------------------------------------------------------


def _ptflops_hook(macs: Callable[..., int]) -> Callable[..., None]:
    def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer.__flops__ += macs(layer, inputs, output)

    return hook


def _thop_hook(macs: Callable[..., int]) -> Callable[..., None]:
    def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer.total_ops += macs(layer, inputs, output)
        for part in layer.modules():  # thop adds up the parts of a layer that is no part of another
            if part is not layer and "total_ops" in part._buffers:
                part.total_ops.zero_()

    return hook


FVCORE: dict[str, Callable[..., int]] = {
    "ddfnet::ddf": _fvcore_operator,
    # Zero; None would leave its own rule in place.
    **dict.fromkeys(("aten::batch_norm", "aten::adaptive_avg_pool2d"), _nothing),
    **dict.fromkeys(("aten::upsample_nearest2d", "aten::upsample_bilinear2d", "aten::grid_sampler"), _nothing),
}
"""Handlers for ``set_op_handle(**FVCORE)`` of ``fvcore.nn.FlopCountAnalysis``."""
PTFLOPS: dict[type[nn.Module], Callable[..., None]] = {kind: _ptflops_hook(macs) for kind, macs in _LAYERS.items()}
"""Hooks for ``custom_modules_hooks`` of ``ptflops.get_model_complexity_info``."""
THOP: dict[type[nn.Module], Callable[..., None]] = {kind: _thop_hook(macs) for kind, macs in _LAYERS.items()}
"""Operators for ``custom_ops`` of ``thop.profile``."""
