"""Benchmark of ``ddf_mul_resnet50`` beside the ResNet-50 that it replaces, both from timm: inference and training."""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse as fuse_batch_norm

import ddfnet
from ddfnet.bench import memory
from ddfnet.bench.equality import Expected
from ddfnet.bench.registry import COMPILED, INFERENCE, SEED, TRAINING, NetworkCase
from ddfnet.bench.result import Result, one_line
from ddfnet.bench.timing import FORMATS, interleave, timings

OURS, BASELINE = "ddf", "resnet"
# For inference both are timed with folded batch norms as well: ours by `ddfnet.surgery.fuse`, the other by PyTorch's
# own tool. The ratio that counts is that of the two unfolded ones.
FUSED = {OURS: "ddf-fused", BASELINE: "resnet-fused"}
NAMES = (OURS, BASELINE, *FUSED.values())


class CompileFailedError(RuntimeError):
    """A failure of torch.compile on this machine."""


def run(
    cases: Sequence[NetworkCase],
    directions: Sequence[str] = (INFERENCE,),
    *,
    rounds: int = 30,
    only: Collection[str] | None = None,
    measure_memory: bool = True,
    device: str | torch.device = "cpu",
) -> Iterator[Result]:
    """Check and time each case, in float32.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        directions: ``INFERENCE``, ``COMPILED`` and ``TRAINING`` of `ddfnet.bench.registry`.
        rounds: the number of timings of each competitor.
        only: competitors besides the network and its baseline, of `NAMES`; None for all.
        measure_memory: measure the peak memory of training steps, each in its own process.
        device: the device that computes.

    Returns:
        One result per case and direction, as each is done.

    Raises:
        WrongResultError: the network differs from the reference.
        CompileFailedError: torch.compile does not work here.
        MemoryUnavailableError: the memory cannot be measured here.

    Example:
        >>> from ddfnet.bench.registry import NETWORKS
        >>> [result] = run([NETWORKS["tiny"]], rounds=1, only=[])
        >>> [timing.competitor for timing in result.timings]
        ['ddf', 'resnet']
    """
    for case in cases:
        for direction in directions:
            result = measure(case, direction, rounds=rounds, only=only, device=device)
            if direction == TRAINING and measure_memory:
                possible, why = memory.can_measure(torch.device(device))
                result = replace(result, memory=_memory(case)) if possible else replace(result, skipped={"memory": why})
            yield result


