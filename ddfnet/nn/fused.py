"""Decoupled dynamic filters as one operator, for inference, with the scale, shift and ReLU that follow them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.nn.ddf import DDF2d
from ddfnet.nn.layer_op import apply_epilogue

_OPTIONS = (
    *("channels", "heads", "combine", "filters", "norm", "zero_init"),
    *("kernel_size", "stride", "padding", "extra_padding", "dilation"),
)


class FusedDDF2d(DDF2d):
    r"""A `DDF2d` for inference and its epilogue: the scale, the shift and the ReLU that a batch norm and an activation
    after it come down to.

    .. math::
        y = \mathrm{relu}(a \cdot \mathrm{DDF2d}(x) + b)

    `ddfnet.surgery.fuse` makes it. Where `DDF2d` is one operator, the epilogue is part of it; elsewhere it follows.

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
        self.weight = copy.deepcopy(layer.weight)
        self.spatial, self.channel = copy.deepcopy(layer.spatial), copy.deepcopy(layer.channel)
        if (scale is None) != (shift is None):
            raise ValueError("scale and shift go together: give both or neither")
        like = next(self.parameters())
        # Buffers that may be None come last: torch.export (2.14.1) counts them, and then takes one buffer for another.
        self.register_buffer("epilogue_relu", torch.tensor(relu, device=like.device))
        self.relu = relu  # the buffer's value, at hand without waiting for a device
        self.epilogue_scale: Tensor | None
        self.epilogue_shift: Tensor | None
        for name, value in (("scale", scale), ("shift", shift)):
            if value is not None:
                if value.shape != (self.channels,):
                    raise ValueError(f"{name} must be (C,) = ({self.channels},), got {tuple(value.shape)}")
                value = value.detach().to(like).clone(memory_format=torch.contiguous_format)
            self.register_buffer(f"epilogue_{name}", value)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        epilogue = self.epilogue_scale, self.epilogue_shift, self.relu
        if isinstance(x, Tensor) and self.is_one_operator():
            return self.call_operator(x, *epilogue)
        return apply_epilogue(super().forward(x), *epilogue)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if f"{prefix}epilogue_relu" in state_dict:
            self.relu = bool(state_dict[f"{prefix}epilogue_relu"])

    def extra_repr(self) -> str:
        scale = ", epilogue_scale" * (self.epilogue_scale is not None)
        return super().extra_repr() + scale + ", relu" * self.relu
