"""Filter normalisation: what keeps predicted filters, the products of them and their gradients in range."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ddfnet.ops.geometry import Pair, accumulate_dtype, pair

_KINDS = ("spatial", "channel")


class FilterNorm(nn.Module):
    r"""Give each predicted filter zero mean and unit deviation over its own taps, then a scale and a shift.

    .. math::
        y_t = a_t \, \frac{x_t - \mathrm{mean}(x)}{\mathrm{std}(x) + \epsilon} + b_t, \qquad t = 1, \dots, K = k_H k_W

    with the unbiased deviation, which divides by K - 1. Nothing is tracked: training and evaluation are the same. Half
    types are normalised in float32 and rounded once. A constant filter becomes ``b``, with the gradient of one whose
    deviation is 1.

    Args:
        filters: how many filters a sample (``kind="channel"``) or a pixel (``"spatial"``) has, from 1 on.
        kernel_size: taps of a filter, an int or (h, w), at least two in all.
        kind: how the filters are laid out, both of them as `ddfnet.ddf` takes them: ``"spatial"`` is
            (N, filters*K, ...), a filter a pixel of the trailing dimensions; ``"channel"`` is (N, filters, kH, kW),
            (N, filters*K) or any other shape that holds filters*K values a sample in that order.
        nonlinearity: what follows the filtered map, as in ``torch.nn.init.calculate_gain``; it sets the scale.
        learn_scale: whether the scale is a parameter of one value a tap, (filters*K,), initialised with
            ``randn * gain / sqrt(K)``, or the constant ``gain / sqrt(K)``. None is: a parameter for ``"channel"``, a
            constant for ``"spatial"``, as in the official code.
        learn_shift: whether there is a shift, a parameter of one value a tap, initialised with zeros.
        eps: added to the deviation; in float16 at least 6e-5, below which its inverse is out of range.
        device: of the parameters.
        dtype: of the parameters.

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
        eps: float = 1e-6,
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
        if isinstance(self.scale, Tensor):
            nn.init.normal_(self.scale, std=self.gain)
        if self.shift is not None:
            nn.init.zeros_(self.shift)

    def forward(self, x: Tensor) -> Tensor:
        return filter_norm(x, self.filters, self.taps, self.kind, self.scale, self.shift, self.eps)

    def extra_repr(self) -> str:
        learnt = "".join(f", learn_{n}=True" for n in ("scale", "shift") if isinstance(getattr(self, n), Tensor))
        return f"{self.filters}, {self.kernel_size}, {self.kind!r}, {self.nonlinearity!r}{learnt}"


def filter_norm(
    x: Tensor, filters: int, taps: int, kind: str, scale: Tensor | float, shift: Tensor | None, eps: float
) -> Tensor:
    """`FilterNorm` as a function; scale and shift have one value a tap, (filters*taps,), or are one number."""
    held = x.shape[1:].numel() if kind == "channel" else x.shape[1:2].numel()
    if held != filters * taps:
        layout = "filters*K values a sample" if kind == "channel" else "(N, filters*K, ...)"
        raise ValueError(
            f"FilterNorm of kind {kind!r} needs {layout} with filters*K = {filters}*{taps}, got {tuple(x.shape)}"
        )
    dtype = accumulate_dtype(x.dtype)
    pixels = x.shape[2:] if kind == "spatial" else ()
    centred = x.to(dtype).reshape(x.shape[0], filters, taps, *pixels)
    # The mean of equal numbers is not exactly that number, but their differences from the first are exactly zero.
    centred = centred - centred.narrow(2, 0, 1)
    centred = centred - centred.mean(2, keepdim=True)
    variance = centred.square().sum(2, keepdim=True) / (taps - 1)
    # A constant filter is divided by one: 1/eps would make its gradient too large for float16, and the root has none at
    # zero. For filters that are all but constant, eps is at least the smallest normal number.
    deviation = torch.where(variance == 0, 1, variance).sqrt() + max(eps, torch.finfo(x.dtype).tiny)
    a_tap = (filters, taps, *(1 for _ in pixels))
    result = centred / deviation * (scale.to(dtype).reshape(a_tap) if isinstance(scale, Tensor) else scale)
    if shift is not None:
        result = result + shift.to(dtype).reshape(a_tap)
    return result.to(x.dtype).reshape(x.shape)
