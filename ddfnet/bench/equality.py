"""Correctness before speed: what is timed must compute what it claims, else no number is reported for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny


class WrongResultError(RuntimeError):
    """A competitor does not compute what it should: nothing is reported."""

    def __init__(self, name: str, case: object, detail: str, *, reference: str = "the float64 reference") -> None:
        super().__init__(f"{name} does not agree with {reference} on {case}: {detail}; nothing is reported")


def check_rounding(
    name: str,
    case: object,
    results: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    magnitudes: Mapping[str, Tensor],
    *,
    taps: int,
    unit: float,
    reference: str = "the float64 reference",
) -> float:
    """The largest error of a sum as a share of what its roundings explain.

    A result is a sum of terms, each rounded a few times and added to the others in any order: it may be off by the
    number of roundings times the unit roundoff times the sum of the terms' absolute values, and by one rounding to its
    dtype. Sums over many pixels are done in parts by whoever does them well, so the number is bounded.

    Args:
        name, case: for the message.
        results: by what they are called.
        expected: the same in double precision.
        magnitudes: the same in double precision, of every term's absolute value.
        taps: of a filter.
        unit: the unit roundoff of the sum.
        reference: what the expected results are by, for the message.

    Returns:
        From 0 to 1.

    Raises:
        WrongResultError: it is above 1, or not a number.
    """
    worst = 0.0
    roundings = 4 * taps + 32
    for part, result in results.items():
        tolerance = roundings * unit * magnitudes[part] + torch.finfo(result.dtype).eps * expected[part].abs()
        share = ((result.double() - expected[part]).abs() / tolerance.clamp_min(_TINY)).max().item()
        if not share <= 1:  # NaN too
            raise WrongResultError(name, case, _off(part, share, "what rounding explains"), reference=reference)
        worst = max(worst, share)
    return worst


def relative_errors(results: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """The largest error of each result, as a share of its largest value."""
    return [
        ((result.double() - value).abs().max() / value.abs().max().clamp_min(_TINY)).item()
        for result, value in zip(results, expected, strict=True)
    ]


@dataclass(frozen=True)
class Expected:
    """What a layer or network should give and how far off a result may be.

    Args:
        case: for the messages.
        names: what the results are called.
        values: the results, by the reference.
        tolerance: of the relative error.
        explanation: what an error of that size comes from.
        reference: what the values are by.
    """

    case: object
    names: Sequence[str]
    values: Sequence[Tensor]
    tolerance: float
    explanation: str
    reference: str = "the float64 reference"

    @staticmethod
    def by_plain_rounding(
        case: object,
        names: Sequence[str],
        reference: Callable[[torch.dtype], Sequence[Tensor]],
        dtype: torch.dtype = torch.float32,
    ) -> Expected:
        """Judge results in this dtype by what plain PyTorch loses to rounding on the same parameters.

        How far rounding errors grow through normalisations and many layers has no useful bound, but it can be seen: the
        reference is computed in double precision and in the dtype that is timed, and what is timed may be off by 16
        times the largest relative error of the latter (and of 4 roundings, where that happens to be exact). An order of
        summation of its own changes an error by a small factor only; a wrong value anywhere is further off.
        """
        values = reference(torch.float64)
        plain = relative_errors(reference(dtype), values)
        tolerance = 16 * max(*plain, 4 * torch.finfo(dtype).eps)
        return Expected(case, names, values, tolerance, "what plain PyTorch's rounding explains")

    @staticmethod
    def in_double(case: object, names: Sequence[str], values: Sequence[Tensor]) -> Expected:
        """Judge results in double precision, for what has kinks.

        A rounding decides on which side of a ReLU's kink a value falls, and the gradients of a whole network jump with
        it: in float32 those of plain PyTorch itself are off by a third. In double precision no value is that near to a
        kink, and even roundings that grow by 10^9 stay below the tolerance.
        """
        return Expected(case, names, values, 1e-6, "what rounding in double precision explains")

    def check(self, name: str, results: Sequence[Tensor]) -> float:
        """The largest relative error as a share of what is tolerated.

        Raises:
            WrongResultError: it is above 1, or not a number.
        """
        shares = [error / self.tolerance for error in relative_errors(results, self.values)]
        for part, share in zip(self.names, shares, strict=True):
            if not share <= 1:  # NaN too
                detail = _off(part, share, self.explanation)
                raise WrongResultError(name, self.case, detail, reference=self.reference)
        return max(shares)


def _off(part: str, share: float, explanation: str) -> str:
    return f"the {part} is off by up to {share:.3g} times {explanation}"
