"""Times calls side by side in one process, round by round.

Every round calls each competitor in each memory format once, in an order of its own, so that whatever else the machine
does falls on all alike. A competitor is judged by the better of its two formats, and compared by the median of the
ratios within a round. What is called allocates its results, as it would in a network.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_LEAST_SECONDS = 2e-3  # a call that is shorter is repeated within a round, and the mean taken

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
    calls: Mapping[Key, Callable[[], Any]], rounds: int, device: torch.device, *, warm_up: int = 2
) -> dict[Key, list[float]]:
    """Milliseconds of each call in each round.

    Args:
        calls: what is timed.
        rounds: how often each is timed.
        device: whose work is waited for.
        warm_up: calls of each before the first that counts.

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
            milliseconds[key].append(_milliseconds(calls[key], numbers[key], device))
    return milliseconds


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
    return max(1, round(1e3 * _LEAST_SECONDS / max(_milliseconds(call, 1, device), 1e-3)))


def _milliseconds(call: Callable[[], Any], number: int, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(number):
        call()
    _synchronise(device)
    return (time.perf_counter() - start) / number * 1e3


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
