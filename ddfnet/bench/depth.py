"""Benchmark of ``ddfnet.upsample_depth`` beside OpenCV's joint bilateral and guided filters: time and memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

import ddfnet
from ddfnet.bench import memory
from ddfnet.bench.equality import Expected, WrongResultError
from ddfnet.bench.registry import INFERENCE, SEED, DepthCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import interleave, timings
from ddfnet.data.depth.protocols import PAC, LowRes
from ddfnet.tasks.depth import baselines

OURS, BASELINE = "ddfnet", "guided-filter"
_TILE = 256  # pixels, a third of the default: shows that the tile bounds the memory, and the time for it
_SMALL_TILES = f"{OURS}-tile{_TILE}"
_FAST = f"{OURS}-fast"
_METHODS = baselines.METHODS | {_FAST: baselines.ddfnet(quality="fast"), _SMALL_TILES: baselines.ddfnet(tile=_TILE)}
NAMES = (OURS, _FAST, _SMALL_TILES, BASELINE, "joint-bilateral", "bilinear")
# OpenCV's filters take images as files have them, channel by channel within a pixel, and so do most calls of our tool.
_FORMAT = "channels_last"
_OVERSHOOT = 0.1  # tolerated beyond the samples' range, as a share of it: the guided filter does not average samples


def run(
    cases: Sequence[DepthCase],
    *,
    rounds: int = 10,
    only: Collection[str] | None = None,
    measure_memory: bool = True,
) -> Iterator[Result]:
    """Check and time each case: the package's own weights, OpenCV's two filters and aligned bilinear, on the CPU.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        rounds: the number of timings of each method.
        only: methods besides `upsample_depth` and the guided filter, of `NAMES`; None for all.
        measure_memory: measure the memory that each method needs beyond inputs and result, each in its own process.

    Returns:
        One result per case, as each is done.

    Raises:
        WrongResultError: the depth differs from the reference, or the depth of a method from its samples.
        MemoryUnavailableError: the memory cannot be measured here.

    Example:
        >>> from ddfnet.bench.registry import DEPTHS
        >>> [result] = run([DEPTHS["tiny"]], rounds=1, only=["bilinear"], measure_memory=False)
        >>> [timing.competitor for timing in result.timings]
        ['ddfnet', 'guided-filter', 'bilinear']
    """
    for case in cases:
        result = measure(case, rounds=rounds, only=only)
        if measure_memory:
            possible, why = memory.can_measure(torch.device("cpu"))
            result = replace(result, memory=_memory(result)) if possible else replace(result, skipped={"memory": why})
        yield result


def measure(case: DepthCase, *, rounds: int = 10, only: Collection[str] | None = None) -> Result:
    """Check and time one case, without its memory; see `run`."""
    _share_threads()
    inputs = _Inputs.for_case(case)
    with ddfnet.ops.backend("reference"):
        reference = inputs.call(OURS)()
    # The network computes in float32 for every dtype of the depth, so the reference does too.
    expected = Expected(case, ("depth",), (reference,), 1e-5, "what rounding explains", "the reference operator")
    calls, error = {}, 0.0
    for name in NAMES:
        if only is not None and name not in {OURS, BASELINE, *only}:
            continue
        call = inputs.call(name)
        result = call()
        _check(name, case, result, inputs.low.depth)
        if name in (OURS, _SMALL_TILES):
            error = max(error, expected.check(name, (result,)))
        calls[name, _FORMAT] = call
    rows = timings(interleave(calls, rounds, torch.device("cpu"), warm_up=1), ours=OURS, baseline=BASELINE)
    return Result(case, INFERENCE, OURS, BASELINE, rows, {}, error)


class _Inputs(NamedTuple):
    """Inputs of every method."""

    low: LowRes
    guide: Tensor
    factor: int

    @staticmethod
    def for_case(case: DepthCase) -> _Inputs:
        """Return a synthetic scene with known depth at every ``factor``-th pixel."""
        from ddfnet.data.depth.synthetic import ComposedScenes

        scene = ComposedScenes(1, max(case.width, case.height), seed=SEED)[0]
        depth, valid, guide = (scene[name][:, : case.height, : case.width] for name in ("depth", "valid", "guide"))
        guide = guide[None].contiguous(memory_format=torch.channels_last)[0]
        return _Inputs(PAC.lowres(depth[0], valid[0], case.factor), guide, case.factor)

    def call(self, name: str) -> Callable[[], Tensor]:
        depth, valid, offset = self.low
        return lambda: _METHODS[name](depth, valid, self.guide, factor=self.factor, offset=offset)


def _check(name: str, case: DepthCase, result: Tensor, samples: Tensor) -> None:
    """Check that the result has the size of the guide image, is finite, and hardly leaves the range of the samples."""
    low, high, lowest, highest = (value.item() for depth in (samples, result) for value in depth.aminmax())
    beyond = _OVERSHOOT * (high - low)
    size = (case.height, case.width)
    if not (result.shape == size and low - beyond <= lowest and highest <= high + beyond):  # false for nan too
        required = f"{size}, from {low:.4g} to {high:.4g} or {_OVERSHOOT:.0%} of that range beyond"
        got = f"{tuple(result.shape)}, from {lowest:.4g} to {highest:.4g}"
        raise WrongResultError(name, case, f"required is a map {required}, got {got}", reference="its samples")


def _share_threads() -> None:
    """Give OpenCV, which counts its own threads, as many as PyTorch has."""
    import cv2

    cv2.setNumThreads(torch.get_num_threads())


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(result: Result) -> tuple[memory.Memory, ...]:
    names = [timing.competitor for timing in result.timings]
    return tuple(memory.measure(name, _FORMAT, prepare_alone, result.case, name) for name in names)


def prepare_alone(case: DepthCase, name: str) -> Callable[[], tuple[Tensor]]:
    """Return the call of one method, alone in the process, after a small call that loads libraries and weights."""
    _share_threads()
    _Inputs.for_case(replace(case, width=64, height=64)).call(name)()
    call = _Inputs.for_case(case).call(name)
    return lambda: (call(),)
