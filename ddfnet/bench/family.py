"""Benchmark of the operators of `ddfnet.family` beside their common form without a kernel, with ``F.unfold``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ddfnet import family
from ddfnet.bench import memory, unfolded
from ddfnet.bench.equality import Expected
from ddfnet.bench.registry import DIRECTIONS, SEED, FamilyCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import interleave, make_pass, timings

OURS, BASELINE = "ddfnet", "unfold"
NAMES = (OURS, BASELINE)
_FORMAT = "contiguous"  # as ``F.unfold`` takes and returns maps


def run(
    cases: Sequence[FamilyCase],
    *,
    rounds: int = 30,
    backward: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case: our operator and its unfold form, in float32.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        rounds: the number of timings of each.
        backward: time the forward and backward pass, to all tensors, as well.
        device: the device that computes.

    Returns:
        One result per case and direction, as each is done.

    Raises:
        WrongResultError: the two differ.
        MemoryUnavailableError: the unfold form does not fit into memory.

    Example:
        >>> from ddfnet.bench.registry import FAMILY_GROUPS
        >>> [result] = run(FAMILY_GROUPS["tiny"][:1], rounds=1)
        >>> result.case.operator, [timing.competitor for timing in result.timings]
        ('carafe', ['ddfnet', 'unfold'])
    """
    for case in cases:
        for direction in DIRECTIONS[: 1 + backward]:
            yield measure(case, direction, rounds=rounds, device=device)


def measure(
    case: FamilyCase,
    direction: str,
    *,
    rounds: int = 30,
    device: str | torch.device = "cpu",
) -> Result:
    """Check and time one case in one direction; see `run`."""
    device, backward = torch.device(device), direction != DIRECTIONS[0]
    arguments = _arguments(case)
    if why := memory.too_large(_needed(case, backward), device):
        raise memory.MemoryUnavailableError(f"{case} {why}")
    forms = {OURS: getattr(family, case.operator), BASELINE: getattr(unfolded, case.operator)}

    tensors = [tensor.to(device) for tensor in arguments.tensors]
    calls = {(name, _FORMAT): _call(forms[name], tensors, arguments.options, backward) for name in NAMES}
    error = _expected(case, calls[BASELINE, _FORMAT]()).check(OURS, calls[OURS, _FORMAT]())
    rows = timings(interleave(calls, rounds, device), ours=OURS, baseline=BASELINE)
    return Result(case, direction, OURS, BASELINE, rows, {}, error)


@dataclass(frozen=True)
class _Arguments:
    tensors: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _arguments(case: FamilyCase) -> _Arguments:
    """Return the arguments of the operator: kernels and groups as in its paper, and a guide of three channels."""
    (n, c, h, w), k = case.shape, case.kernel_size
    generator = torch.Generator().manual_seed(SEED)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = randn(n, c, h, w)
    match case.operator:
        case "carafe":
            masks = randn(n, k * k, 2 * h, 2 * w).softmax(1)
            return _Arguments((x, masks), {"kernel_size": k, "group_size": 1, "scale_factor": 2})
        case "involution":
            return _Arguments((x, randn(n, c // case.group_channels * k * k, h, w)), {"kernel_size": k})
        case "adaptive_conv":
            return _Arguments((x, randn(n, h - k + 1, w - k + 1, k, k)))
        case "joint_bilateral":
            return _Arguments((x, randn(n, 3, h, w)), {"kernel_size": k, "sigma_space": 2.0, "sigma_range": 1.0})
        case "pac":
            return _Arguments((x, randn(n, 3, h, w), randn(c, 1, k, k)))
        case "pac_transpose":
            options = {"stride": 2, "padding": k // 2, "output_padding": 1}
            return _Arguments((x, randn(n, 3, 2 * h, 2 * w), randn(c, 1, k, k)), options)
        case "kernel_prediction":
            frames = x.unflatten(1, (case.frames, -1))
            return _Arguments((frames, randn(n, case.frames, k * k, h, w)), {"kernel_size": k})
        case "dynamic_depthwise":
            return _Arguments((x, randn(n, c, k, k)))
        case "local_mean":
            return _Arguments((x,), {"kernel_size": k, "stride": 2})
        case "local_softmax":
            return _Arguments((x, randn(n, c, h, w)), {"kernel_size": k, "stride": 2})
    raise ValueError(f"no arguments are known for {case.operator!r}")


def _call(
    form: Callable[..., Tensor], tensors: Sequence[Tensor], options: dict[str, Any], backward: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one pass, with ``backward`` to all tensors."""
    leaves = [tensor.requires_grad_() for tensor in tensors] if backward else None
    return make_pass(lambda: form(*tensors, **options), leaves)


def _expected(case: FamilyCase, results: Sequence[Tensor]) -> Expected:
    """Return the results of the unfold form, in float32, for it would not fit in double precision."""
    names = ["output", *(f"gradient of argument {number}" for number in range(1, len(results)))]
    return Expected(case, names, results, 1e-4, "what rounding in float32 explains", reference="the unfold form")


def _needed(case: FamilyCase, backward: bool) -> int:
    """Return the bytes of the unfold form: windows and two products of them, and their gradients."""
    n, c, h, w = case.shape
    larger = 4 if case.operator in ("carafe", "pac_transpose") else 1
    return 4 * n * c * h * w * larger * case.kernel_size**2 * (6 if backward else 3)
