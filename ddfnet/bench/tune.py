"""Measurement of candidate tiles for the Triton kernels, for the table that takes precedence over the heuristic.

Each kernel runs alone, through the operators that autograd calls, on the tensors of a benchmark case in both memory
formats. The keys of a table are coarser than cases: the first case with a key decides for all others.
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
from ddfnet.bench.result import one_line
from ddfnet.bench.timing import FORMATS, interleave, median_ratio, num_copies, rotate
from ddfnet.ops import registration
from ddfnet.ops.geometry import Combine, Geometry, accumulate_dtype, default_padding, empty_result
from ddfnet.ops.triton.config import LaunchConfig, Problem, candidates, record_problems, use_table

_MASKS = {"bwd_input": (True, False, False), "bwd_filters": (False, True, True)}
_RESULTS = {"fwd": PARTS[:1], "bwd_input": PARTS[1:2], "bwd_filters": PARTS[2:]}
_MIN_GAIN = 0.02  # a smaller one may be chance


@dataclass(frozen=True)
class Tuned:
    """Fastest configuration of a problem. Milliseconds are medians over the rounds."""

    problem: Problem
    config: LaunchConfig
    milliseconds: float
    heuristic_milliseconds: float  # with the configuration of the heuristic
    ratio: float  # the median over the rounds of the first over the second
    rejected: tuple[str, ...]  # candidates that did not run or had another result, with the reason

    @property
    def is_faster(self) -> bool:
        """True if the gain is large enough for a table."""
        return self.ratio < 1 - _MIN_GAIN

    def __str__(self) -> str:
        times = f"heuristic {self.heuristic_milliseconds:.4f} ms, best {self.milliseconds:.4f} ms ({self.ratio:.2f})"
        lines = [f"{self.problem.key}: {times}, {_text(self.config)}"]
        return "\n".join([*lines, *(f"  left out: {line}" for line in self.rejected)])


def run(
    cases: Sequence[Case], *, rounds: int = 30, max_candidates: int | None = None, device: str | torch.device = "cuda"
) -> Iterator[Tuned]:
    """Time the candidates for each case, memory format and kernel.

    Args:
        cases: from `ddfnet.bench.registry`.
        rounds: the number of timings of each candidate.
        max_candidates: candidates per problem, that of the heuristic included; None for all.
        device: one that the Triton kernels serve.

    Returns:
        One result per problem, as each is done.
    """
    done: set[str] = set()
    for case in cases:
        tensors = Tensors.random(case, torch.device(device))
        for memory_format in FORMATS.values():
            own = tensors.to(memory_format, requires_grad=False)
            for kernel in _RESULTS:
                # The block ends before the caller gets the result, because the choice holds for the whole process.
                with ddfnet.ops.backend("triton"):
                    tuned = _measure(case, kernel, _arguments(case, kernel, own), rounds, max_candidates, done)
                if tuned is not None:
                    done.add(tuned.problem.key)
                    yield tuned


def _measure(
    case: Case, kernel: str, tensors: Sequence[Tensor], rounds: int, max_candidates: int | None, done: set[str]
) -> Tuned | None:
    """Time the candidates for one kernel on these tensors; return None if its key was done before."""
    with record_problems() as problems:
        _call(case, kernel, tensors)
    problem = problems[0]
    if problem.key in done:
        return None
    heuristic, *others = candidates(problem)[:max_candidates]

    def results(config: LaunchConfig, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        with use_table({problem.key: config}):
            return _call(case, kernel, tensors)

    wrong = _rejections(case, kernel, tensors, heuristic, others, results)
    valid = [heuristic, *(config for config in others if config not in wrong)]
    copies = [tensors, *([t.clone() for t in tensors] for _ in range(_num_copies(tensors) - 1))]
    calls = {config: rotate([partial(results, config, copy) for copy in copies]) for config in valid}
    times = interleave(calls, rounds, tensors[0].device)
    ratios = {config: median_ratio(own, times[heuristic]) for config, own in times.items()}
    best = min(valid, key=lambda config: ratios[config])
    milliseconds, heuristic_milliseconds = (statistics.median(times[config]) for config in (best, heuristic))
    return Tuned(problem, best, milliseconds, heuristic_milliseconds, ratios[best], tuple(wrong.values()))


def _num_copies(tensors: Sequence[Tensor]) -> int:
    return num_copies(sum(tensor.nbytes for tensor in tensors), tensors[0].device)


def _rejections(
    case: Case,
    kernel: str,
    tensors: Sequence[Tensor],
    heuristic: LaunchConfig,
    others: Sequence[LaunchConfig],
    results: Callable[[LaunchConfig, Sequence[Tensor]], Sequence[Tensor]],
) -> dict[LaunchConfig, str]:
    """Return the candidates that do not run, or whose results differ from the heuristic's, with the reason."""

    def named(results: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(_RESULTS[kernel], results, strict=True))

    expected = named([result.double() for result in results(heuristic, tensors)])
    magnitudes = named([result.double() for result in results(heuristic, [t.abs() for t in tensors])])
    unit = torch.finfo(accumulate_dtype(tensors[0].dtype)).eps
    wrong = {}
    for config in others:
        try:
            found = named(results(config, tensors))
        except (
            Exception
        ) as failure:  # Triton raises many kinds where code does not compile or needs too much of the device
            wrong[config] = f"{_text(config)}: {one_line(failure)}"
            continue
        try:
            check_rounding(
                _text(config),
                case,
                found,
                expected,
                magnitudes,
                taps=case.kernel_size**2,
                unit=unit,
                reference="the heuristic's configuration",
            )
        except WrongResultError as error:
            wrong[config] = str(error)
    return wrong


def _text(config: LaunchConfig) -> str:
    return f"{config.tile}, {config.num_warps} warps"


# --- one kernel alone -----------------------------------------------------------------------------------------------


def _geometry(case: Case) -> Geometry:
    """Return the geometry of a case, with the default padding."""
    kernel_size, stride, dilation = ((side, side) for side in (case.kernel_size, case.stride, case.dilation))
    padding = default_padding(kernel_size, dilation)
    return Geometry(kernel_size, stride, padding, dilation, combine=Combine(case.combine))


def _arguments(case: Case, kernel: str, tensors: Tensors) -> Sequence[Tensor]:
    if kernel == "fwd":
        return tensors.filters()
    output = empty_result(tensors.input, _geometry(case))
    return torch.randn_like(output), *tensors.filters()


def _call(case: Case, kernel: str, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the results of this kernel, computed without the others."""
    if kernel == "fwd":
        return (registration.ddf(*tensors, *_geometry(case).flat()),)
    mask = _MASKS[kernel]
    gradients = registration.ddf_backward(*tensors, *_geometry(case).flat(), mask)
    return [gradient for gradient, wanted in zip(gradients, mask, strict=True) if wanted]
