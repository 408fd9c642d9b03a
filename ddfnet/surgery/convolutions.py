"""Put DDF layers in the place of a model's convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ddfnet.nn import DDFConv2d
from ddfnet.ops.geometry import Pair, pair
from ddfnet.surgery._utils import alteration, check_model
from ddfnet.surgery.report import Edit, InputShape, Report, operate
from ddfnet.surgery.selection import DDF_LAYERS, Where, layers, matcher

# Subclasses whose forward pass pads as TensorFlow does, by the size of the map, and then convolves: timm's, and those
# of efficientnet_pytorch and its relatives, one of which knows the size from the start.
_SAME = ("Conv2dSame", "Conv2dDynamicSamePadding")
_STATIC_SAME = "Conv2dStaticSamePadding"


def replace_conv(
    model: nn.Module,
    where: Where | Sequence[Where],
    *,
    kernel_size: Pair | None = None,
    input_shape: InputShape | None = None,
    heads: int = 1,
    reduction: float = 0.2,
    combine: str = "mul",
    norm: str = "filter",
    static: bool = True,
    pointwise: bool = False,
) -> Report:
    r"""Put DDF layers in the place of convolutions of a model, in the model itself.

    A *depthwise* convolution is replaced identically, by a layer that keeps its weight w (``static=True`` of
    `ddfnet.nn.DDF2d`) and predicts changes of it, which begin as zeros:

    .. math::
        \mathrm{ddf}(x, w + 0, 1 + 0) = w * x

    so the network computes what it computed, and learns from there to adapt.

    A *full* convolution is replaced as in the paper, by a `ddfnet.nn.DDFConv2d` with random weights, which must be
    trained; by default it has a static weight too. Convolutions of one tap (1x1) stay, and so do those that DDF layers
    are made of.

    Args:
        model: in any mode, on any device; nothing of it changes where an error is raised.
        where: the convolutions: a pattern of names (``"layer3.*.conv2"``, ``"*"`` for all), a class, a function of
            name and layer, or several of them.
        kernel_size: only those with this kernel, an int or (h, w).
        input_shape: shape of the model's input, for multiply-adds in the report, see `ddfnet.profiler.estimate`.
        heads, reduction, combine, norm: options of the new layers, see `ddfnet.nn.DDF2d`; in the place of depthwise
            convolutions ``norm`` is ``"filter"`` or ``"none"``.
        static: have a static weight in the place of full convolutions too; False is the paper's layer.
        pointwise: see `ddfnet.nn.DDFConv2d`, for the same.

    Returns:
        A `Report`: layer by layer what was there, what is there now, whether it begins as the same, parameters and
        multiply-adds; ``undo()`` puts the convolutions back. The parameters of the new layers are to be trained: they
        require gradients, those in the place of frozen convolutions too.

    Raises:
        ValueError: another ``norm`` with a static weight; ``where`` matches no convolution of more than one tap, or one
            that cannot be replaced: with groups but not depthwise, transposed, of one or three dimensions, with another
            padding than zeros, a subclass that may compute something else, parametrised, pruned or with other hooks,
            with a method that was replaced on the instance; or ``input_shape`` does not fit the model.
        TypeError: a model that is not one, or a ``where`` that is none of those.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from ddfnet import surgery
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
        >>> x = torch.randn(2, 3, 16, 16)
        >>> before = model(x)
        >>> report = surgery.replace_conv(model, "*")
        >>> [(change.name, change.after, change.begins) for change in report.changes]
        [('1', 'DDFConv2d 3x3 8', 'identical')]
        >>> torch.allclose(model(x), before, atol=1e-5)
        True
        >>> report.undo()

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 4, for full convolutions; the identical
    start is ours.
    """
    check_model(model)
    size = None if kernel_size is None else pair("kernel_size", kernel_size, 1)
    options: dict[str, Any] = {"heads": heads, "reduction": reduction, "combine": combine, "norm": norm}
    edits = []
    for names, conv in _chosen(model, where, size):
        _check(names[0], conv)
        depthwise = conv.groups > 1 or conv.in_channels == conv.out_channels == 1
        make = _identical if depthwise else _random
        own = options if depthwise else options | {"static": static, "pointwise": pointwise}
        layer = make(conv, own)
        if type(conv) is not nn.Conv2d:
            layer = nn.Sequential(_padding(conv), layer)
        edits.append(Edit(names, conv, layer.train(conv.training), "identical" if depthwise else "not identical"))
    return operate(model, edits, input_shape)


def _chosen(
    model: nn.Module, where: Where | Sequence[Where], kernel_size: tuple[int, int] | None
) -> list[tuple[tuple[str, ...], Any]]:
    """Return the names and the layer of each convolution of more than one tap that matches."""
    matches = matcher(where)
    meant = [(names, layer) for names, layer in layers(model) if matches(names, layer)]
    convolutions = [
        (names, layer)
        for names, layer in meant
        if isinstance(layer, _ConvNd)
        and math.prod(layer.kernel_size) > 1
        and kernel_size in (None, tuple(layer.kernel_size))
    ]
    if not convolutions:
        kernel = "" if kernel_size is None else f" of {kernel_size[0]}x{kernel_size[1]}"
        there = f"; {len(meant)} other layers match" if meant else "; model.named_modules() has the names"
        if already := [names[0] for names, layer in meant if isinstance(layer, DDF_LAYERS)]:
            there = f"; {already[0]} is a DDF layer already"
        raise ValueError(f"where matches no convolution{kernel} of more than one tap, got {where!r}{there}")
    return convolutions


def _check(name: str, conv: Any) -> None:
    """Refuse a convolution that no DDF layer can replace."""
    kind = type(conv).__name__
    reason = None
    if not isinstance(conv, nn.Conv2d):
        reason = f"it is a {kind}, and only nn.Conv2d is"
    elif altered := alteration(conv):
        reason = altered
    elif type(conv) is not nn.Conv2d and kind not in (*_SAME, _STATIC_SAME):
        reason = f"{kind} may compute something else than nn.Conv2d"
    elif type(conv) is not nn.Conv2d and not _only_pads(conv):
        reason = f"this {kind} computes something else than nn.Conv2d behind the padding of TensorFlow"
    elif conv.groups > 1 and not conv.groups == conv.in_channels == conv.out_channels:
        reason = f"groups={conv.groups} is not depthwise for {conv.in_channels} -> {conv.out_channels} channels"
    elif conv.padding_mode != "zeros":
        reason = f"it has padding_mode={conv.padding_mode!r}, and DDF layers pad with zeros"
    if reason:
        raise ValueError(f"{name} cannot be replaced: {reason}; leave it out of where")


@torch.no_grad()
def _only_pads(conv: Any) -> bool:
    """Return whether a convolution with padding of its own does what its class is known for, by its result."""
    weight = conv.weight
    if weight.is_meta:
        return True
    sizes = [2 * d * (k - 1) + s + 1 for k, s, d in zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)]
    x = torch.randn(1, conv.in_channels, *sizes, generator=torch.Generator().manual_seed(0)).to(weight)
    options = conv.stride, conv.padding, conv.dilation, conv.groups
    result, expected = conv(x), F.conv2d(_padding(conv)(x), weight, conv.bias, *options)
    within = torch.finfo(weight.dtype).eps ** 0.5 * expected.abs().max().item()
    return result.shape == expected.shape and torch.allclose(result, expected, rtol=0, atol=within)


def _geometry(conv: Any) -> dict[str, Any]:
    weight = conv.weight
    return {
        **{name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation")},
        "device": weight.device,
        "dtype": weight.dtype,
    }


def _identical(conv: Any, options: dict[str, Any]) -> nn.Module:
    """Return a layer that at first computes the same as a depthwise convolution."""
    layer = DDFConv2d(
        conv.in_channels,
        conv.out_channels,
        bias=conv.bias is not None,
        static=True,
        **_geometry(conv),
        **options,
    )
    assert layer.ddf.weight is not None
    with torch.no_grad():
        layer.ddf.weight.copy_(conv.weight)
        if layer.bias is not None:
            layer.bias.copy_(conv.bias)
    return layer if layer.bias is not None else layer.ddf


def _random(conv: Any, options: dict[str, Any]) -> nn.Module:
    """Return the paper's layer for a full convolution."""
    layer = DDFConv2d(conv.in_channels, conv.out_channels, bias=conv.bias is not None, **_geometry(conv), **options)
    return layer if layer.bias is not None or layer.pointwise is not None else layer.ddf


class SamePadding(nn.Module):
    """Zeros around a map, so that a convolution's output is its size over the stride, rounded up, as in TensorFlow.

    Args:
        kernel_size, stride, dilation: sizes of the convolution, (h, w).

    Returns:
        From ``forward(x)`` with x (N, C, H, W): the padded map, with one more row or column of zeros at the end where
        their number is odd.
    """

    def __init__(self, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        zeros: list[int] = []
        for size, k, s, d in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True):
            missing = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            zeros = [missing // 2, missing - missing // 2, *zeros]
        return F.pad(x, zeros)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}, dilation={self.dilation}"


def _padding(conv: Any) -> nn.Module:
    """Return the padding that a subclass of ``nn.Conv2d`` does before it convolves."""
    if type(conv).__name__ == _STATIC_SAME:
        padding: nn.Module = conv.static_padding
        return padding
    return SamePadding(conv.kernel_size, conv.stride, conv.dilation)
