"""Comparison of an exported file's outputs with those of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddfnet.export.inputs import InputSize

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Default tolerances, as shares of an output's root mean square, or of the expected value where that is larger."""
_ROUNDINGS = 8  # differences from the model that its own rounding explains: another order of sums is off as much again
_WORST_ROUNDING = 1e-2  # share of the root mean square; a model that rounds worse must not excuse its file


@dataclass(frozen=True)
class Difference:
    """Difference of one output at one size that exceeds the tolerance most, and its place.

    Attributes:
        size: batch, height and width.
        output: name of the output.
        largest: largest absolute difference, at `index` or elsewhere; infinite for another shape or type.
        share: difference at `index` as a share of the tolerance there, above 1 if it is too large.
        index: place of the value that exceeds the tolerance most.
        expected: value of the model.
        got: value of the file.
        layout: memory format of the file's inputs.
        rounding: largest absolute difference of the model's output from that of the same model in float64; None where
            that was not needed, or the model does not run in float64.
        why: reason why an output cannot be compared, or why the file does not run.
    """

    size: InputSize
    output: str
    largest: float
    share: float
    index: tuple[int, ...] = ()
    expected: float | None = None
    got: float | None = None
    layout: str = "contiguous"
    rounding: float | None = None
    why: str | None = None

    @property
    def agrees(self) -> bool:
        return self.share <= 1

    def __str__(self) -> str:
        batch, height, width = self.size
        where = f"output {self.output!r} at {batch}x{height}x{width} (batch, height, width)"
        if self.layout != "contiguous":
            where += f", inputs in {self.layout}"
        if self.why:
            return f"{where}: {self.why}"
        if self.expected is None or self.got is None:
            return f"{where}: empty"
        here = abs(self.got - self.expected) if self.share else 0.0
        here = math.inf if math.isnan(here) else here
        numbers = f"difference {here:.3g}, expected {self.expected:.9g}, got {self.got:.9g}"
        elsewhere = f"; the largest difference, {self.largest:.3g}, is elsewhere" if self.largest > here else ""
        rounding = "" if self.rounding is None else f"; the model's own rounding is {self.rounding:.3g}"
        return f"{where}, index {self.index}: {numbers}{elsewhere}{rounding}"


def compare(
    size: InputSize,
    expected: Mapping[str, Tensor],
    got: Sequence[Tensor],
    tolerance: float | None,
    exact: Mapping[str, Tensor] | None = None,
    *,
    layout: str = "contiguous",
) -> list[Difference]:
    """Return one difference per output. Two NaNs are equal.

    A difference is tolerated up to ``tolerance * max(rms, |expected|)``, with the root mean square of the output at
    this size, so that a tiny output is judged as strictly as a large one.

    Args:
        size: batch, height and width.
        expected: outputs of the model.
        got: outputs of the file.
        tolerance: None is that of each output's dtype, and ``exact`` counts then.
        exact: outputs of the model in float64: what the model's own rounding explains is tolerated too.
        layout: memory format of the file's inputs.
    """
    if len(got) != len(expected):
        why = f"{len(got)} outputs for {len(expected)}"
        return [Difference(size, next(iter(expected)), math.inf, math.inf, layout=layout, why=why)]
    return [
        replace(_compare(size, name, values, own, tolerance, (exact or {}).get(name)), layout=layout)
        for (name, values), own in zip(expected.items(), got, strict=True)
    ]


def _compare(
    size: InputSize, name: str, expected: Tensor, got: Tensor, tolerance: float | None, exact: Tensor | None
) -> Difference:
    facts = (("shape", tuple(got.shape), tuple(expected.shape)), ("dtype", got.dtype, expected.dtype))
    for fact, found, wanted in facts:
        if found != wanted:
            return Difference(size, name, math.inf, math.inf, why=f"{fact} {found} for {wanted}")
    if not expected.numel():
        return Difference(size, name, 0.0, 0.0)
    default, rounding = TOLERANCES.get(expected.dtype, 0.0), None
    expected, got = expected.double(), got.double()
    finite = expected[expected.isfinite()]
    rms = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    tolerated = (default if tolerance is None else tolerance) * expected.abs().nan_to_num(nan=rms).clamp(min=rms)
    if tolerance is None and exact is not None:
        rounding = float(_differences(expected, exact.double()).max())
        tolerated = tolerated.clamp(min=min(_ROUNDINGS * rounding, _WORST_ROUNDING * rms))
    difference = _differences(expected, got)
    share = torch.where(difference == 0, 0, difference / tolerated.clamp(min=1e-300))
    share = share.nan_to_num(nan=math.inf, posinf=math.inf)
    worst = int(share.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape))
    return Difference(
        size,
        name,
        largest=float(difference.max()),
        share=float(share.flatten()[worst]),
        index=index,
        expected=float(expected.flatten()[worst]),
        got=float(got.flatten()[worst]),
        rounding=rounding,
    )


def _differences(expected: Tensor, got: Tensor) -> Tensor:
    """Return absolute differences: 0 for two NaNs and for equal infinities, infinite where only one is not finite."""
    same = (expected == got) | (expected.isnan() & got.isnan())
    return torch.where(same, 0, (expected - got).abs().nan_to_num(nan=math.inf, posinf=math.inf))
