"""Filter normalisation, which keeps predicted filters, their products and their gradients in range."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ddfnet.ops import backends
from ddfnet.ops.autograd import formula_gradients, is_plain_eager
from ddfnet.ops.checks import check_dense
from ddfnet.ops.geometry import DTYPES, Pair, accumulate_dtype, pair
from ddfnet.ops.library import NAMESPACE
from ddfnet.ops.recording import is_recorded, record_call

EPS = 1e-6  # by default
_KINDS = ("spatial", "channel")


class FilterNorm(nn.Module):
    r"""Normalisation of each predicted filter to zero mean and unit deviation over its taps, then a scale and a shift.

    .. math::
        y_t = a_t \, \frac{x_t - \mathrm{mean}(x)}{\mathrm{std}(x) + \epsilon} + b_t, \qquad t = 1, \dots, K = k_H k_W

    with the unbiased deviation, which divides by K - 1. Nothing is tracked: training and evaluation are the same. Half
    types are normalised in float32 and rounded once. A constant filter becomes ``b``, with the gradient of one whose
    deviation is 1.

    Args:
        filters: number of filters per sample (``kind="channel"``) or per pixel (``"spatial"``), from 1 on.
        kernel_size: taps of a filter, an int or (h, w), at least two in all.
        kind: layout of the filters, both as `ddfnet.ddf` takes them: ``"spatial"`` is (N, filters*K, ...), one filter
            per pixel of the trailing dimensions; ``"channel"`` is (N, filters, kH, kW), (N, filters*K) or any other
            shape that holds filters*K values per sample in that order.
        nonlinearity: the one after the filtered map, as in ``torch.nn.init.calculate_gain``; it sets the scale.
        learn_scale: make the scale a parameter of one value per tap, (filters*K,), initialised with
            ``randn * gain / sqrt(K)``, instead of the constant ``gain / sqrt(K)``. None is a parameter for
            ``"channel"`` and a constant for ``"spatial"``, as in the official code.
        learn_shift: have a shift, a parameter of one value per tap, initialised with zeros.
        eps: added to the deviation; in float16 at least 6e-5, below which its inverse is out of range. The official
            code has 1e-10, and ``load_state_dict`` sets it to that for weights of `ddfnet.compat.load_official`.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Returns:
        The filters in the shape and dtype they came in.

    Raises:
        ValueError: one tap, which is its own mean; a wrong option; filters of another number.

    Example:
        >>> import torch
        >>> from ddfnet.nn import FilterNorm
        >>> norm = FilterNorm(2, kernel_size=3, kind="spatial")  # two heads
        >>> filters = norm(torch.randn(4, 2 * 9, 16, 16))
        >>> bool(filters[:, :9].sum(1).abs().max() < 1e-4)
        True

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, equation 3; scale and shift as in its code.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        kind: str,
        *,
        nonlinearity: str = "relu",
        learn_scale: bool | None = None,
        learn_shift: bool = False,
        eps: float = EPS,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(f"kind must be 'spatial' or 'channel', got {kind!r}")
        if filters < 1:
            raise ValueError(f"filters must be at least 1, got {filters}")
        if eps <= 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        self.filters, self.kernel_size, self.kind, self.eps = filters, pair("kernel_size", kernel_size, 1), kind, eps
        self.taps = self.kernel_size[0] * self.kernel_size[1]
        if self.taps == 1:
            raise ValueError(
                "FilterNorm needs at least two taps, for one is its own mean and has no deviation, got "
                f"{kernel_size=}; use a larger kernel or another norm"
            )
        self.nonlinearity = nonlinearity
        self.gain = nn.init.calculate_gain(nonlinearity) / math.sqrt(self.taps)  # type: ignore[arg-type]
        self.scale: nn.Parameter | float = self.gain
        if kind == "channel" if learn_scale is None else learn_scale:
            self.scale = nn.Parameter(torch.empty(filters * self.taps, device=device, dtype=dtype))
        self.shift: nn.Parameter | None = None
        if learn_shift:
            self.shift = nn.Parameter(torch.empty(filters * self.taps, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the scale with noise and the shift with zeros, if they are parameters."""
        if isinstance(self.scale, Tensor):
            nn.init.normal_(self.scale, std=self.gain)
        if self.shift is not None:
            nn.init.zeros_(self.shift)

    def forward(self, x: Tensor) -> Tensor:
        return filter_norm(x, self.filters, self.taps, self.kind, self.scale, self.shift, self.eps)

    def extra_repr(self) -> str:
        learnt = "".join(f", learn_{n}=True" for n in ("scale", "shift") if isinstance(getattr(self, n), Tensor))
        return f"{self.filters}, {self.kernel_size}, {self.kind!r}, {self.nonlinearity!r}{learnt}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)
        self.eps = local_metadata.get("eps", self.eps)


def filter_norm(
    x: Tensor, filters: int, taps: int, kind: str, scale: Tensor | float, shift: Tensor | None, eps: float
) -> Tensor:
    """Apply `FilterNorm` as a function.

    Args:
        x: the filters, (N, filters*K, ...).
        filters, kind, eps: as in `FilterNorm`.
        taps: K of one filter.
        scale: one value per tap, (filters*K,), or one number for all.
        shift: one value per tap, (filters*K,), or None.

    Returns:
        The filters in the shape and dtype they came in.

    Raises:
        ValueError: filters of another number.
    """
    if not isinstance(x, Tensor) and is_recorded(x):
        normalized: Tensor = record_call(filter_norm, x, filters, taps, kind, scale, shift, eps)
        return normalized
    check_dense("the input of FilterNorm", x)
    held = x.shape[1:].numel() if kind == "channel" else x.shape[1:2].numel()
    if held != filters * taps:
        layout = "filters*K values per sample" if kind == "channel" else "(N, filters*K, ...)"
        raise ValueError(
            f"FilterNorm of kind {kind!r} needs {layout} with filters*K = {filters}*{taps}, got {tuple(x.shape)}"
        )
    dtype = accumulate_dtype(x.dtype)
    rows = x.reshape(x.shape[0], held) if kind == "channel" else x
    gain = 1.0 if isinstance(scale, Tensor) else scale
    per_tap = [value.to(dtype) if isinstance(value, Tensor) else None for value in (scale, shift)]
    options = taps, gain, max(eps, torch.finfo(x.dtype).tiny)
    if not _has_kernel(rows, *per_tap):
        return _formula(rows, per_tap[0], per_tap[1], *options).reshape(x.shape)
    tensors = rows.flatten(2) if rows.dim() > 2 else rows, per_tap[0], per_tap[1]
    result: Tensor
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        result = _FilterNorm.apply(*tensors, *options)  # type: ignore[no-untyped-call]
    else:
        result = torch.ops.ddfnet._filter_norm.default(*tensors, *options)
    return result.reshape(x.shape)


def _formula(x: Tensor, scale: Tensor | None, shift: Tensor | None, taps: int, gain: float, eps: float) -> Tensor:
    """Normalize (N, filters*K, ...) in PyTorch's own operations.

    What the operations after this one save for their gradients must not be a view: Inductor (torch 2.14.1) cannot lower
    one with symbolic strides, and a compiled training would stop at the second image size. So the scale is applied to
    the filters in their own shape, and a single filter gets no dimension of its own.
    """
    centered = x.to(accumulate_dtype(x.dtype))
    dim = 1
    if x.shape[1] != taps:
        centered, dim = centered.unflatten(1, (-1, taps)), 2
    # The mean of equal numbers is not exactly that number, but their differences from the first are exactly zero.
    centered = centered - centered.narrow(dim, 0, 1)
    centered = centered - centered.mean(dim, keepdim=True)
    variance = centered.square().sum(dim, keepdim=True) / (taps - 1)
    # A constant filter is divided by one: 1/eps would make its gradient too large for float16, and the root has none at
    # zero. For filters that are all but constant, eps is at least the smallest normal number.
    deviation = torch.where(variance == 0, 1, variance).sqrt() + eps
    per_tap = (-1, *(1 for _ in x.shape[2:]))
    result = (centered / deviation).reshape(x.shape) * (gain if scale is None else scale.reshape(per_tap))
    if shift is not None:
        result = result + shift.reshape(per_tap)
    return result.to(x.dtype)


def _has_kernel(x: Tensor, *others: Tensor | None) -> bool:
    """Return whether the compiled kernel normalises these filters.

    It serves plain calls alone. A compiler fuses the formula with the operations around it, and an export needs no
    operator of this package.
    """
    return (
        backends.is_compiled(x.device)
        and x.dtype in DTYPES
        and is_plain_eager(*_real(x, *others))
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and hasattr(torch.ops.ddfnet, "_filter_norm")
    )


def _real(*tensors: Tensor | None) -> list[Tensor | None]:
    """Return the tensors without fake ones, with which costs are estimated as those of the real."""
    return [tensor for tensor in tensors if type(tensor) is not FakeTensor]


def _fake(filters: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(filters)


def _backward_fake(grad_output: Tensor, filters: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(filters) if wanted else filters.new_empty(0) for wanted in others[-2:])


if hasattr(torch.ops.ddfnet, "_filter_norm"):
    torch.library.register_fake("ddfnet::_filter_norm", _fake, lib=NAMESPACE)
    torch.library.register_fake("ddfnet::_filter_norm_backward", _backward_fake, lib=NAMESPACE)


class _FilterNorm(torch.autograd.Function):
    """Compiled kernel with its gradient; the gradient of that is the one of the formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, shift: Tensor | None, *options: Any) -> Tensor:  # type: ignore[override]
        ctx.options = options
        # A constant shift has no part in any gradient, and need not be held for them.
        ctx.save_for_backward(x, scale, shift if ctx.needs_input_grad[2] else None)
        output: Tensor = torch.ops.ddfnet._filter_norm.default(x, scale, shift, *options)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:  # type: ignore[override]
        tensors = x, scale, _ = ctx.saved_tensors
        nothing = (None,) * len(ctx.options)
        # The gradient of a gradient may follow, or its derivative in forward mode.
        if torch.is_grad_enabled() or not is_plain_eager(*_real(grad_output, x, scale)):
            return *formula_gradients(lambda *each: _formula(*each, *ctx.options), tensors, grad_output), *nothing
        wants_x, wants_scale, wants_shift = ctx.needs_input_grad[:3]
        grad_x, products = torch.ops.ddfnet._filter_norm_backward.default(
            grad_output, x, scale, *ctx.options, wants_x, wants_scale
        )
        others = (0, 2) if x.dim() == 3 else 0
        dtype = accumulate_dtype(x.dtype)
        return (
            grad_x if wants_x else None,
            products.sum(others, dtype=dtype) if wants_scale else None,
            grad_output.sum(others, dtype=dtype) if wants_shift else None,
            *nothing,
        )
