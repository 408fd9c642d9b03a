"""Limit of the machine: bytes and FLOPs of a case, and its times for a bandwidth and a peak."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.bench import timing
from ddfnet.bench.competitors import Tensors, competitors
from ddfnet.bench.limits import Probes, Work
from ddfnet.bench.op import _call
from ddfnet.bench.registry import DIRECTIONS, Case

CASES = [Case("plain", (2, 8, 9, 7)), Case("other", (1, 8, 9, 8), kernel_size=5, stride=2, heads=4, dtype="bfloat16")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_work_agrees_with_the_tensors_and_the_flop_counter(case: Case, direction: str) -> None:
    backward = direction != DIRECTIONS[0]
    tensors = Tensors.random(case, torch.device("cpu")).to(torch.contiguous_format, requires_grad=backward)
    call = _call(competitors(case)["ddf"], tensors, backward)
    with FlopCounterMode(display=False) as counter:
        results = call()
    work = Work.for_case(case, direction)
    assert work.flops == counter.get_total_flops()
    inputs = sum(tensor.nbytes for tensor in tensors.filters())
    again = (inputs + results[0].nbytes) * backward  # the backward pass reads inputs and the output's gradient
    assert work.bytes == inputs + again + sum(result.nbytes for result in results)


def test_the_limit_is_the_larger_time() -> None:
    case = Case("plain", (2, 8, 64, 64))
    probes = Probes(case, "forward", torch.device("cpu"))
    [(source, target)] = probes.buffers
    assert probes.bytes == source.nbytes + target.nbytes == pytest.approx(probes.work.bytes, rel=1e-3)
    operations = 2 * probes.factor.shape[0] ** 3

    # 1 GB/s and 1000 GFLOP/s in the first of two rounds; the second is half as fast
    memory = probes.limit([probes.bytes / 1e6, probes.bytes / 5e5], [operations / 1e9, operations / 5e8], [1.0, 2.0])
    assert memory.bound == "memory"
    assert memory.gigabytes_per_second == pytest.approx(0.75)
    assert memory.gigaflops_per_second == pytest.approx(750)
    assert memory.milliseconds == pytest.approx(1.5 * probes.work.bytes / 1e6)
    assert memory.share == pytest.approx(probes.work.bytes / 1e6), "the same in both rounds"

    arithmetic = probes.limit([probes.bytes / 1e9] * 2, [operations / 1e6] * 2, [1.0, 1.0])
    assert arithmetic.bound == "arithmetic"
    assert arithmetic.milliseconds == pytest.approx(probes.work.flops / 1e6)


def test_the_probes_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_cache", lambda device: 1000)
    probes = Probes(Case("double", (1, 2, 4, 4), dtype="float64"), "forward", torch.device("cpu"))
    assert len(probes.buffers) > 1 and len(probes.buffers) * probes.bytes > 2000, "so that no cache serves the copy"
    for _, target in probes.buffers:
        target.zero_()
    for call in probes.calls().values():
        for _ in probes.buffers:
            call()
    assert all(torch.equal(target, source) for source, target in probes.buffers), "in turn"
    assert probes.product.dtype == torch.float64, "the peak of the dtype in which is summed"
    assert probes.product[0, 0] == probes.factor.shape[0]
