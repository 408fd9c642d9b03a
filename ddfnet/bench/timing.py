"""Times calls side by side in one process, round by round.

Every round calls each competitor in each memory format once, in an order of its own, so that whatever else the machine
does falls on all alike. A competitor is judged by the better of its two formats, and compared by the median of the
ratios within a round. What is called allocates its results, as it would in a network.

A device is timed by its own clock, and its calls take turns among copies of their tensors: what fits into its cache
would else be there from the call before, which no layer of a network finds.
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

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_LEAST_SECONDS = 2e-3  # a call that is shorter is repeated within a round, and the mean taken
_LEAST_CALLS = 5  # of a round on a device, which waits for the first to be launched and has the others queued

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Milliseconds = Mapping[tuple[str, str], Sequence[float]]  # (competitor, memory format) -> a call's, one a round


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call over the rounds, in the better memory format, and relative to others."""

    competitor: str
    memory_format: str
    median: float
    p20: float
    p80: float
    ratio: float  # the median over the rounds of this competitor's time over the baseline's
    over_ours: float  # and over that of the competitor that is judged
    other_median: float  # in the other memory format; the same where there is but one


def interleave(
    calls: Mapping[Key, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    *,
    warm_up: int = 2,
    before: Callable[[], Any] = lambda: None,
) -> dict[Key, list[float]]:
    """Milliseconds of each call in each round.

    Args:
        calls: what is timed.
        rounds: how often each is timed.
        device: whose work is waited for.
        warm_up: calls of each before the first that counts.
        before: what is done before each is timed, and is not timed.

    Returns:
        ``rounds`` times for each call, those at the same index taken one after another.

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


def turns(read: int, device: torch.device) -> int:
    """How many copies of the ``read`` bytes of a call let it find none of them in the device's cache.

    Together they are larger than twice the cache. Where it is not known, and on the CPU, one copy is all.

    Example:
        >>> turns(100, torch.device("cpu"))
        1
    """
    return 1 + 2 * _cache(device) // read


def in_turn(calls: Sequence[Callable[[], T]]) -> Callable[[], T]:
    """One call that makes these, one at a time, over and over.

    Example:
        >>> call = in_turn([lambda: "a", lambda: "b"])
        >>> call(), call(), call()
        ('a', 'b', 'a')
    """
    following = itertools.cycle(calls)
    return lambda: next(following)()


def by_format(milliseconds: Milliseconds, competitor: str) -> list[tuple[str, Sequence[float]]]:
    """A competitor's memory formats, the better one first, with the times in each."""
    own = [(memory_format, times) for (name, memory_format), times in milliseconds.items() if name == competitor]
    return sorted(own, key=lambda item: statistics.median(item[1]))


def timings(milliseconds: Milliseconds, *, ours: str, baseline: str) -> tuple[Timing, ...]:
    """Every competitor's statistics, in the order in which they are named.

    Args:
        milliseconds: of `interleave`, each competitor in the same memory formats, one or two.
        ours, baseline: whose times the others are divided by.

    Example:
        >>> times = {("ddf", "contiguous"): [1.0, 2.0], ("ddf", "channels_last"): [3.0, 3.0]}
        >>> [timing] = timings(times, ours="ddf", baseline="ddf")
        >>> timing.memory_format, timing.median, timing.other_median
        ('contiguous', 1.5, 3.0)
    """
    our_times = by_format(milliseconds, ours)[0][1]
    baseline_times = by_format(milliseconds, baseline)[0][1]
    rows = []
    for name in dict.fromkeys(name for name, _ in milliseconds):
        formats = by_format(milliseconds, name)
        (memory_format, own), (_, other) = formats[0], formats[-1]
        p20, p80 = torch.tensor(own, dtype=torch.float64).quantile(torch.tensor([0.2, 0.8]).double()).tolist()
        rows.append(
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
    return tuple(rows)


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over the rounds of one time over the other.

    Example:
        >>> median_ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0])
        0.5
    """
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def _repetitions(call: Callable[[], Any], device: torch.device, warm_up: int) -> int:
    for _ in range(warm_up):
        call()
    least = 1 if device.type == "cpu" else _LEAST_CALLS
    return max(least, round(1e3 * _LEAST_SECONDS / max(_milliseconds(call, 1, device), 1e-3)))


def _milliseconds(call: Callable[[], Any], number: int, device: torch.device) -> float:
    if device.type == "cpu":
        before = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - before) / number * 1e3
    # The device begins idle, so that it waits for launches wherever they take longer than the work; that counts, and
    # the way back to this thread does not.
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
    """Bytes of the last cache before a GPU's memory; 0 where there is none, or it is not told."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    if device.type == "xpu":
        return getattr(torch.xpu.get_device_properties(device), "last_level_cache_size", 0)
    return 0
