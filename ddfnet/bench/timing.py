"""Timing of calls side by side in one process, round by round.

Each round calls every competitor once in every memory format, in a random order, so that other load on the machine
falls on all alike. A competitor is judged by the better of its two formats, and compared by the median of the ratios
within a round. Calls allocate their results, as they would in a network.

A GPU is timed by its own clock, and its calls rotate through copies of their tensors: tensors that fit into its cache
would else still be there from the call before, which never happens to a layer in a network.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddfnet.bench.registry import SEED

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_MIN_SECONDS = 2e-3  # a shorter call is repeated within a round, and the mean taken
_MIN_CALLS = 5  # per round on a GPU, which waits for the launch of the first call and has the others queued

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Milliseconds = Mapping[tuple[str, str], Sequence[float]]  # (competitor, memory format) -> one time per round


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call over the rounds, in the better memory format, and ratios to other competitors."""

    competitor: str
    memory_format: str
    median: float
    p20: float
    p80: float
    ratio: float  # the median over the rounds of this competitor's time over the baseline's
    over_ours: float  # the same over our time
    other_median: float  # in the other memory format; the same number if there is only one


def interleave(
    calls: Mapping[Key, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    *,
    warm_up: int = 2,
    before: Callable[[], Any] = lambda: None,
) -> dict[Key, list[float]]:
    """Time each call in each round.

    Args:
        calls: the calls, by any key.
        rounds: the number of timings of each call.
        device: the device that does the work.
        warm_up: untimed calls of each before the first round.
        before: an untimed action before each timing.

    Returns:
        ``rounds`` times in milliseconds for each call; times at the same index were taken in the same round.

    Example:
        >>> import torch
        >>> times = interleave({"nothing": lambda: None, "something": lambda: sum(range(9))}, 3, torch.device("cpu"))
        >>> {name: len(own) for name, own in times.items()}
        {'nothing': 3, 'something': 3}
    """
    numbers = {key: _repetitions(call, device, warm_up) for key, call in calls.items()}
    milliseconds: dict[Key, list[float]] = {key: [] for key in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for key in order:
            before()
            milliseconds[key].append(_milliseconds(calls[key], numbers[key], device))
    return milliseconds


def num_copies(read: int, device: torch.device) -> int:
    """Return the number of copies of a call's tensors, ``read`` bytes each, that keep them out of the device's cache.

    Together the copies are larger than twice the cache. On the CPU, and for a cache of unknown size, it is one.

    Example:
        >>> num_copies(100, torch.device("cpu"))
        1
    """
    return 1 + 2 * _cache(device) // read


def rotate(calls: Sequence[Callable[[], T]]) -> Callable[[], T]:
    """Return one call that makes these calls in turn, over and over.

    Example:
        >>> call = rotate([lambda: "a", lambda: "b"])
        >>> call(), call(), call()
        ('a', 'b', 'a')
    """
    cycle = itertools.cycle(calls)
    return lambda: next(cycle)()


def rank_formats(milliseconds: Milliseconds, competitor: str) -> list[tuple[str, Sequence[float]]]:
    """Return the memory formats of a competitor and the times in each, the faster format first."""
    own = [(memory_format, times) for (name, memory_format), times in milliseconds.items() if name == competitor]
    return sorted(own, key=lambda item: statistics.median(item[1]))


def timings(milliseconds: Milliseconds, *, ours: str, baseline: str) -> tuple[Timing, ...]:
    """Return the statistics of every competitor, in the order of their names in ``milliseconds``.

    Args:
        milliseconds: the result of `interleave`, with one or two memory formats per competitor.
        ours, baseline: the competitors that all times are divided by.

    Example:
        >>> times = {("ddf", "contiguous"): [1.0, 2.0], ("ddf", "channels_last"): [3.0, 3.0]}
        >>> [timing] = timings(times, ours="ddf", baseline="ddf")
        >>> timing.memory_format, timing.median, timing.other_median
        ('contiguous', 1.5, 3.0)
    """
    our_times = rank_formats(milliseconds, ours)[0][1]
    baseline_times = rank_formats(milliseconds, baseline)[0][1]
    found = []
    for name in dict.fromkeys(name for name, _ in milliseconds):
        formats = rank_formats(milliseconds, name)
        (memory_format, own), (_, other) = formats[0], formats[-1]
        p20, p80 = torch.tensor(own, dtype=torch.float64).quantile(torch.tensor([0.2, 0.8]).double()).tolist()
        found.append(
            Timing(
                name,
                memory_format,
                statistics.median(own),
                p20,
                p80,
                ratio=median_ratio(own, baseline_times),
                over_ours=median_ratio(own, our_times),
                other_median=statistics.median(other),
            )
        )
    return tuple(found)


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over the rounds of one time over the other.

    Example:
        >>> median_ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0])
        0.5
    """
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def make_pass(
    forward: Callable[[], Tensor], leaves: Sequence[Tensor] | None, no_grad: Callable[[], Any] = torch.inference_mode
) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call of one pass, which returns the output and the gradients.

    Args:
        forward: the computation of the output.
        leaves: tensors whose gradients are computed as well; None for a forward pass alone.
        no_grad: the context of a forward pass alone.
    """
    if leaves is None:

        def forward_only() -> tuple[Tensor, ...]:
            with no_grad():
                return (forward(),)

        return forward_only
    grad_output = random_like(forward().detach())

    def forward_and_backward() -> tuple[Tensor, ...]:
        output = forward()
        return (output, *torch.autograd.grad(output, leaves, grad_output))

    return forward_and_backward


def random_like(output: Tensor) -> Tensor:
    """Return a gradient of an output in its dtype and memory format; the same values for every competitor."""
    values = torch.randn(output.shape, generator=torch.Generator().manual_seed(SEED + 1))
    return torch.empty_like(output).copy_(values)


def _repetitions(call: Callable[[], Any], device: torch.device, warm_up: int) -> int:
    for _ in range(warm_up):
        call()
    least = 1 if device.type == "cpu" else _MIN_CALLS
    return max(least, round(1e3 * _MIN_SECONDS / max(_milliseconds(call, 1, device), 1e-3)))


def _milliseconds(call: Callable[[], Any], number: int, device: torch.device) -> float:
    if device.type == "cpu":
        before = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - before) / number * 1e3
    # The device is idle at first, so its waiting for launches that take longer than the work counts. The way back to
    # this thread does not count.
    stream = torch.accelerator.current_stream(device)
    start, end = (torch.Event(device=device, enable_timing=True) for _ in range(2))
    torch.accelerator.synchronize(device)
    start.record(stream)
    for _ in range(number):
        call()
    end.record(stream)
    end.synchronize()
    return start.elapsed_time(end) / number


def _cache(device: torch.device) -> int:
    """Return the bytes of a GPU's last-level cache; 0 for other devices, or if torch does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    if device.type == "xpu":
        return getattr(torch.xpu.get_device_properties(device), "last_level_cache_size", 0)
    return 0
