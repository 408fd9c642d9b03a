"""``DDF2d`` as a whole, filter branches and normalisation included, beside the convolutions whose place it takes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ddfnet
from ddfnet.benchmarks.equality import Expected
from ddfnet.benchmarks.registry import DIRECTIONS, SEED, LayerCase
from ddfnet.benchmarks.result import Result
from ddfnet.benchmarks.timing import FORMATS, interleave, timings
from ddfnet.nn import DDF2d

OURS, BASELINE = "ddf", "conv"
NAMES = (OURS, BASELINE, "depthwise")


def run(
    cases: Sequence[LayerCase],
    *,
    rounds: int = 30,
    backward: bool = False,
    only: Collection[str] | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case: ``DDF2d``, a dense and a depthwise 3x3 convolution, in float32.

    Args:
        cases: from `ddfnet.benchmarks.registry`.
        rounds: how often each competitor is timed.
        backward: time the forward and backward pass, to the input and all parameters, as well.
        only: who takes part besides the layer and the dense convolution, of `NAMES`; None for all.
        device: where.

    Returns:
        One result a case and direction, as each is done.

    Raises:
        WrongResultError: the layer does not agree with the reference.

    Example:
        >>> from ddfnet.benchmarks.registry import LAYERS
        >>> [result] = run([LAYERS["tiny"]], rounds=3)
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'conv', 'depthwise']
    """
    for case in cases:
        for direction in DIRECTIONS[: 1 + backward]:
            yield measure(case, direction, rounds=rounds, only=only, device=device)


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        x = torch.randn(case.batch, case.channels, case.size, case.size).to(device)
        layers = {name: layer.to(device).train(backward) for name, layer in _layers(case.channels).items()}
    wanted = NAMES if only is None else {OURS, BASELINE, *only}

    def reference(dtype: torch.dtype) -> Sequence[Tensor]:
        with ddfnet.ops.backend("reference"):
            return _call(copy.deepcopy(layers[OURS]).to(dtype), x.to(dtype), backward)()

    gradients = (f"gradient of {name}" for name in ("input", *dict(layers[OURS].named_parameters())))
    names = ("output", *gradients) if backward else ("output",)
    expected = Expected.by_plain_rounding(case, names, reference)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    error = 0.0
    for (name, layer), (format_name, memory_format) in itertools.product(layers.items(), FORMATS.items()):
        if name not in wanted:
            continue
        own = copy.deepcopy(layer).to(memory_format=memory_format)  # type: ignore[call-overload]
        call = _call(own, x.clone(memory_format=memory_format), backward)
        if name == OURS:
            error = max(error, expected.check(f"{name} ({format_name})", call()))
        calls[name, format_name] = call
    rows = timings(interleave(calls, rounds, device), ours=OURS, baseline=BASELINE)
    return Result(case, direction, OURS, BASELINE, rows, {}, error)


def _layers(channels: int) -> dict[str, nn.Module]:
    """Without bias, as in a ResNet."""
    return {
        OURS: DDF2d(channels),
        BASELINE: nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        "depthwise": nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
    }


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
