r"""The machine's own limit: what no kernel for the operator can be faster than, measured in the rounds that time it.

.. math::
    t_{limit} = \max\left(\frac{bytes}{copy\ bandwidth}, \frac{FLOPs}{FMA\ peak}\right)

A pass must at least read each tensor that it needs once and write each result once, and do its arithmetic. The
bandwidth is that of a copy between two buffers that together are as large as the case, so that it comes from the same
caches (or, as what is timed on a GPU, from none); the peak is a large matrix product's, 2n^3 operations. It is a hard
limit: the buffers are there beforehand, while the operator allocates its results in every call and waits for the
system's pages where they are large; the combination of the filters counts as if it could be part of a multiply-add;
borders cost nothing.
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
from ddfnet.bench.timing import in_turn, turns
from ddfnet.ops.geometry import accumulate_dtype

_MATMUL_SIZE = {"cpu": 1024}  # large enough for the peak, small enough for every round
_MATMUL_SIZE_ELSEWHERE = 4096


@dataclass(frozen=True)
class Limit:
    """The limit of a case, and how near the operator comes to it."""

    bytes: int
    flops: int
    gigabytes_per_second: float  # read and written by the copy; the median over the rounds, like the others
    gigaflops_per_second: float  # of the matrix product
    milliseconds: float
    share: float  # of the limit that the operator reaches: the limit's time over its own
    bound: str  # what sets the limit, "memory" or "arithmetic"


@dataclass(frozen=True)
class Work:
    """What a call cannot do without."""

    bytes: int
    flops: int

    @staticmethod
    def of(case: Case, direction: str) -> Work:
        """Bytes once in and once out, and FLOPs as `torch.utils.flop_counter.FlopCounterMode` counts them: 3 a tap.

        The backward pass reads the output's gradient and all that the forward pass read, writes a gradient of each of
        those, and takes as many FLOPs for each of the three as the forward pass.

        Example:
            >>> Work.of(Case("one", (1, 1, 1, 1)), "forward")
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
    """The two calls that are timed beside the operator; their buffers are allocated here."""

    COPY, MATMUL = ("copy", "allocated"), ("matmul", "allocated")

    def __init__(self, case: Case, direction: str, device: torch.device) -> None:
        self.work = Work.of(case, direction)
        numbers = math.ceil(self.work.bytes / 2 / torch.float32.itemsize)
        self.bytes = 2 * numbers * torch.float32.itemsize
        self.buffers = [
            (torch.ones(numbers, device=device), torch.ones(numbers, device=device))
            for _ in range(turns(self.bytes, device))
        ]
        size = _MATMUL_SIZE.get(device.type, _MATMUL_SIZE_ELSEWHERE)
        dtype = accumulate_dtype(_dtype(case))
        self.factor, self.product = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))

    def calls(self) -> dict[tuple[str, str], Callable[[], Any]]:
        return {
            self.COPY: in_turn([partial(target.copy_, source) for source, target in self.buffers]),
            self.MATMUL: lambda: torch.mm(self.factor, self.factor, out=self.product),
        }

    def limit(self, copies: Sequence[float], matmuls: Sequence[float], ours: Sequence[float]) -> Limit:
        """The limit from the milliseconds, one a round, of the two calls, and the operator's share of it."""
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
