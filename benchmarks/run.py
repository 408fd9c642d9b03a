"""The runner: checks a case, then times all competitors side by side in one process, round by round.

Every round calls each competitor in each memory format once, in an order of its own, so that whatever else the machine
does falls on all alike. A competitor is judged by the better of its two formats, and compared by the median of the
ratios within a round. What is called allocates its results, as it would in a network.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import ddfnet
from ddfnet.benchmarks.competitors import Competitor, Tensors, competitors
from ddfnet.benchmarks.registry import Case
from ddfnet.ops.shapes import accumulate_dtype

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BASELINE = "depthwise"
_LEAST_SECONDS = 2e-3  # a call that is shorter is repeated within a round, and the mean taken


class WrongResultError(RuntimeError):
    """A competitor does not compute the decoupled dynamic filter: nothing is reported."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call over the rounds, in the better memory format, and relative to the baseline."""

    competitor: str
    memory_format: str
    median: float
    p20: float
    p80: float
    ratio: float  # the median over the rounds of this competitor's time over the baseline's
    other_median: float  # in the other memory format


@dataclass(frozen=True)
class Result:
    """A case that was checked and timed."""

    case: Case
    direction: str  # "forward" or "forward+backward"
    timings: tuple[Timing, ...]
    skipped: dict[str, str]  # competitor -> why it did not take part
    error: float  # the operator's largest error, as a share of what was tolerated

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    cases: Sequence[Case],
    *,
    rounds: int = 30,
    backward: bool = False,
    compiled: bool = True,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case.

    Args:
        cases: from `ddfnet.benchmarks.registry`.
        rounds: how often each competitor is timed.
        backward: time the forward and backward pass together as well.
        compiled: whether torch.compile of the formula takes part.
        device: where.

    Returns:
        One result a case and direction, as each is done.

    Raises:
        WrongResultError: the operator, or something that should compute the same, does not agree with the reference.

    Example:
        >>> from ddfnet.benchmarks.registry import CASES
        >>> from ddfnet.benchmarks.run import run
        >>> [result] = run([CASES["tiny"]], rounds=3, compiled=False)
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'depthwise', 'conv', 'unfold']
    """
    device = torch.device(device)
    for case in cases:
        for direction in ("forward", "forward+backward")[: 1 + backward]:
            yield _run(case, direction, rounds, compiled, device)


def _run(case: Case, direction: str, rounds: int, compiled: bool, device: torch.device) -> Result:
    backward = direction != "forward"
    torch.compiler.reset()  # it counts the shapes that it saw, and above a limit would quietly stop compiling
    tensors = Tensors.random(case, device)
    chosen, skipped = competitors(case, compiled=compiled), {}
    if reason := _too_large(case, device):
        skipped["unfold"] = reason
        del chosen["unfold"]
    expected, magnitudes = _reference(case, tensors, backward)
    formats = {name: tensors.to(memory_format, requires_grad=backward) for name, memory_format in FORMATS.items()}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    error = 0.0
    for (name, competitor), (format_name, own) in itertools.product(chosen.items(), formats.items()):
        try:
            call = _call(competitor, own, backward)
            results = call()
        except Exception as failure:
            if name != "compiled":
                raise
            skipped[name] = f"torch.compile failed: {_first_line(failure)}"  # it needs a C++ compiler, for one
            continue
        calls[name, format_name] = call
        if competitor.is_ddf:
            # The operator sums half types in float32; what autograd derives from a formula may sum in the dtype itself.
            unit = torch.finfo(accumulate_dtype(own.input.dtype) if name == "ddf" else own.input.dtype).eps
            share = _error(f"{name} ({format_name})", case, results, expected, magnitudes, unit)
            error = max(error, share) if name == "ddf" else error
    del results, expected, magnitudes
    calls = {key: call for key, call in calls.items() if key[0] not in skipped}
    return Result(case, direction, _time(calls, rounds, device), skipped, error)


def _call(competitor: Competitor, tensors: Tensors, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """The results of one pass: the output, and with ``backward`` the gradient of each leaf."""
    if not backward:

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (competitor.forward(tensors),)

        return forward
    leaves = [getattr(tensors, name) for name in competitor.leaves]
    grad_output = _grad_output(competitor.forward(tensors).detach())

    def forward_and_backward() -> tuple[Tensor, ...]:
        output = competitor.forward(tensors)
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return forward_and_backward


def _grad_output(output: Tensor) -> Tensor:
    """The same values for every competitor, in the output's dtype and memory format."""
    values = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return torch.empty_like(output).copy_(values)


# --- correctness first --------------------------------------------------------------------------------------------


