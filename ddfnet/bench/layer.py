"""Benchmark of ``DDF2d``, filter branches and normalisation included, beside the convolutions that it replaces.

On request it is timed beside its fused form, its operator alone, and other dynamic filters, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import ddfnet
from ddfnet.bench import memory
from ddfnet.bench.dynamic_filters import (
    SIDE,
    TAPS,
    DepthwiseDynamicFilter,
    DynamicFilter,
    Operator,
    PixelAdaptive,
    TapByTap,
)
from ddfnet.bench.equality import Expected
from ddfnet.bench.registry import DIRECTIONS, SEED, LayerCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import FORMATS, interleave, make_pass, timings
from ddfnet.nn import DDF2d, FusedDDF2d

OURS, BASELINE, FUSED, OPERATOR = "ddf", "conv", "ddf-fused", "operator"
USUAL = (OURS, BASELINE, "depthwise")
NAMES = (*USUAL, FUSED, OPERATOR, "pac", "dynamic-depthwise", "dynamic")


def run(
    cases: Sequence[LayerCase],
    *,
    rounds: int = 30,
    backward: bool = False,
    only: Collection[str] | None = None,
    measure_memory: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case in float32: ``DDF2d``, a dense and a depthwise 3x3 convolution, and others on request.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        rounds: the number of timings of each competitor.
        backward: time the forward and backward pass, to the input and all parameters, as well.
        only: competitors besides the layer and the dense convolution, of `NAMES`; None for `USUAL`, without the
            operator alone and without the other dynamic filters, which are slow and large.
        measure_memory: measure the memory that each competitor needs beyond parameters, input and results as well.
        device: the device that computes.

    Returns:
        One result per case and direction, as each is done.

    Raises:
        WrongResultError: the layer or another dynamic filter differs from the reference.
        MemoryUnavailableError: the memory cannot be measured here.

    Example:
        >>> from ddfnet.bench.registry import LAYERS
        >>> [result] = run([LAYERS["tiny"]], rounds=3)
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'conv', 'depthwise']
    """
    if measure_memory:
        memory.require_measurable(torch.device(device))
    for case in cases:
        for direction in DIRECTIONS[: 1 + backward]:
            result = measure(case, direction, rounds=rounds, only=only, device=device)
            yield replace(result, memory=_memory(result)) if measure_memory else result


def measure(
    case: LayerCase,
    direction: str,
    *,
    rounds: int = 30,
    only: Collection[str] | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Check and time one case in one direction; see `run`."""
    device, backward = torch.device(device), direction != DIRECTIONS[0]
    wanted = set(USUAL if only is None else (OURS, BASELINE, *only))
    if backward:
        wanted.discard(FUSED)  # it is for inference only
    skipped = {name: why for name in NAMES if name in wanted and (why := _too_large(name, case, device))}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    error = 0.0
    for name in NAMES:
        if name not in wanted or name in skipped:
            continue
        layer, x = _build(case, name)
        layer, x = layer.to(device).train(backward), x.to(device)
        expected = None if isinstance(layer, nn.Conv2d) else _expected(case, name, layer, x, backward)
        for format_name, memory_format in FORMATS.items():
            call = _call(*_formatted(name, layer, x, memory_format), backward)
            if expected is not None:
                share = expected.check(f"{name} ({format_name})", call())
                error = max(error, share) if name == OURS else error
            calls[name, format_name] = call
    rows = timings(interleave(calls, rounds, device), ours=OURS, baseline=BASELINE)
    return Result(case, direction, OURS, BASELINE, rows, skipped, error)


# --- competitors --------------------------------------------------------------------------------------------------


def make(name: str, channels: int) -> nn.Module:
    """Return a competitor of `NAMES`, without bias if it is optional, as in a ResNet.

    For the operator and for the fused form it is our layer, which they are made of.
    """
    if name == BASELINE:
        return nn.Conv2d(channels, channels, SIDE, padding=SIDE // 2, bias=False)
    if name == "depthwise":
        return nn.Conv2d(channels, channels, SIDE, padding=SIDE // 2, groups=channels, bias=False)
    dynamic = {"pac": PixelAdaptive, "dynamic-depthwise": DepthwiseDynamicFilter, "dynamic": DynamicFilter}
    return dynamic[name](channels) if name in dynamic else DDF2d(channels)


def _build(case: LayerCase, name: str) -> tuple[nn.Module, Tensor]:
    """Return a competitor and its input, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        x = torch.randn(case.shape)
        return make(name, case.channels), x


def _formatted(name: str, layer: nn.Module, x: Tensor, memory_format: torch.memory_format) -> tuple[nn.Module, Tensor]:
    """Return copies in a memory format. The operator's filters have the format in which the branches make them."""
    own: Any = copy.deepcopy(layer).to(memory_format=memory_format)  # type: ignore[call-overload]
    x = x.clone(memory_format=memory_format)
    if name == OPERATOR:
        own = Operator(own, x)
    elif name == FUSED:
        own = FusedDDF2d(own)
    return own, x


def _expected(case: LayerCase, name: str, layer: nn.Module, x: Tensor, backward: bool) -> Expected:
    """Return the expected results: of our layer and operator by the reference, of other dynamic filters tap by tap."""

    def reference(dtype: torch.dtype) -> Sequence[Tensor]:
        with ddfnet.ops.backend("reference"):
            own, input = copy.deepcopy(layer).to(dtype), x.to(dtype)
            if name == OPERATOR:
                own = Operator(own, input)
            return _call(own if name in (OURS, FUSED, OPERATOR) else TapByTap(own), input, backward)()

    leaves = ("channel_filter", "spatial_filter") if name == OPERATOR else dict(layer.named_parameters())
    gradients = (f"gradient of {leaf}" for leaf in ("input", *leaves))
    return Expected.from_rounding(case, ("output", *gradients) if backward else ("output",), reference)


def _call(layer: nn.Module, x: Tensor, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one pass, with ``backward`` to the input and all parameters."""
    return make_pass(lambda: layer(x), [x.requires_grad_(), *layer.parameters()] if backward else None)


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(result: Result) -> tuple[memory.Memory, ...]:
    """Measure each competitor in the memory format of its time."""
    return tuple(
        memory.measure(
            timing.competitor,
            timing.memory_format,
            prepare_alone,
            result.case,
            result.direction,
            timing.competitor,
            timing.memory_format,
        )
        for timing in result.timings
    )


def prepare_alone(case: LayerCase, direction: str, name: str, memory_format: str) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one competitor, alone in the process, after a small call that loads the libraries."""

    def call(case: LayerCase) -> Callable[[], tuple[Tensor, ...]]:
        layer, x = _build(case, name)
        backward = direction != DIRECTIONS[0]
        return _call(*_formatted(name, layer.train(backward), x, FORMATS[memory_format]), backward)

    call(replace(case, size=min(case.size, 32), batch=1, columns=None))()
    return call(case)


def _too_large(name: str, case: LayerCase, device: torch.device) -> str | None:
    """Return why a dynamic filter would not fit into memory: the numbers stored per pixel and the parameters."""
    n, c, h, w = case.shape
    stored = {"pac": c * TAPS, "dynamic-depthwise": c * TAPS, "dynamic": c * c * TAPS}
    if name not in stored:
        return None
    # Autograd keeps filters and weighted windows; parameters exist in two memory formats and in double precision.
    parameters = c * stored[name]
    return memory.too_large(4 * (3 * stored[name] * n * h * w + 6 * parameters), device)
