"""Decoupled dynamic filters as one operator, for inference, with the scale, shift and ReLU that follow them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import register_flop_formula

from ddfnet.nn.branches import ChannelBranch, SpatialBranch, check_map
from ddfnet.nn.ddf import DDF2d
from ddfnet.nn.filter_norm import FilterNorm, filter_norm
from ddfnet.ops import backends, ddf
from ddfnet.ops.geometry import Combine, Geometry, conv_output_size, empty_result, is_channels_last
from ddfnet.ops.library import NAMESPACE, define

_OPTIONS = (
    *("channels", "heads", "combine", "filters", "norm", "zero_init"),
    *("kernel_size", "stride", "padding", "extra_padding", "dilation"),
)


class FusedDDF2d(DDF2d):
    r"""A `DDF2d` for inference and its epilogue: the scale, the shift and the ReLU that a batch norm and an activation
    after it come down to.

    .. math::
        y = \mathrm{relu}(a \cdot \mathrm{DDF2d}(x) + b)

    `ddfnet.surgery.fuse` makes it. Where both filters are there with ``norm="filter"`` and the default padding of an
    odd kernel, the layer is one call of the operator ``ddfnet::ddf_layer``. On the CPU in float32 that is one compiled
    kernel; elsewhere, where a gradient is asked for and for a compiler it is the operations that `DDF2d` is made of.
    The branches hold the weights and are not called, so that forward hooks on them do not run; hooks on the layer
    itself do. With other options the layer calls its branches as `DDF2d` does, then applies the epilogue.

    Args:
        layer: the `DDF2d`, of which a copy is taken, in evaluation mode and without gradients.
        scale: one value per channel, (C,), with ``shift``; None is no scale and no shift.
        shift: one value per channel, (C,).
        relu: take the positive part at the end.

    The state dict has the keys of `DDF2d` and ``epilogue_relu``, and with a scale ``epilogue_scale`` and
    ``epilogue_shift``: one fused copy of a model loads that of another.

    Returns:
        (N, C, Ho, Wo), as `DDF2d`.

    Raises:
        ValueError: a scale or shift of another shape, or one without the other; as `DDF2d`.
        TypeError: as `DDF2d`.

    Example:
        >>> import torch
        >>> from ddfnet.nn import DDF2d, FusedDDF2d
        >>> fused = FusedDDF2d(DDF2d(8), torch.full((8,), 2.0), torch.zeros(8), relu=True)
        >>> bool((fused(torch.randn(1, 8, 5, 5)) >= 0).all())
        True

    Source: ours.
    """

    def __init__(
        self, layer: DDF2d, scale: Tensor | None = None, shift: Tensor | None = None, *, relu: bool = False
    ) -> None:
        nn.Module.__init__(self)
        for name in _OPTIONS:
            setattr(self, name, getattr(layer, name))
        self.spatial, self.channel = copy.deepcopy(layer.spatial), copy.deepcopy(layer.channel)
        if (scale is None) != (shift is None):
            raise ValueError("scale and shift go together: give both or neither")
        like = next(self.parameters())
        self.epilogue_scale: Tensor | None
        self.epilogue_shift: Tensor | None
        for name, value in (("scale", scale), ("shift", shift)):
            if value is not None:
                if value.shape != (self.channels,):
                    raise ValueError(f"{name} must be (C,) = ({self.channels},), got {tuple(value.shape)}")
                value = value.detach().to(like).clone(memory_format=torch.contiguous_format)
            self.register_buffer(f"epilogue_{name}", value)
        self.register_buffer("epilogue_relu", torch.tensor(relu, device=like.device))
        self.relu = relu  # the buffer's value, at hand without waiting for a device
        self.is_one_operator = _is_one_operator(self)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_one_operator:
            return _epilogue(super().forward(x), self.epilogue_scale, self.epilogue_shift, self.relu)
        check_map("the input of FusedDDF2d", x, self.channels)
        conv_output_size(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        spatial: Any = self.spatial
        channel: Any = self.channel
        convolutions = spatial.conv, channel.reduce, channel.expand
        weights = [tensor for conv in convolutions for tensor in (conv.weight, conv.bias)]
        norms = spatial.norm, channel.norm
        scales = [value if isinstance(value, Tensor) else None for norm in norms for value in (norm.scale, norm.shift)]
        numbers = [
            number for norm in norms for number in (1.0 if isinstance(norm.scale, Tensor) else norm.scale, norm.eps)
        ]
        geometry = self.kernel_size, self.stride, self.padding, self.dilation, self.combine
        # A compiler fuses the operations itself, and a trace needs no operator of ours.
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        call = _reference if traced else ddf_layer
        return call(x, weights, *scales, self.epilogue_scale, self.epilogue_shift, *geometry, *numbers, self.relu)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if f"{prefix}epilogue_relu" in state_dict:
            self.relu = bool(state_dict[f"{prefix}epilogue_relu"])

    def extra_repr(self) -> str:
        scale = ", epilogue_scale" * (self.epilogue_scale is not None)
        return super().extra_repr() + scale + ", relu" * self.relu


def _is_one_operator(layer: DDF2d) -> bool:
    """Return whether ``ddfnet::ddf_layer`` computes the layer, which is as `DDF2d` builds it.

    A part that was exchanged, or that has a hook or a forward pass of its own, as offloading gives it, must be called.
    """
    if layer.norm != "filter" or layer.filters != "both" or not layer.is_centered:
        return False
    spatial: Any = layer.spatial
    channel: Any = layer.channel
    parts = {
        spatial: SpatialBranch,
        channel: ChannelBranch,
        **dict.fromkeys((spatial.conv, channel.reduce, channel.expand), nn.Conv2d),
        channel.act: nn.ReLU,
        **dict.fromkeys((spatial.norm, channel.norm), FilterNorm),
    }
    for part, kind in parts.items():
        if type(part) is not kind or part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            return False
    filters = layer.heads * math.prod(layer.kernel_size)
    return spatial.conv.weight.shape == (filters, layer.channels, 1, 1) and spatial.conv.stride == layer.stride


# --- the operator -------------------------------------------------------------------------------------------------

ddf_layer = define(
    "ddf_layer",
    "(Tensor input, Tensor[] weights, Tensor? spatial_scale, Tensor? spatial_shift, Tensor? channel_scale, "
    "Tensor? channel_shift, Tensor? epilogue_scale, Tensor? epilogue_shift, int[2] kernel_size, int[2] stride, "
    "int[2] padding, int[2] dilation, str combine, float spatial_gain, float spatial_eps, float channel_gain, "
    "float channel_eps, bool relu) -> Tensor",
)
"""A DDF layer as one operator.

