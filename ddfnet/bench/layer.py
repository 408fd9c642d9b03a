"""``DDF2d`` as a whole, filter branches and normalisation included, beside the convolutions whose place it takes.

On request also beside its operator alone, and beside other dynamic filters.
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
from ddfnet.bench.equality import Expected
from ddfnet.bench.neighbours import SIDE, TAPS, ByTaps, DepthwiseDynamicFilter, DynamicFilter, Operator, PixelAdaptive
from ddfnet.bench.registry import DIRECTIONS, SEED, LayerCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import FORMATS, interleave, timings
from ddfnet.nn import DDF2d

OURS, BASELINE, OPERATOR = "ddf", "conv", "operator"
USUAL = (OURS, BASELINE, "depthwise")
NAMES = (*USUAL, OPERATOR, "pac", "dynamic-depthwise", "dynamic")


def run(
    cases: Sequence[LayerCase],
    *,
    rounds: int = 30,
    backward: bool = False,
    only: Collection[str] | None = None,
    measure_memory: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case: ``DDF2d``, a dense and a depthwise 3x3 convolution, and what else is named, in float32.

    Args:
        cases: from `ddfnet.bench.registry`.
        rounds: how often each competitor is timed.
        backward: time the forward and backward pass, to the input and all parameters, as well.
        only: who takes part besides the layer and the dense convolution, of `NAMES`; None for `USUAL`: the operator
            alone, and other dynamic filters, which are slow and large, are there for who names them.
        measure_memory: measure what each competitor adds to its parameters, input and results as well.
        device: where.

    Returns:
        One result a case and direction, as each is done.

    Raises:
        WrongResultError: the layer, or another dynamic filter, does not agree with the reference.
        MemoryUnavailableError: the memory cannot be measured here.

    Example:
        >>> from ddfnet.bench.registry import LAYERS
        >>> [result] = run([LAYERS["tiny"]], rounds=3)
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'conv', 'depthwise']
    """
    possible, why = memory.can_measure(torch.device(device))
    if measure_memory and not possible:
        raise memory.MemoryUnavailableError(why)
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
    """One case in one direction; see `run`."""
    device, backward = torch.device(device), direction != DIRECTIONS[0]
    wanted = USUAL if only is None else {OURS, BASELINE, *only}
    skipped = {name: why for name in NAMES if name in wanted and (why := _too_large(name, case, device))}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    error = 0.0
    for name in NAMES:
        if name not in wanted or name in skipped:
            continue
        layer, x = _given(case, name)
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


# --- who takes part -----------------------------------------------------------------------------------------------


def make(name: str, channels: int) -> nn.Module:
    """A competitor, of `NAMES`, without bias where it has the choice, as in a ResNet.

    The operator is that of our layer, and comes with it.
    """
    if name == BASELINE:
        return nn.Conv2d(channels, channels, SIDE, padding=SIDE // 2, bias=False)
    if name == "depthwise":
        return nn.Conv2d(channels, channels, SIDE, padding=SIDE // 2, groups=channels, bias=False)
    dynamic = {"pac": PixelAdaptive, "dynamic-depthwise": DepthwiseDynamicFilter, "dynamic": DynamicFilter}
    return dynamic[name](channels) if name in dynamic else DDF2d(channels)


def _given(case: LayerCase, name: str) -> tuple[nn.Module, Tensor]:
    """A competitor and its input, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        x = torch.randn(case.shape)
        return make(name, case.channels), x


def _formatted(name: str, layer: nn.Module, x: Tensor, memory_format: torch.memory_format) -> tuple[nn.Module, Tensor]:
    """Copies in a memory format. The operator's filters are in that in which the layer's branches give them."""
    own = copy.deepcopy(layer).to(memory_format=memory_format)  # type: ignore[call-overload]
    x = x.clone(memory_format=memory_format)
    return (Operator(own, x) if name == OPERATOR else own), x


def _expected(case: LayerCase, name: str, layer: nn.Module, x: Tensor, backward: bool) -> Expected:
    """What our layer and operator give by the reference, and the other dynamic filters tap by tap."""

    def reference(dtype: torch.dtype) -> Sequence[Tensor]:
        with ddfnet.ops.backend("reference"):
            own, input = copy.deepcopy(layer).to(dtype), x.to(dtype)
            if name == OPERATOR:
                own = Operator(own, input)
            return _call(own if name in (OURS, OPERATOR) else ByTaps(own), input, backward)()

    leaves = ("channel_filter", "spatial_filter") if name == OPERATOR else dict(layer.named_parameters())
    gradients = (f"gradient of {leaf}" for leaf in ("input", *leaves))
    return Expected.by_plain_rounding(case, ("output", *gradients) if backward else ("output",), reference)


def _call(layer: nn.Module, x: Tensor, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """The results of one pass: the output, and with ``backward`` the gradients of the input and all parameters."""
    if not backward:

        def forward() -> tuple[Tensor, ...]:
            with torch.inference_mode():
                return (layer(x),)

        return forward
    leaves = [x.requires_grad_(), *layer.parameters()]
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED + 1))
    grad_output = torch.empty_like(x, requires_grad=False).copy_(values)  # the output has the input's shape and format

    def forward_and_backward() -> tuple[Tensor, ...]:
        output = layer(x)
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return forward_and_backward


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(result: Result) -> tuple[memory.Memory, ...]:
    """Of each competitor, in the memory format that its time is of."""
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
    """The call of one competitor, with nothing in the process besides; something small has loaded the libraries."""

    def call(case: LayerCase) -> Callable[[], tuple[Tensor, ...]]:
        layer, x = _given(case, name)
        backward = direction != DIRECTIONS[0]
        return _call(*_formatted(name, layer.train(backward), x, FORMATS[memory_format]), backward)

    call(replace(case, size=min(case.size, 32), batch=1, columns=None))()
    return call(case)


def _too_large(name: str, case: LayerCase, device: torch.device) -> str | None:
    """Why a dynamic filter would not fit into memory: what it stores a pixel, and its parameters."""
    n, c, h, w = case.shape
    stored = {"pac": c * TAPS, "dynamic-depthwise": c * TAPS, "dynamic": c * c * TAPS}
    if name not in stored:
        return None
    # Filters and weighted windows, which autograd keeps; the parameters in two memory formats and in double precision.
    parameters = c * stored[name]
    return memory.too_large(4 * (3 * stored[name] * n * h * w + 6 * parameters), device)
