"""Checks of results before any timing: a competitor that computes something else gets no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny


class WrongResultError(RuntimeError):
    """A wrong result of a competitor, for which nothing is reported."""

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
    """Return the largest error of sums, as a share of the error that rounding explains.

    A result is a sum of terms, each rounded a few times and added to the others in any order. It may be off by the
    number of roundings times the unit roundoff times the sum of the terms' absolute values, and by one rounding to its
    dtype. Good implementations sum over many pixels in parts, so the number of roundings is bounded.

    Args:
        name, case: the competitor and the case, for the message.
        results: the results by their names.
        expected: the same in double precision.
        magnitudes: the same in double precision, with the absolute value of every term.
        taps: the number of taps of a filter.
        unit: the unit roundoff of the sum.
        reference: the source of the expected results, for the message.

    Returns:
        A number from 0 to 1.

    Raises:
        WrongResultError: the share is above 1, or not a number.
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
    """Return the largest error of each result, as a share of its largest value."""
    return [
        ((result.double() - value).abs().max() / value.abs().max().clamp_min(_TINY)).item()
        for result, value in zip(results, expected, strict=True)
    ]


@dataclass(frozen=True)
class Expected:
    """Expected results of a layer or network, and their tolerance.

    Args:
        case: the case, for the messages.
        names: the names of the results.
        values: the results of the reference.
        tolerance: the largest relative error.
        explanation: the cause of an error of that size, for the messages.
        reference: the source of the values, for the messages.
    """

    case: object
    names: Sequence[str]
    values: Sequence[Tensor]
    tolerance: float
    explanation: str
    reference: str = "the float64 reference"

    @staticmethod
    def from_rounding(
        case: object,
        names: Sequence[str],
        reference: Callable[[torch.dtype], Sequence[Tensor]],
        dtype: torch.dtype = torch.float32,
    ) -> Expected:
        """Expect results in this dtype to be as exact as plain PyTorch, up to a factor, with the same parameters.

        The growth of rounding errors through normalisations and many layers has no useful bound, but it can be
        measured: the reference is computed in double precision and in the dtype that is timed, and a competitor may be
        off by 16 times the largest relative error of the latter (at least 4 roundings, where the latter happens to be
        exact). Another order of summation changes an error by a small factor only; a wrong value anywhere is further
        off.
        """
        values = reference(torch.float64)
        plain = relative_errors(reference(dtype), values)
        tolerance = 16 * max(*plain, 4 * torch.finfo(dtype).eps)
        return Expected(case, names, values, tolerance, "what plain PyTorch's rounding explains")

    @staticmethod
    def float64(case: object, names: Sequence[str], values: Sequence[Tensor]) -> Expected:
        """Expect results in double precision, for functions with kinks.

        A rounding decides on which side of a ReLU's kink a value falls, and the gradients of a whole network jump with
        it: in float32, plain PyTorch itself is off by a third. In double precision no value is so near to a kink, and
        even roundings that grow by 10^9 stay below the tolerance.
        """
        return Expected(case, names, values, 1e-6, "what rounding in double precision explains")

    def check(self, name: str, results: Sequence[Tensor]) -> float:
        """Return the largest relative error as a share of the tolerance.

        Raises:
            WrongResultError: the share is above 1, or not a number.
        """
        shares = [error / self.tolerance for error in relative_errors(results, self.values)]
        for part, share in zip(self.names, shares, strict=True):
            if not share <= 1:  # NaN too
                detail = _off(part, share, self.explanation)
                raise WrongResultError(name, self.case, detail, reference=self.reference)
        return max(shares)


def _off(part: str, share: float, explanation: str) -> str:
    return f"the {part} is off by up to {share:.3g} times {explanation}"
