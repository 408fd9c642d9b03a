r"""Lower bound of the operator's time on this machine, measured in the same rounds as the operator.

.. math::
    t_{limit} = \max\left(\frac{bytes}{copy\ bandwidth}, \frac{FLOPs}{FMA\ peak}\right)

A pass must read each input once, write each result once, and do its arithmetic. The bandwidth is that of a copy between
two buffers that together are as large as the case, so that it uses the same caches (or none, like the calls that are
timed on a GPU); the peak is that of a large matrix product, 2n^3 operations. The limit is a hard one: its buffers exist
beforehand, while the operator allocates its results in every call and waits for the system's pages where they are
large; the combination of the filters counts as if it could be part of a multiply-add; borders cost nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ddfnet.bench.registry import DIRECTIONS, Case
from ddfnet.bench.timing import num_copies, rotate
from ddfnet.ops.geometry import accumulate_dtype

_MATMUL_SIZE = {"cpu": 1024}  # large enough for the peak, small enough for every round
_MATMUL_SIZE_ELSEWHERE = 4096


@dataclass(frozen=True)
class Limit:
    """Limit of a case, and the share of it that the operator reaches."""

    bytes: int
    flops: int
    gigabytes_per_second: float  # read and written by the copy; the median over the rounds, like all below
    gigaflops_per_second: float  # peak of the matrix product
    milliseconds: float
    share: float  # the limit's time over the operator's time
    bound: str  # the cause of the limit, "memory" or "arithmetic"


@dataclass(frozen=True)
class Work:
    """Least bytes and FLOPs of a call."""

    bytes: int
    flops: int

    @staticmethod
    def for_case(case: Case, direction: str) -> Work:
        """Count each tensor once, and 3 FLOPs per tap as `torch.utils.flop_counter.FlopCounterMode` does.

        The backward pass reads the output's gradient and all inputs of the forward pass, writes the gradients of those
        three, and needs as many FLOPs for each of them as the forward pass.

        Example:
            >>> Work.for_case(Case("one", (1, 1, 1, 1)), "forward")
            Work(bytes=80, flops=27)
        """
        (n, c, h, w), taps, (rows, columns) = case.shape, case.kernel_size**2, case.output_size
        inputs = n * (c * h * w + c * taps + case.heads * taps * rows * columns)
        output = n * c * rows * columns
        forward, backward = inputs + output, output + inputs + inputs
        flops = 3 * taps * output
        if direction == DIRECTIONS[0]:
            return Work(forward * _dtype(case).itemsize, flops)
        return Work((forward + backward) * _dtype(case).itemsize, 4 * flops)


class Probes:
    """Copy and the matrix product that are timed beside the operator, with their buffers."""

    COPY, MATMUL = ("copy", "allocated"), ("matmul", "allocated")

    def __init__(self, case: Case, direction: str, device: torch.device) -> None:
        self.work = Work.for_case(case, direction)
        numbers = math.ceil(self.work.bytes / 2 / torch.float32.itemsize)
        self.bytes = 2 * numbers * torch.float32.itemsize
        self.buffers = [
            (torch.ones(numbers, device=device), torch.ones(numbers, device=device))
            for _ in range(num_copies(self.bytes, device))
        ]
        size = _MATMUL_SIZE.get(device.type, _MATMUL_SIZE_ELSEWHERE)
        dtype = accumulate_dtype(_dtype(case))
        self.factor, self.product = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))

    def calls(self) -> dict[tuple[str, str], Callable[[], Any]]:
        return {
            self.COPY: rotate([partial(target.copy_, source) for source, target in self.buffers]),
            self.MATMUL: lambda: torch.mm(self.factor, self.factor, out=self.product),
        }

    def limit(self, copies: Sequence[float], matmuls: Sequence[float], ours: Sequence[float]) -> Limit:
        """Return the limit from the milliseconds of the two calls in each round, and the operator's share of it."""
        bandwidths = [self.bytes / time / 1e6 for time in copies]
        peaks = [2 * self.factor.shape[0] ** 3 / time / 1e6 for time in matmuls]
        memory = [self.work.bytes / bandwidth / 1e6 for bandwidth in bandwidths]
        arithmetic = [self.work.flops / peak / 1e6 for peak in peaks]
        limits = [max(pair) for pair in zip(memory, arithmetic, strict=True)]
        return Limit(
            self.work.bytes,
            self.work.flops,
            statistics.median(bandwidths),
            statistics.median(peaks),
            statistics.median(limits),
            share=statistics.median(limit / time for limit, time in zip(limits, ours, strict=True)),
            bound="memory" if statistics.median(memory) > statistics.median(arithmetic) else "arithmetic",
        )


def _dtype(case: Case) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, case.dtype)
    return dtype
