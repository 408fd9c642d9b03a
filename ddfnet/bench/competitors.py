"""Competitors of the operator benchmark, each a function of `Tensors`.

``ddf``, ``unfold`` and ``compiled`` compute the decoupled dynamic filter; ``depthwise`` and ``conv`` are the static
convolutions that it replaces, with the same weights for all pixels and samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

import ddfnet
from ddfnet.bench.registry import SEED, Case
from ddfnet.bench.timing import num_copies
from ddfnet.ops.geometry import Combine


@dataclass(frozen=True)
class Tensors:
    """Input, filters and weights of a case."""

    input: Tensor
    channel_filter: Tensor
    spatial_filter: Tensor
    depthwise_weight: Tensor
    conv_weight: Tensor

    @staticmethod
    def random(case: Case, device: torch.device) -> Tensors:
        generator = torch.Generator().manual_seed(SEED)
        (n, c, h, w), k = case.shape, case.kernel_size
        shapes = ((n, c, h, w), (n, c, k, k), (n, case.heads * k * k, *case.output_size), (c, 1, k, k), (c, c, k, k))
        dtype = getattr(torch, case.dtype)
        return Tensors(*(torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes))

    def filters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input, self.channel_filter, self.spatial_filter

    def to(self, memory_format: torch.memory_format, *, requires_grad: bool) -> Tensors:
        """Return copies in this memory format, except for the channel filter, which a fully connected branch makes."""
        formats = dict.fromkeys(vars(self), memory_format) | {"channel_filter": torch.contiguous_format}
        return Tensors(
            **{
                name: tensor.clone(memory_format=formats[name]).requires_grad_(requires_grad)
                for name, tensor in vars(self).items()
            }
        )

    def copied(self, names: Collection[str], dtype: torch.dtype | None = None) -> Tensors:
        """Return these tensors with copies of the named ones, in their memory formats, in this dtype or their own."""
        named = {name: tensor for name, tensor in vars(self).items() if name in names}
        return replace(
            self,
            **{
                name: tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_(tensor.requires_grad)
                for name, tensor in named.items()
            },
        )

    def copies(self, names: Collection[str]) -> list[Tensors]:
        """Return these and others with copies of the named tensors, which a call reads: `timing.num_copies` in all."""
        read = sum(tensor.nbytes for name, tensor in vars(self).items() if name in names)
        return [self, *(self.copied(names) for _ in range(num_copies(read, self.input.device) - 1))]


@dataclass(frozen=True)
class Competitor:
    """A way to filter. A backward pass computes the gradients of its ``leaves``, the tensors that it reads."""

    forward: Callable[[Tensors], Tensor]
    leaves: tuple[str, ...]
    is_ddf: bool
    takes_float32: bool = False  # its tensors are float32 in every case


OURS = "ddf"
NAMES = (OURS, "depthwise", "depthwise-fp32", "conv", "unfold", "compiled")
_FILTERS = ("input", "channel_filter", "spatial_filter")


def baseline(case: Case) -> str:
    """Return the competitor that the operator is judged by: for half types, depthwise convolution in float32."""
    return "depthwise-fp32" if _is_half(case) else "depthwise"


def competitors(case: Case, only: Collection[str] | None = None) -> dict[str, Competitor]:
    """Return the competitors by name, the operator first.

    Args:
        case: the case.
        only: competitors besides the operator and its baseline, of `NAMES`; None for all that the case has.

    Example:
        >>> from ddfnet.bench.registry import CASES
        >>> list(competitors(CASES["tiny"], only=["unfold"]))
        ['ddf', 'depthwise', 'unfold']
    """
    stride, dilation, padding = case.stride, case.dilation, case.dilation * (case.kernel_size - 1) // 2

    def operator(t: Tensors) -> Tensor:
        return ddfnet.ddf(*t.filters(), stride=stride, dilation=dilation, combine=case.combine)

    def depthwise(t: Tensors) -> Tensor:
        return F.conv2d(t.input, t.depthwise_weight, None, stride, padding, dilation, groups=case.shape[1])

    def conv(t: Tensors) -> Tensor:
        return F.conv2d(t.input, t.conv_weight, None, stride, padding, dilation)

    def unfold(t: Tensors) -> Tensor:
        return _unfold(*t.filters(), case)

    weights = ("input", "depthwise_weight")
    known = {
        OURS: Competitor(operator, _FILTERS, True),
        "depthwise": Competitor(depthwise, weights, False),
        "depthwise-fp32": Competitor(depthwise, weights, False, takes_float32=True),
        "conv": Competitor(conv, ("input", "conv_weight"), False),
        "unfold": Competitor(unfold, _FILTERS, True),
        "compiled": Competitor(_compiled(case), _FILTERS, True),
    }
    if not _is_half(case):
        del known["depthwise-fp32"]
    wanted = known if only is None else {OURS, baseline(case), *only}
    return {name: competitor for name, competitor in known.items() if name in wanted}


def _is_half(case: Case) -> bool:
    dtype: torch.dtype = getattr(torch, case.dtype)
    return dtype.itemsize == 2


def _compiled(case: Case) -> Callable[[Tensors], Tensor]:
    shifts = torch.compile(_shifts, dynamic=False)  # compiles when it is first called
    return lambda t: shifts(*t.filters(), case)


def _wide(filters: Tensor) -> Tensor:
    """Return half types as float32, in which the operator combines and sums them."""
    return filters.float() if filters.dtype.itemsize == 2 else filters


def _combine(channel_filter: Tensor, spatial_filter: Tensor, case: Case) -> Tensor:
    return Combine(case.combine)(channel_filter, spatial_filter)


def _unfold(input: Tensor, channel_filter: Tensor, spatial_filter: Tensor, case: Case) -> Tensor:
    """Compute the formula in three lines, with every window stored: kernel_size**2 times the size of the input."""
    (n, c, *_), k, g = input.shape, case.kernel_size, case.heads
    windows = F.unfold(input, k, case.dilation, case.dilation * (k - 1) // 2, case.stride).view(n, g, c // g, k * k, -1)
    channel, spatial = channel_filter.reshape(n, g, -1, k * k, 1), spatial_filter.reshape(n, g, 1, k * k, -1)
    total = (windows * _combine(_wide(channel), _wide(spatial), case)).sum(3)
    return total.reshape(n, c, *spatial_filter.shape[2:]).to(input.dtype)


def _shifts(input: Tensor, channel_filter: Tensor, spatial_filter: Tensor, case: Case) -> Tensor:
    """Compute the formula tap by tap: shift, multiply, add. torch.compile can fuse this into one loop."""
    c, k, d, s, g = input.shape[1], case.kernel_size, case.dilation, case.stride, case.heads
    rows, columns = spatial_filter.shape[2:]
    padding = d * (k - 1) // 2
    padded = F.pad(input, (padding,) * 4).unflatten(1, (g, c // g))
    channel = _wide(channel_filter.unflatten(1, (g, c // g)))
    spatial = _wide(spatial_filter.unflatten(1, (g, 1, k * k)))
    total = torch.zeros((), dtype=channel.dtype, device=input.device)
    for tap in range(k * k):
        y, x = d * (tap // k), d * (tap % k)
        shifted = padded[..., y : y + (rows - 1) * s + 1 : s, x : x + (columns - 1) * s + 1 : s]
        total = total + _combine(channel[..., tap // k, tap % k, None, None], spatial[:, :, :, tap], case) * shifted
    return total.to(input.dtype).flatten(1, 2)