def _reference(case: Case, tensors: Tensors, backward: bool) -> tuple[list[Tensor], list[Tensor]]:
    """What the reference gives in double precision, and the same with every term's absolute value."""
    dtype = tensors.input.dtype

    def all_results(absolute: bool) -> list[Tensor]:
        values = [tensor.double().abs() if absolute else tensor.double() for tensor in tensors.filters()]
        leaves = [value.requires_grad_(backward) for value in values]
        output = ddfnet.ddf(*leaves, stride=case.stride, dilation=case.dilation, combine=case.combine)
        if not backward:
            return [output]
        grad_output = _grad_output(output.detach().to(dtype)).double()
        grad_output = grad_output.abs() if absolute else grad_output
        return [output.detach(), *torch.autograd.grad(output, leaves, grad_output)]

    with ddfnet.ops.backend("reference"):
        return all_results(absolute=False), all_results(absolute=True)


def _error(
    name: str,
    case: Case,
    results: Sequence[Tensor],
    expected: Sequence[Tensor],
    magnitudes: Sequence[Tensor],
    unit: float,
) -> float:
    """The largest error as a share of what is tolerated; raises if it is above 1.

    A result is a sum of terms, each rounded a few times and added to the others in any order: it may be off by the
    number of roundings times the unit roundoff times the sum of the terms' absolute values, and by one rounding to its
    dtype. Sums over many pixels are done in parts by whoever does them well, so the number is bounded.
    """
    worst = 0.0
    roundings = 4 * case.kernel_size**2 + 32
    parts = ("output", "gradient of input", "gradient of channel_filter", "gradient of spatial_filter")
    for part, result, value, magnitude in zip(parts, results, expected, magnitudes, strict=False):
        tolerance = roundings * unit * magnitude + torch.finfo(result.dtype).eps * value.abs()
        share = ((result.double() - value).abs() / tolerance.clamp_min(torch.finfo(torch.float64).tiny)).max().item()
        if not share <= 1:  # NaN too
            raise WrongResultError(
                f"{name} does not agree with the float64 reference on {case}: the {part} is off by up to {share:.3g} "
                f"times what rounding explains; nothing is reported"
            )
        worst = max(worst, share)
    return worst


# --- timing -------------------------------------------------------------------------------------------------------


def _time(calls: dict[tuple[str, str], Callable[[], Any]], rounds: int, device: torch.device) -> tuple[Timing, ...]:
    numbers = {key: _repetitions(call, device) for key, call in calls.items()}
    milliseconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for key in order:
            milliseconds[key].append(_milliseconds(calls[key], numbers[key], device))

    def better(name: str) -> list[tuple[str, list[float]]]:
        own = [(format_name, milliseconds[name, format_name]) for format_name in FORMATS]
        return sorted(own, key=lambda item: statistics.median(item[1]))

    baseline = better(BASELINE)[0][1]
    timings = []
    for name in dict.fromkeys(name for name, _ in calls):
        (format_name, own), (_, other) = better(name)
        p20, p80 = torch.tensor(own).quantile(torch.tensor([0.2, 0.8])).tolist()
        ratio = statistics.median(a / b for a, b in zip(own, baseline, strict=True))
        timings.append(
            Timing(name, format_name, statistics.median(own), p20, p80, ratio, other_median=statistics.median(other))
        )
    return tuple(timings)


def _repetitions(call: Callable[[], Any], device: torch.device) -> int:
    for _ in range(2):  # warm up
        call()
    return max(1, round(1e3 * _LEAST_SECONDS / max(_milliseconds(call, 1, device), 1e-3)))


def _milliseconds(call: Callable[[], Any], number: int, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(number):
        call()
    _synchronise(device)
    return (time.perf_counter() - start) / number * 1e3


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# --- what cannot take part ----------------------------------------------------------------------------------------


def _too_large(case: Case, device: torch.device) -> str | None:
    """Why the unfolded windows and weights, which autograd keeps as well, would not fit into memory."""
    n, c, h, w = case.shape
    size = getattr(torch, case.dtype).itemsize
    needed = 6 * n * c * h * w * case.kernel_size**2 * size / case.stride**2
    available = _available_memory(device)
    if available is None or needed < 0.7 * available:
        return None
    return f"would need {needed / 2**30:.0f} GiB of {available / 2**30:.0f} GiB"


def _available_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:  # noqa: PTH123  (a file of the kernel, not of the user)
            found = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(found.split()[1]) * 1024


def _first_line(failure: Exception) -> str:
    return (
        f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}" if str(failure) else type(failure).__name__
    )
