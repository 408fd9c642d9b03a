"""Benchmark of the operator beside convolutions and beside other computations of the same result."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import ddfnet
from ddfnet.bench import memory
from ddfnet.bench.competitors import OURS, Competitor, Tensors, baseline, competitors
from ddfnet.bench.equality import check_rounding
from ddfnet.bench.limits import Probes
from ddfnet.bench.registry import DIRECTIONS, Case
from ddfnet.bench.result import Result, one_line
from ddfnet.bench.timing import (
    FORMATS,
    Milliseconds,
    interleave,
    make_pass,
    median_ratio,
    random_like,
    rank_formats,
    rotate,
    timings,
)
from ddfnet.ops.geometry import accumulate_dtype

PARTS = ("output", "gradient of input", "gradient of channel_filter", "gradient of spatial_filter")
_FORWARD = f"{OURS} forward"


def run(
    cases: Sequence[Case],
    *,
    rounds: int = 30,
    backward: bool = False,
    only: Collection[str] | None = None,
    measure_memory: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        rounds: the number of timings of each competitor.
        backward: time the forward and backward pass together as well.
        only: see `ddfnet.bench.competitors.competitors`.
        measure_memory: measure the memory that the operator and its baseline need beyond inputs and results as well.
        device: the device that computes.

    Returns:
        One result per case and direction, as each is done.

    Raises:
        WrongResultError: the operator, or a competitor that should compute the same, differs from the reference.
        MemoryUnavailableError: the memory cannot be measured here.

    Example:
        >>> from ddfnet.bench.registry import CASES
        >>> [result] = run([CASES["tiny"]], rounds=3, only=["conv"])
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'depthwise', 'conv']
    """
    if measure_memory:
        memory.require_measurable(torch.device(device))
    for case in cases:
        for direction in DIRECTIONS[: 1 + backward]:
            result = measure(case, direction, rounds=rounds, only=only, device=device)
            yield replace(result, memory=_memory(case, direction)) if measure_memory else result


def measure(
    case: Case,
    direction: str,
    *,
    rounds: int = 30,
    only: Collection[str] | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Check and time one case in one direction; see `run`."""
    device, backward = torch.device(device), direction != DIRECTIONS[0]
    torch.compiler.reset()  # above a limit of shapes that it has seen it would stop compiling without a word
    tensors = Tensors.random(case, device)
    chosen, skipped = competitors(case, only), {}
    if "unfold" in chosen and (too_large := _too_large(case, device)):
        skipped["unfold"] = too_large
        del chosen["unfold"]
    expected, magnitudes = _reference(case, tensors, backward)
    formats = {name: tensors.to(memory_format, requires_grad=backward) for name, memory_format in FORMATS.items()}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    forwards: dict[tuple[str, str], Callable[[], Any]] = {}  # our forward pass, timed beside both passes together
    error = 0.0
    for (name, competitor), (format_name, own) in itertools.product(chosen.items(), formats.items()):
        try:
            copies = own.copies(competitor.leaves)
            call = rotate([_call(competitor, copy, backward) for copy in copies])
            results = call()
        except Exception as failure:
            if name != "compiled":
                raise
            skipped[name] = f"torch.compile failed: {one_line(failure)}"  # such as no C++ compiler
            continue
        calls[name, format_name] = call
        if backward and name == OURS:
            forwards[_FORWARD, format_name] = rotate([_call(competitor, copy, backward=False) for copy in copies])
        if competitor.is_ddf:
            # The operator sums half types in float32; gradients by autograd may be summed in the dtype itself.
            unit = torch.finfo(accumulate_dtype(own.input.dtype) if name == OURS else own.input.dtype).eps
            named = dict(zip(PARTS, results, strict=False))
            share = check_rounding(
                f"{name} ({format_name})", case, named, expected, magnitudes, taps=case.kernel_size**2, unit=unit
            )
            error = max(error, share) if name == OURS else error
    del results, expected, magnitudes
    calls = {key: call for key, call in calls.items() if key[0] not in skipped}

    probes = Probes(case, direction, device)
    milliseconds = interleave(calls | forwards | probes.calls(), rounds, device)
    copied, multiplied = milliseconds.pop(probes.COPY), milliseconds.pop(probes.MATMUL)
    limit = probes.limit(copied, multiplied, rank_formats(milliseconds, OURS)[0][1])
    backward_ratio = _backward_ratio(milliseconds) if backward else None
    rows = timings({key: milliseconds[key] for key in calls}, ours=OURS, baseline=baseline(case))
    return Result(case, direction, OURS, baseline(case), rows, skipped, error, limit, backward_ratio=backward_ratio)


def _backward_ratio(milliseconds: Milliseconds) -> float:
    """Return the time of the backward pass over the forward pass, in the memory format that is faster for both."""
    memory_format, both = rank_formats(milliseconds, OURS)[0]
    forward = milliseconds[_FORWARD, memory_format]
    return median_ratio([total - part for total, part in zip(both, forward, strict=True)], forward)


def _call(competitor: Competitor, tensors: Tensors, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one pass: its results are the output, and with ``backward`` the gradient of each leaf."""
    if competitor.takes_float32:
        tensors = tensors.copied(competitor.leaves, torch.float32)
    leaves = [getattr(tensors, name) for name in competitor.leaves] if backward else None
    return make_pass(lambda: competitor.forward(tensors), leaves, torch.no_grad)


def _reference(case: Case, tensors: Tensors, backward: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the reference results in double precision, and the same with the absolute value of every term."""
    dtype = tensors.input.dtype

    def all_results(absolute: bool) -> dict[str, Tensor]:
        values = [tensor.double().abs() if absolute else tensor.double() for tensor in tensors.filters()]
        leaves = [value.requires_grad_(backward) for value in values]
        output = ddfnet.ddf(*leaves, stride=case.stride, dilation=case.dilation, combine=case.combine)
        if not backward:
            return {PARTS[0]: output}
        grad_output = random_like(output.detach().to(dtype)).double()
        grad_output = grad_output.abs() if absolute else grad_output
        gradients = torch.autograd.grad(output, leaves, grad_output)
        return dict(zip(PARTS, (output.detach(), *gradients), strict=True))

    with ddfnet.ops.backend("reference"):
        return all_results(absolute=False), all_results(absolute=True)


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(case: Case, direction: str) -> tuple[memory.Memory, ...]:
    """Measure the operator and its baseline in both memory formats: a hidden copy would show in one of them only."""
    return tuple(
        memory.measure(name, memory_format, prepare_alone, case, direction, name, memory_format)
        for name, memory_format in itertools.product((OURS, baseline(case)), FORMATS)
    )


def prepare_alone(case: Case, direction: str, name: str, memory_format: str) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one competitor, alone in the process, after a small call that loads the libraries."""
    (_, c, h, w), backward = case.shape, direction != DIRECTIONS[0]

    def call(case: Case) -> Callable[[], tuple[Tensor, ...]]:
        tensors = Tensors.random(case, torch.device("cpu")).to(FORMATS[memory_format], requires_grad=backward)
        return _call(competitors(case, only=[name])[name], tensors, backward)

    call(replace(case, shape=(1, c, min(h, 32), min(w, 32))))()
    return call(case)


def _too_large(case: Case, device: torch.device) -> str | None:
    """Return why the unfolded windows and weights, which autograd keeps as well, would not fit into memory."""
    n, c, h, w = case.shape
    size = getattr(torch, case.dtype).itemsize
    needed = 6 * n * c * h * w * case.kernel_size**2 * size / case.stride**2
    return memory.too_large(needed, device)
