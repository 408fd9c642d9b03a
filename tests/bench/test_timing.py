"""Rounds, the better memory format, and ratios within a round."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ddfnet.bench import timing


def test_the_better_format_is_taken_and_ratios_are_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up clock that gets slower from round to round, which no ratio may show."""
    speeds = {("ddf", "contiguous"): 3.0, ("ddf", "channels_last"): 2.0}
    speeds |= {("depthwise", "contiguous"): 1.0, ("depthwise", "channels_last"): 4.0}
    calls = {key: lambda key=key: key for key in speeds}
    rounds = dict.fromkeys(speeds, 0)

    def clock(call: object, number: int, device: torch.device) -> float:
        key = call()
        rounds[key] += 1
        return speeds[key] * rounds[key]

    monkeypatch.setattr(timing, "_milliseconds", clock)
    milliseconds = timing.interleave(calls, 5, torch.device("cpu"))
    ddf, depthwise = timing.timings(milliseconds, ours="ddf", baseline="depthwise")
    assert (ddf.memory_format, depthwise.memory_format) == ("channels_last", "contiguous")
    assert (ddf.ratio, depthwise.ratio) == (2, 1)
    assert (ddf.over_ours, depthwise.over_ours) == (1, 0.5)
    assert ddf.median == 2 * 4  # the first call finds the repetitions; rounds 2 to 6 follow
    assert ddf.other_median == 3 * 4
    assert (ddf.p20, ddf.p80) == pytest.approx((2 * 2.8, 2 * 5.2))


def test_a_round_calls_each_once_before_the_next_begins() -> None:
    made: list[str] = []

    def call(name: str) -> None:
        made.append(name)
        torch.ones(200_000).sin_().cos_()

    timing._MIN_SECONDS, before = 0.0, timing._MIN_SECONDS
    try:
        timing.interleave({name: lambda name=name: call(name) for name in "abc"}, 4, torch.device("cpu"))
    finally:
        timing._MIN_SECONDS = before
    rounds = made[-12:]
    assert all(sorted(rounds[i : i + 3]) == ["a", "b", "c"] for i in range(0, 12, 3))
    assert len({tuple(rounds[i : i + 3]) for i in range(0, 12, 3)}) > 1, "each round in its own order"


def test_a_short_call_is_repeated_within_a_round() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    timing.interleave({"short": call}, 1, torch.device("cpu"))
    assert count > 100


def test_a_device_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """From an idle device to the end of the last call; a long call is repeated too."""
    device, seen = torch.device("cuda"), []

    class Event:
        def __init__(self, device: torch.device, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            seen.append(f"record {stream}")

        def synchronize(self) -> None:
            seen.append("wait for event")

        def elapsed_time(self, end: object) -> float:
            assert isinstance(end, Event) and end is not self
            return 3000.0

    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: seen.append("wait for device"))
    times = timing.interleave({"long": lambda: seen.append("call")}, 1, device, warm_up=0)
    record = "record stream of cuda"
    first = ["wait for device", record, "call", record, "wait for event"]
    assert seen == [*first, "wait for device", record, *["call"] * 5, record, "wait for event"]
    assert times == {"long": [3000.0 / 5]}


@pytest.mark.parametrize(("read", "expected"), [(999, 3), (1000, 3), (1001, 2), (2001, 1)])
def test_copies_are_together_larger_than_twice_the_cache(
    read: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    assert timing.num_copies(read, device) == 1, "the CPU needs no copies"
    monkeypatch.setattr(timing, "_cache", lambda device: 1000)
    assert timing.num_copies(read, device) == expected
    assert expected * read > 2 * 1000 >= (expected - 1) * read


def test_the_size_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=50))
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: SimpleNamespace(last_level_cache_size=60))
    sizes = [timing._cache(torch.device(kind)) for kind in ("cuda", "xpu", "mps", "cpu")]
    assert sizes == [50, 60, 0, 0]
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: SimpleNamespace())
    assert timing._cache(torch.device("xpu")) == 0, "an older torch does not tell"
