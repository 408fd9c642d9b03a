"""``ddfnet.upsample_depth`` beside OpenCV's joint bilateral and guided filter: what a depth map takes."""

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
_TILE = 256  # pixels, a quarter of the default: shows how the tile bounds the memory, and what that takes
_SMALL_TILES = f"{OURS}-tile{_TILE}"
_METHODS = baselines.METHODS | {_SMALL_TILES: baselines.ddfnet(tile=_TILE)}
NAMES = (OURS, _SMALL_TILES, BASELINE, "joint-bilateral", "bilinear")
# OpenCV's filters, and this package's tool as it is called most, get photographs as files have them: pixel by pixel.
_FORMAT = "channels_last"
_OVERSHOOT = 0.1  # of the samples' range: the guided filter is no average of samples


def run(
    cases: Sequence[DepthCase],
    *,
    rounds: int = 10,
    only: Collection[str] | None = None,
    measure_memory: bool = True,
) -> Iterator[Result]:
    """Check and time each case: the package's own weights, OpenCV's two filters and aligned bilinear, on the CPU.

    Args:
        cases: from `ddfnet.bench.registry`.
        rounds: how often each method is timed.
        only: who takes part besides `upsample_depth` and the guided filter, of `NAMES`; None for all.
        measure_memory: measure what each method adds to its inputs and result, in processes of their own.

    Returns:
        One result a case, as each is done.

    Raises:
        WrongResultError: the depth does not agree with the reference, or that of a method not with its samples.
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
    """One case, without its memory; see `run`."""
    _share_threads()
    inputs = _Inputs.of(case)
    with ddfnet.ops.backend("reference"):
        reference = inputs.call(OURS)()
    # The network is in float32 whatever the depth is, so the reference is too.
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
    """What every method is given."""

    low: LowRes
    guide: Tensor
    factor: int

    @staticmethod
    def of(case: DepthCase) -> _Inputs:
        """A composed scene, whose depth is known at every ``factor``-th pixel."""
        from ddfnet.data.depth.synthetic import ComposedScenes

        scene = ComposedScenes(1, max(case.width, case.height), seed=SEED)[0]
        depth, valid, guide = (scene[name][:, : case.height, : case.width] for name in ("depth", "valid", "guide"))
        guide = guide[None].contiguous(memory_format=torch.channels_last)[0]
        return _Inputs(PAC.lowres(depth[0], valid[0], case.factor), guide, case.factor)

    def call(self, name: str) -> Callable[[], Tensor]:
        depth, valid, offset = self.low
        return lambda: _METHODS[name](depth, valid, self.guide, factor=self.factor, offset=offset)


def _check(name: str, case: DepthCase, result: Tensor, samples: Tensor) -> None:
    """The result is of the photograph's size, finite, and hardly beyond the samples' range."""
    low, high, lowest, highest = (value.item() for depth in (samples, result) for value in depth.aminmax())
    beyond = _OVERSHOOT * (high - low)
    size = (case.height, case.width)
    if not (result.shape == size and low - beyond <= lowest and highest <= high + beyond):  # not so for nan either
        required = f"{size}, from {low:.4g} to {high:.4g} or {_OVERSHOOT:.0%} of that range beyond"
        got = f"{tuple(result.shape)}, from {lowest:.4g} to {highest:.4g}"
        raise WrongResultError(name, case, f"required is a map {required}, got {got}", reference="its samples")


def _share_threads() -> None:
    """OpenCV counts its own threads: as many as PyTorch's, for all methods alike."""
    import cv2

    cv2.setNumThreads(torch.get_num_threads())


# --- memory -------------------------------------------------------------------------------------------------------


def _memory(result: Result) -> tuple[memory.Memory, ...]:
    names = [timing.competitor for timing in result.timings]
    return tuple(memory.measure(name, _FORMAT, prepare_alone, result.case, name) for name in names)


def prepare_alone(case: DepthCase, name: str) -> Callable[[], tuple[Tensor]]:
    """The call of one method, with nothing in the process besides; something small has loaded libraries and weights."""
    _share_threads()
    _Inputs.of(replace(case, width=64, height=64)).call(name)()
    call = _Inputs.of(case).call(name)
    return lambda: (call(),)
