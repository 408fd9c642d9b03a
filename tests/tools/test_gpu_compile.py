"""Compilation for GPUs that are not present, and the figures read off the compiled code."""

from __future__ import annotations

import pytest
import torch
from gpu_compile import GPUS, compile_case
from gpu_traffic import Workload, resident, time, traffic

SIZE = (2, 256, 28, 28)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=["last", "planar"])
@pytest.mark.parametrize("name", GPUS)
def test_the_three_kernels_compile(name: str, memory_format: torch.memory_format) -> None:
    found = compile_case(GPUS[name], SIZE, 3, torch.float32, memory_format)
    wide = memory_format == torch.channels_last
    filters = "ddf_bwd_filters_kernel" if wide else "ddf_bwd_filters_planar_kernel"
    assert [compiled.kernel for compiled in found] == ["ddf_fwd_kernel", "ddf_bwd_input_kernel", filters]
    if not wide:
        assert found[2].spills == 0
    for compiled in found[:2]:
        assert 0 < compiled.registers <= 255
        assert compiled.spills == 0
        assert compiled.shared == 0  # nothing is exchanged between the layouts of loads and stores
    assert all(("load 128" in compiled.widths and "store 128" in compiled.widths) == wide for compiled in found[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_is_memory_bound_and_near_its_least_bytes(dtype: torch.dtype) -> None:
    """At the paper's table 2, channels_last: the case that the design is for."""
    size, gpu = (2, 256, 200, 300), GPUS["H100"]
    work = Workload(*size, 3, dtype.itemsize, channels_last=True)
    forward = compile_case(gpu, size, 3, dtype, torch.channels_last)[0]
    counted = traffic(forward, work, gpu)
    assert 1 <= counted.over_least <= 1.15
    needed = time(forward, work, gpu, counted)
    assert needed.least <= needed.memory
    assert resident(forward, gpu) >= 2 * gpu.num_sms
    if dtype == torch.float32:
        assert needed.predicted == needed.memory
        assert needed.predicted <= 1.1 * 2 * 2 * 256 * 200 * 300 * 4 / gpu.dram * 1e-3