``weights`` are the weight and bias of three 1x1 convolutions: that of the spatial branch and the two of the channel
branch.
"""

OptTensor = Tensor | None


def _reference(
    input: Tensor,
    weights: Sequence[Tensor],
    spatial_scale: OptTensor,
    spatial_shift: OptTensor,
    channel_scale: OptTensor,
    channel_shift: OptTensor,
    epilogue_scale: OptTensor,
    epilogue_shift: OptTensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    combine: str,
    spatial_gain: float,
    spatial_eps: float,
    channel_gain: float,
    channel_eps: float,
    relu: bool,
) -> Tensor:
    """Compute ``ddf_layer`` from the operations that it is made of."""
    taps = kernel_size[0] * kernel_size[1]
    spatial_weight, spatial_bias, *channel_weights = weights
    spatial = F.conv2d(input, spatial_weight, spatial_bias, tuple(stride))
    spatial = filter_norm(
        spatial,
        spatial.shape[1] // taps,
        taps,
        "spatial",
        spatial_gain if spatial_scale is None else spatial_scale,
        spatial_shift,
        spatial_eps,
    )
    hidden = F.conv2d(input.mean((2, 3), keepdim=True), *channel_weights[:2]).relu()
    channel = filter_norm(
        F.conv2d(hidden, *channel_weights[2:]),
        input.shape[1],
        taps,
        "channel",
        channel_gain if channel_scale is None else channel_scale,
        channel_shift,
        channel_eps,
    )
    y = ddf(
        input,
        channel.reshape(*input.shape[:2], *kernel_size),
        spatial,
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        combine=combine,
    )
    return _epilogue(y, epilogue_scale, epilogue_shift, relu)


def _epilogue(y: Tensor, scale: OptTensor, shift: OptTensor, relu: bool) -> Tensor:
    if scale is not None and shift is not None:
        # In the dtype that the filter gave, which under autocast is another than theirs.
        y = (y * scale[:, None, None] + shift[:, None, None]).to(y.dtype)
    return F.relu(y) if relu else y


def _kernel(input: Tensor, weights: Sequence[Tensor], *arguments: Any) -> Tensor:
    tensors = input, *weights, *arguments[:6]
    if not backends.is_compiled(input.device) or any(t is not None and t.dtype is not torch.float32 for t in tensors):
        return _reference(input, weights, *arguments)
    inner = input.contiguous(memory_format=torch.channels_last)
    if not is_channels_last(inner):  # one channel or one pixel, which is contiguous too
        return _reference(input, weights, *arguments)
    output: Tensor = torch.ops.ddfnet._layer.default(inner, weights, *arguments)
    return output if inner is input else output.contiguous()


def _at_autograd_key(input: Tensor, weights: Sequence[Tensor], *arguments: Any) -> Tensor:
    """Compute the layer from its pieces, which have gradients, where one is asked for."""
    tensors = [tensor for tensor in (input, *weights, *arguments[:6]) if tensor is not None]
    if (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)) or any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    ):
        return _reference(input, weights, *arguments)
    with torch._C._AutoDispatchBelowAutograd():
        output: Tensor = ddf_layer(input, weights, *arguments)
    return output


def _fake(input: Tensor, *arguments: Any) -> Tensor:
    return empty_result(input, _geometry(*arguments[7:12]))


def _geometry(*flat: Any) -> Geometry:
    *sizes, combine = flat
    return Geometry(*map(tuple, sizes), combine=Combine(combine))


def _vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
    input, *rest = arguments
    if all(dim is None for dim in tree_leaves(in_dims[1:], is_leaf=lambda dim: dim is None)):
        # The mapped dimension joins the batch.
        joined = ddf_layer(input.movedim(in_dims[0], 0).flatten(0, 1), *rest)
        return joined.unflatten(0, (info.batch_size, -1)), 0

    def at(index: int, value: Any, dim: Any) -> Any:
        if isinstance(value, list):
            return [at(index, *each) for each in zip(value, dim, strict=True)]
        return value if dim is None else value.select(dim, index)

    each = [ddf_layer(*(at(i, *pair) for pair in zip(arguments, in_dims, strict=True))) for i in range(info.batch_size)]
    return torch.stack(each), 0


NAMESPACE.impl("ddf_layer", _kernel, "CompositeExplicitAutograd")
NAMESPACE.impl("ddf_layer", _at_autograd_key, "Autograd")
NAMESPACE.impl("ddf_layer", _reference, "AutocastCPU")  # its pieces are cast as those of a DDF2d are
torch.library.register_fake("ddfnet::ddf_layer", _fake, lib=NAMESPACE)
torch.library.register_vmap("ddfnet::ddf_layer", _vmap, lib=NAMESPACE)


@register_flop_formula(torch.ops.ddfnet.ddf_layer)  # type: ignore[untyped-decorator]
def _flops(input_shape: Any, weight_shapes: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Count the three convolutions, and three operations per tap of each result."""
    n, channels, height, width = out_shape
    (outputs, *_), _, reduce, _, expand, _ = weight_shapes
    taps = expand[0] // channels
    channel_macs = n * (math.prod(reduce) + math.prod(expand))
    return 2 * (n * height * width * outputs * channels + channel_macs) + 3 * taps * math.prod(out_shape)
