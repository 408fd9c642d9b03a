"""Times the tiles that a Triton kernel could take, one against another, for the table that goes before the heuristic.

Each kernel runs alone, through the operators that autograd calls, on the tensors of a benchmark's case in both memory
formats. A table's keys are coarser than cases: of cases with the same key the first speaks for all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import ddfnet
from ddfnet.bench.competitors import Tensors
from ddfnet.bench.equality import WrongResultError, check_rounding
from ddfnet.bench.op import PARTS
from ddfnet.bench.registry import Case
from ddfnet.bench.result import reason
from ddfnet.bench.timing import FORMATS, in_turn, interleave, median_ratio, turns
from ddfnet.ops import registration
from ddfnet.ops.geometry import Combine, Geometry, accumulate_dtype, default_padding, empty_result
from ddfnet.ops.triton.config import Launch, Problem, candidates, recording, using

_MASKS = {"grad_input": (True, False, False), "grad_filters": (False, True, True)}
_RESULTS = {"forward": PARTS[:1], "grad_input": PARTS[1:2], "grad_filters": PARTS[2:]}
_LEAST_GAIN = 0.02  # less may be chance


@dataclass(frozen=True)
class Tuned:
    """The fastest launch of a problem. Milliseconds are medians over the rounds."""

    problem: Problem
    launch: Launch
    milliseconds: float
    by_heuristic: float  # milliseconds of the launch that the heuristic gives
    ratio: float  # the median over the rounds of the one over the other
    left_out: tuple[str, ...]  # candidates that did not run or gave something else, and why

    @property
    def is_faster(self) -> bool:
        """By so much that it belongs into a table."""
        return self.ratio < 1 - _LEAST_GAIN

    def __str__(self) -> str:
        times = f"heuristic {self.by_heuristic:.4f} ms, best {self.milliseconds:.4f} ms ({self.ratio:.2f})"
        lines = [f"{self.problem.key}: {times}, {_text(self.launch)}"]
        return "\n".join([*lines, *(f"  left out: {line}" for line in self.left_out)])


def run(
    cases: Sequence[Case], *, rounds: int = 30, most: int | None = None, device: str | torch.device = "cuda"
) -> Iterator[Tuned]:
    """Time the candidates for each case, memory format and kernel.

    Args:
        cases: from `ddfnet.bench.registry`.
        rounds: how often each candidate is timed.
        most: candidates of a problem, the heuristic's among them; None for all.
        device: that the Triton kernels serve.

    Returns:
        One result a problem, as each is done.
    """
    done: set[str] = set()
    for case in cases:
        tensors = Tensors.random(case, torch.device(device))
        for memory_format in FORMATS.values():
            own = tensors.to(memory_format, requires_grad=False)
            for kernel in _RESULTS:
                # The block ends before the caller has its result: the choice is the whole process's.
                with ddfnet.ops.backend("triton"):
                    tuned = _measure(case, kernel, _arguments(case, kernel, own), rounds, most, done)
                if tuned is not None:
                    done.add(tuned.problem.key)
                    yield tuned


def _measure(
    case: Case, kernel: str, tensors: Sequence[Tensor], rounds: int, most: int | None, done: set[str]
) -> Tuned | None:
    """The candidates for one kernel on these tensors; None if its key was done before."""
    with recording() as problems:
        _call(case, kernel, tensors)
    problem = problems[0]
    if problem.key in done:
        return None
    heuristic, *others = candidates(problem)[:most]

    def results(launch: Launch, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        with using({problem.key: launch}):
            return _call(case, kernel, tensors)

    wrong = _objections(case, kernel, tensors, heuristic, others, results)
    chosen = [heuristic, *(launch for launch in others if launch not in wrong)]
    copies = [tensors, *([t.clone() for t in tensors] for _ in range(_turns(tensors) - 1))]
    calls = {launch: in_turn([partial(results, launch, copy) for copy in copies]) for launch in chosen}
    times = interleave(calls, rounds, tensors[0].device)
    ratios = {launch: median_ratio(own, times[heuristic]) for launch, own in times.items()}
    best = min(chosen, key=lambda launch: ratios[launch])
    milliseconds, by_heuristic = (statistics.median(times[launch]) for launch in (best, heuristic))
    return Tuned(problem, best, milliseconds, by_heuristic, ratios[best], tuple(wrong.values()))


def _turns(tensors: Sequence[Tensor]) -> int:
    return turns(sum(tensor.nbytes for tensor in tensors), tensors[0].device)


def _objections(
    case: Case,
    kernel: str,
    tensors: Sequence[Tensor],
    heuristic: Launch,
    others: Sequence[Launch],
    results: Callable[[Launch, Sequence[Tensor]], Sequence[Tensor]],
) -> dict[Launch, str]:
    """Which launches do not run, or give something else than the heuristic's, and why."""

    def named(results: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(_RESULTS[kernel], results, strict=True))

    expected = named([result.double() for result in results(heuristic, tensors)])
    magnitudes = named([result.double() for result in results(heuristic, [t.abs() for t in tensors])])
    unit = torch.finfo(accumulate_dtype(tensors[0].dtype)).eps
    wrong = {}
    for launch in others:
        try:
            found = named(results(launch, tensors))
        except Exception as failure:  # Triton has many for what does not compile, or needs more than the device has
            wrong[launch] = f"{_text(launch)}: {reason(failure)}"
            continue
        try:
            check_rounding(
                _text(launch),
                case,
                found,
                expected,
                magnitudes,
                taps=case.kernel_size**2,
                unit=unit,
                reference="the heuristic's launch",
            )
        except WrongResultError as error:
            wrong[launch] = str(error)
    return wrong


def _text(launch: Launch) -> str:
    return f"{launch.tile}, {launch.warps} warps"


# --- one kernel alone -----------------------------------------------------------------------------------------------


def _geometry(case: Case) -> Geometry:
    """Return the geometry of a case, with the default padding."""
    kernel_size, stride, dilation = ((side, side) for side in (case.kernel_size, case.stride, case.dilation))
    padding = default_padding(kernel_size, dilation)
    return Geometry(kernel_size, stride, padding, dilation, combine=Combine(case.combine))


def _arguments(case: Case, kernel: str, tensors: Tensors) -> Sequence[Tensor]:
    if kernel == "forward":
        return tensors.filters()
    output = empty_result(tensors.input, _geometry(case))
    return torch.randn_like(output), *tensors.filters()


def _call(case: Case, kernel: str, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the kernel computes, and nothing that it does not."""
    if kernel == "forward":
        return (registration.ddf(*tensors, *_geometry(case)),)
    mask = _MASKS[kernel]
    gradients = registration.ddf_backward(*tensors, *_geometry(case), mask)
    return [gradient for gradient, wanted in zip(gradients, mask, strict=True) if wanted]
