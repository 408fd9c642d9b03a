"""Whether an exported file gives what the model gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddfnet.export.inputs import Size

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""By default: of a difference, absolute where the expected value is below one, and relative above."""


@dataclass(frozen=True)
class Difference:
    """The difference of one output at one size that is furthest beyond what is tolerated, and where it is.

    Attributes:
        size: batch, height and width.
        output: its name.
        largest: the absolute difference where it is largest, at `index` or elsewhere; infinite for another shape or
            type.
        share: of what is tolerated there, above 1 if it is too large.
        index: of the number that is furthest beyond what is tolerated.
        expected: by the model.
        got: by the file.
        why: what is wrong with an output that cannot be compared, or a file that does not run.
    """

    size: Size
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
    size: Size, expected: Mapping[str, Tensor], got: Sequence[Tensor], tolerance: float | None
) -> list[Difference]:
    """One difference an output. Two that are not numbers are equal; None is the tolerance of the output's dtype."""
    if len(got) != len(expected):
        why = f"{len(got)} outputs for {len(expected)}"
        return [Difference(size, next(iter(expected)), math.inf, math.inf, why=why)]
    return [_compare(size, name, expected[name], own, tolerance) for name, own in zip(expected, got, strict=True)]


def _compare(size: Size, name: str, expected: Tensor, got: Tensor, tolerance: float | None) -> Difference:
    facts = (("shape", tuple(got.shape), tuple(expected.shape)), ("dtype", got.dtype, expected.dtype))
    for what, is_, should_be in facts:
        if is_ != should_be:
            return Difference(size, name, math.inf, math.inf, why=f"{what} {is_} for {should_be}")
    if not expected.numel():
        return Difference(size, name, 0.0, 0.0)
    if tolerance is None:
        tolerance = TOLERANCES.get(expected.dtype, 0.0)
    wanted, found = expected.double(), got.double()
    difference = (wanted - found).abs()
    same = (wanted == found) | (wanted.isnan() & found.isnan())  # infinities too, whose difference is no number
    difference = torch.where(same, 0, difference.nan_to_num(nan=math.inf, posinf=math.inf))
    share = difference / (tolerance * wanted.abs().nan_to_num(nan=1.0).clamp(min=1)).clamp(min=1e-300)
    share = torch.where(same, 0, share.nan_to_num(nan=math.inf, posinf=math.inf))
    worst = int(share.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape))
    return Difference(
        size,
        name,
        largest=float(difference.max()),
        share=float(share.flatten()[worst]),
        index=index,
        expected=float(wanted.flatten()[worst]),
        got=float(found.flatten()[worst]),
    )
