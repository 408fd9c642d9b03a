"""Memory of a call, measured in its own process."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from ddfnet.bench import layer, memory, op
from ddfnet.bench.registry import Case, LayerCase

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only")
CASE = Case("map", (1, 64, 64, 64))


@LINUX
def test_memory_beyond_the_results() -> None:
    """Unfolding stores each pixel nine times, and nine times weighted; a depthwise convolution needs almost nothing."""
    size = CASE.shape[1] * CASE.shape[2] * CASE.shape[3] * 4 / memory.MIB
    unfolded = memory.measure("unfold", "contiguous", op.prepare_alone, CASE, "forward", "unfold", "contiguous")
    assert (unfolded.competitor, unfolded.memory_format, unfolded.returned) == ("unfold", "contiguous", size)
    assert 18 * size < unfolded.added < 40 * size
    static = memory.measure("conv", "channels_last", op.prepare_alone, CASE, "forward", "depthwise", "channels_last")
    assert static.added < 4 * size


@LINUX
def test_memory_of_a_layer_beyond_its_parameters() -> None:
    """Filters per pixel and channel and their windows are nine maps each; our filters are a ninth of a map."""
    case, size = LayerCase("map", 64, 64, 1), 64**3 * 4 / memory.MIB
    added = {
        name: memory.measure(name, "contiguous", layer.prepare_alone, case, "forward", name, "contiguous").added
        for name in ("dynamic-depthwise", "ddf")
    }
    assert 18 * size < added["dynamic-depthwise"] < 40 * size
    assert added["ddf"] < 4 * size


@LINUX
def test_the_limit_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    cpu = torch.device("cpu")
    system = tmp_path / "meminfo"
    system.write_text("MemTotal:  9 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(memory, "_SYSTEM", system)
    assert memory.available(cpu) == 2**31
    assert memory.too_large(2**30, cpu) is None
    assert memory.too_large(2**33, cpu) == "would need 8 GiB of 2 GiB"
    system.unlink()
    assert memory.too_large(2**50, cpu) is None, "the system does not say"


@LINUX
def test_a_process_that_ends_is_a_readable_error() -> None:
    with pytest.raises(memory.MemoryUnavailableError, match="the memory of doomed ended early"):
        memory.measure("doomed", "contiguous", os._exit, 1)


@LINUX
def test_a_system_that_does_not_report_memory(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "_RESET", tmp_path / "missing" / "clear_refs")
    with pytest.raises(memory.MemoryUnavailableError, match="cannot reset the peak resident size by .*: No such file"):
        memory._reset_peak()


def test_devices_and_systems_whose_memory_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.can_measure(torch.device("meta")) == (False, "memory is measured on the CPU only, not on meta")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.can_measure(torch.device("cpu"))[0] is False
    with pytest.raises(memory.MemoryUnavailableError, match="on Linux only"):
        next(op.run([CASE], measure_memory=True))
