"""Comparison of an exported file's outputs with those of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddfnet.export.inputs import InputSize

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Default tolerances, absolute where the expected value is below one, and relative above."""


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
        why: reason why an output cannot be compared, or why the file does not run.
    """

    size: InputSize
    output: str
    largest: float
    share: float
    index: tuple[int, ...] = ()
    expected: float | None = None
    got: float | None = None
    why: str | None = None

    @property
    def agrees(self) -> bool:
        return self.share <= 1

    def __str__(self) -> str:
        batch, height, width = self.size
        where = f"output {self.output!r} at {batch}x{height}x{width} (batch, height, width)"
        if self.why:
            return f"{where}: {self.why}"
        if self.expected is None or self.got is None:
            return f"{where}: empty"
        here = abs(self.got - self.expected) if self.share else 0.0
        here = math.inf if math.isnan(here) else here
        numbers = f"difference {here:.3g}, expected {self.expected:.9g}, got {self.got:.9g}"
        elsewhere = f"; the largest difference, {self.largest:.3g}, is elsewhere" if self.largest > here else ""
        return f"{where}, index {self.index}: {numbers}{elsewhere}"


def compare(
    size: InputSize, expected: Mapping[str, Tensor], got: Sequence[Tensor], tolerance: float | None
) -> list[Difference]:
    """Return one difference per output. Two NaNs are equal; the tolerance None is that of the output's dtype."""
    if len(got) != len(expected):
        why = f"{len(got)} outputs for {len(expected)}"
        return [Difference(size, next(iter(expected)), math.inf, math.inf, why=why)]
    return [_compare(size, name, expected[name], own, tolerance) for name, own in zip(expected, got, strict=True)]


def _compare(size: InputSize, name: str, expected: Tensor, got: Tensor, tolerance: float | None) -> Difference:
    facts = (("shape", tuple(got.shape), tuple(expected.shape)), ("dtype", got.dtype, expected.dtype))
    for fact, found, wanted in facts:
        if found != wanted:
            return Difference(size, name, math.inf, math.inf, why=f"{fact} {found} for {wanted}")
    if not expected.numel():
        return Difference(size, name, 0.0, 0.0)
    if tolerance is None:
        tolerance = TOLERANCES.get(expected.dtype, 0.0)
    expected, got = expected.double(), got.double()
    difference = (expected - got).abs()
    same = (expected == got) | (expected.isnan() & got.isnan())  # infinities too: their difference is NaN
    difference = torch.where(same, 0, difference.nan_to_num(nan=math.inf, posinf=math.inf))
    share = difference / (tolerance * expected.abs().nan_to_num(nan=1.0).clamp(min=1)).clamp(min=1e-300)
    share = torch.where(same, 0, share.nan_to_num(nan=math.inf, posinf=math.inf))
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
    )
