"""Memory of a call beside its results: small beside the input for any geometry and any number of threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor

from ddfnet.bench import memory
from ddfnet.ops import backends, library
from tests.ops.cases import Case

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only"),
    pytest.mark.skipif(
        backends.chosen() != "auto" or not library.can_run(torch.device("cpu"))[0],
        reason="the compiled kernel does not serve",
    ),
]

CASES = [
    Case("7x7-dilation-177", channels=8, size=(500, 500), kernel=(7, 7), dilation=(177, 177)),
    Case("7x7-dilation-99-spatial", channels=8, size=(300, 300), kernel=(7, 7), dilation=(99, 99), filters="spatial"),
    Case("3x3-dilation-240", channels=8, size=(480, 320), dilation=(240, 150)),
    Case("stride-2-dilation-90", channels=8, size=(256, 256), stride=(2, 2), dilation=(90, 90)),
    Case("stride-40", channels=8, size=(512, 512), stride=(40, 40), kernel=(9, 9)),
    Case("up-2-dilation-60", channels=8, size=(128, 128), scale=(2, 2), dilation=(60, 60)),
    Case("31x31", channels=128, size=(64, 64), kernel=(31, 31), filters="channel"),
    Case("63x63", channels=32, size=(64, 64), kernel=(63, 63), filters="channel"),
    Case("one-row-dilated", channels=8, size=(1, 40000), kernel=(1, 49), dilation=(1, 700)),
    Case("one-row", channels=2, size=(1, 300000), kernel=(1, 31), filters="channel"),
    Case("one-column", channels=2, size=(300000, 1), kernel=(31, 1), filters="channel"),
    Case("a-head-a-channel", channels=64, size=(32, 500), heads=64),
    Case("few-wide-rows", channels=4, size=(8, 20000), heads=4),
]  # fmt: skip


def prepare(case: Case, dtype: torch.dtype, memory_format: str, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Return the case's call, or that of its gradients, after a small one that starts the threads."""

    def call(case: Case) -> Callable[[], tuple[Tensor, ...]]:
        tensors = case.tensors(dtype, memory_format)
        if tensors[1] is not None and case.scale is not None:
            tensors[1] = tensors[1].flatten(1, 2)
        flat = case.geometry.flat()
        if not backward:
            return lambda: (torch.ops.ddfnet.ddf(*tensors, *flat),)
        grad = torch.ones_like(torch.ops.ddfnet.ddf(*tensors, *flat))
        return lambda: torch.ops.ddfnet.ddf_backward(grad, *tensors, *flat, [t is not None for t in tensors])

    call(replace(case, size=(40, 40), kernel=(3, 3), dilation=(1, 1)))()
    return call(case)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Yield a process in which nothing else happens."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize(
    ("threads", "dtype"),
    [(1, torch.float32), (2, torch.float32), (8, torch.float32), (8, torch.bfloat16)],
    ids=["1-float32", "2-float32", "8-float32", "8-bfloat16"],
)
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", [replace(case, batch=1) for case in CASES], ids=[case.id for case in CASES])
def test_memory_of_a_call(
    process: ProcessPoolExecutor, case: Case, memory_format: str, dtype: torch.dtype, threads: int
) -> None:
    """A call adds at most twice the input and 8 MiB, forward and with all gradients."""
    size = case.channels * case.size[0] * case.size[1] * dtype.itemsize
    for backward in (False, True):
        arguments = case, dtype, memory_format, backward
        added = process.submit(memory._measure, threads, prepare, arguments).result()[0] / memory.MIB
        assert added <= 2 * size / memory.MIB + 8, f"{'backward' if backward else 'forward'}: {added:.1f} MiB"