def measure(
    case: NetworkCase,
    direction: str,
    *,
    rounds: int = 30,
    only: Collection[str] | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Check and time one case in one direction; see `run`."""
    device, training = torch.device(device), direction == TRAINING
    torch.compiler.reset()  # above a limit of graphs that it has compiled it would stop compiling
    images, labels = (tensor.to(device) for tensor in _batch(case))
    networks = {name: network.to(device).train(training) for name, network in _networks(case).items()}

    def reference(dtype: torch.dtype) -> Sequence[Tensor]:
        with ddfnet.ops.backend("reference"):
            return _scores(copy.deepcopy(networks[OURS]).to(dtype), images.to(dtype))

    expected = Expected.from_rounding(case, ("output",), reference)
    makers, skipped = _makers(networks, direction, only)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    error = _gradient_error(case, networks[OURS], images, labels) if training else 0.0
    for (name, make), (format_name, memory_format) in itertools.product(makers.items(), FORMATS.items()):
        own, batch = make(memory_format), images.clone(memory_format=memory_format)
        try:
            results = _scores(own, batch)
        except Exception as failure:
            if direction != COMPILED:
                raise
            raise CompileFailedError(f"torch.compile failed for {name} on {case}: {one_line(failure)}") from failure
        if name in (OURS, FUSED[OURS]):
            share = expected.check(f"{name} ({format_name})", results)
            error = max(error, share) if name == OURS else error
        calls[name, format_name] = _step(own, batch, labels) if training else partial(_scores, own, batch)
    rows = timings(interleave(calls, rounds, device), ours=OURS, baseline=BASELINE)
    return Result(case, direction, OURS, BASELINE, rows, skipped, error)


def _gradient_error(case: NetworkCase, network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the largest error of all gradients in both memory formats, as a share of the tolerance."""

    def gradients(memory_format: torch.memory_format) -> Sequence[Tensor]:
        own = copy.deepcopy(network).double().to(memory_format=memory_format)  # type: ignore[call-overload]
        loss = F.cross_entropy(own(images.double().contiguous(memory_format=memory_format)), labels)
        return torch.autograd.grad(loss, list(own.parameters()))

    names = [f"gradient of {name}" for name, _ in network.named_parameters()]
    with ddfnet.ops.backend("reference"):
        expected = Expected.float64(case, names, gradients(torch.contiguous_format))
    return max(expected.check(f"{OURS} ({name})", gradients(memory_format)) for name, memory_format in FORMATS.items())


# --- competitors --------------------------------------------------------------------------------------------------


def _batch(case: NetworkCase) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(case.batch, 3, case.size, case.size, generator=generator)
    return images, torch.randint(1000, (case.batch,), generator=generator)


def _networks(case: NetworkCase) -> dict[str, nn.Module]:
    return {OURS: random_network(case.model), BASELINE: random_network(case.baseline)}


def random_network(name: str) -> nn.Module:
    """Return a network of timm with the same random weights every time, and none of its normalisations at zero."""
    import timm

    import ddfnet.models  # noqa: F401  (registers them)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network: nn.Module = timm.create_model(name)
        for module in network.modules():
            if isinstance(
                module, nn.BatchNorm2d
            ):  # timm starts some at 0, which would hide their blocks from the check
                nn.init.uniform_(module.weight, 0.5, 1.0)
    return network


def _makers(
    networks: dict[str, nn.Module], direction: str, only: Collection[str] | None
) -> tuple[dict[str, Callable[[torch.memory_format], nn.Module]], dict[str, str]]:
    """Return a function per competitor that makes it in a memory format, and the reasons why others are left out."""

    def plain(name: str) -> Callable[[torch.memory_format], nn.Module]:
        return lambda memory_format: copy.deepcopy(networks[name]).to(memory_format=memory_format)  # type: ignore[call-overload]

    makers, skipped = {name: plain(name) for name in (OURS, BASELINE)}, {}
    for name, fused in FUSED.items():
        if direction == TRAINING or (only is not None and fused not in only):
            continue
        if name == OURS and find_spec("ddfnet.surgery") is None:
            skipped[fused] = "this version has no ddfnet.surgery"
            continue
        fuse = importlib.import_module("ddfnet.surgery").fuse if name == OURS else fuse_batch_norm
        makers[fused] = lambda memory_format, fuse=fuse, give=makers[name]: fuse(give(memory_format))  # type: ignore[misc]
    if direction == COMPILED:
        makers = {
            name: lambda memory_format, give=give: torch.compile(give(memory_format), dynamic=False)  # type: ignore[misc]
            for name, give in makers.items()
        }
    return makers, skipped


# --- timed calls --------------------------------------------------------------------------------------------------


def _scores(network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return (network(images),)


def _step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step with SGD and momentum. Its learning rate is small, because it repeats one batch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(case: NetworkCase) -> tuple[memory.Memory, ...]:
    return tuple(
        memory.measure(name, memory_format, prepare_alone, case, name, memory_format)
        for name, memory_format in itertools.product((OURS, BASELINE), FORMATS)
    )


def prepare_alone(case: NetworkCase, name: str, memory_format: str) -> Callable[[], tuple[Tensor, ...]]:
    """Return two training steps of one network, alone in the process: the second has gradients and momenta, like all
    later ones."""
    images, labels = _batch(case)
    images = images.contiguous(memory_format=FORMATS[memory_format])
    network = random_network(case.model if name == OURS else case.baseline).to(memory_format=FORMATS[memory_format])  # type: ignore[call-overload]
    _scores(network.eval(), images[:1, :, :32, :32])  # loads the libraries
    step = _step(network.train(), images, labels)

    def two_steps() -> tuple[Tensor, ...]:
        step()
        step()
        return ()

    return two_steps
