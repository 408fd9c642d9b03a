"""Bytes that a launch moves, counted from the accesses of its programs, and the least time that a GPU needs for them.

The unit is a sector of 32 bytes, the least that a GPU's caches load. There are two counts:

- *memory*: programs run in the order of their number, one wave at a time. A wave has as many programs as the
  multiprocessors hold by registers and warps. It reads each sector from memory once, however many of its programs touch
  it; the next wave reads the sector again. (The second-level cache must hold the sectors of one wave, which are
  reported.)
- *cache*: each program reads each sector once from the second-level cache, into the cache of its multiprocessor.

The least is each tensor once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_compile import Compiled, Gpu

from ddfnet.ops.triton.config import PlanarTile

SECTOR = 32
FILTER_KERNELS = "ddf_bwd_filters_kernel", "ddf_bwd_filters_planar_kernel"
_ISSUED = 4  # warp instructions that a multiprocessor issues per clock

Range = tuple[int, int]
Box = tuple[str, int, Range, Range, Range]  # map, sample, channels, rows, columns


@dataclass(frozen=True)
class Workload:
    """A call with stride, dilation and scale of one, and one head."""

    batch: int
    channels: int
    height: int
    width: int
    kernel_size: int
    itemsize: int  # bytes per element
    channels_last: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes of a launch, and of the small kernels before and after it that reorder taps and add partial sums up."""

    least: int
    kernel_memory: int
    kernel_cache: int
    added: int  # by the other kernels, from memory and cache alike
    wave: int  # touched by the largest wave

    @property
    def memory(self) -> int:
        return self.kernel_memory + self.added

    @property
    def cache(self) -> int:
        return self.kernel_cache + self.added

    @property
    def over_least(self) -> float:
        return self.memory / self.least

    def times(self, count: int) -> Traffic:
        """Return the bytes of one launch that does the work of this one ``count`` times; the wave stays the same."""
        scaled = {name: count * value for name, value in vars(self).items()}
        return Traffic(**(scaled | {"wave": self.wave}))


def resident(compiled: Compiled, gpu: Gpu) -> int:
    """Return the number of programs that run at the same time."""
    threads = 32 * compiled.warps
    register_limit = gpu.registers // (math.ceil(compiled.registers / 8) * 8 * threads)
    return gpu.num_sms * max(1, min(register_limit, gpu.warps // compiled.warps, 32))


def _boxes(compiled: Compiled, work: Workload) -> Iterator[list[Box]]:
    """Yield the boxes that each program touches, in the order of the programs' numbers."""
    tile, taps = compiled.options["TILE"], work.kernel_size**2
    around = work.kernel_size // 2
    is_filters = compiled.kernel in FILTER_KERNELS
    columns, channels_per_program = tile.extent

    def ranges(size: int, tile: int) -> list[Range]:
        return [(begin, min(begin + tile, size)) for begin in range(0, size, tile)]

    def with_halo(own: Range, size: int) -> Range:
        return max(0, own[0] - around), min(size, own[1] + around)

    for n, (r, rows), (x, across), (b, channels), tap_rows in itertools.product(
        range(work.batch),
        enumerate(ranges(work.height, tile.BLOCK_H)),
        enumerate(ranges(work.width, columns)),
        enumerate(ranges(work.channels, channels_per_program)),
        ranges(work.kernel_size, tile.TAP_ROWS if is_filters else work.kernel_size),
    ):
        halo = with_halo(rows, work.height), with_halo(across, work.width)
        partial = r * math.ceil(work.width / columns) + x
        filter: Box = ("channel_filter", n, channels, (0, 1), (0, taps))
        if compiled.kernel == "ddf_fwd_kernel":
            yield [
                ("input", n, channels, *halo),
                ("spatial_filter", n, (0, taps), rows, across),
                filter,
                ("output", n, channels, rows, across),
            ]
        elif compiled.kernel == "ddf_bwd_input_kernel":
            yield [
                ("grad_output", n, channels, *halo),
                # The last row of a step may lie below the map; its filters are loaded all the same.
                *_gathered(n, (rows[0], rows[1] + (rows[0] - rows[1]) % tile.STEP_H), across, work),
                filter,
                ("grad_input", n, channels, rows, across),
            ]
        else:
            own = tap_rows[0] * work.kernel_size, tap_rows[1] * work.kernel_size
            # The last planar tile begins higher, and loads rows of the tile above it again.
            first = min(rows[0], work.height - tile.BLOCK_H) if isinstance(tile, PlanarTile) else rows[0]
            read = max(0, first - around + tap_rows[0]), min(work.height, rows[1] - around + tap_rows[1] - 1)
            yield [
                ("grad_output", n, channels, rows, across),
                ("input", n, channels, read, halo[1]),
                ("spatial_filter", n, own, (first, rows[1]), across),
                ("channel_filter", n, channels, (0, 1), own),
                ("grad_spatial", b * work.batch + n, own, rows, across),
                ("grad_channel", partial * work.batch + n, channels, (0, 1), own),
            ]


def _gathered(n: int, rows: Range, columns: Range, work: Workload) -> Iterator[Box]:
    """Yield the boxes of the spatial filter that the gradient of the input reads: for each tap, its positions."""
    k = work.kernel_size
    for y, x in itertools.product(range(k), range(k)):
        to_row, to_column = k // 2 - y, k // 2 - x
        tap_rows = max(0, rows[0] + to_row), min(work.height, rows[1] + to_row)
        tap_columns = max(0, columns[0] + to_column), min(work.width, columns[1] + to_column)
        yield "spatial_filter", n, (y * k + x, y * k + x + 1), tap_rows, tap_columns


class _SectorMap:
    """Sectors of a dense tensor, each with a flag that says if it was touched."""

    def __init__(
        self, samples: int, channels: int, height: int, width: int, itemsize: int, channels_last: bool
    ) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.elements = SECTOR // itemsize
        self.channels_last = channels_last
        self.touched = np.zeros(math.ceil(samples * channels * height * width / self.elements), dtype=bool)
        self.first, self.last = len(self.touched), 0

    def sectors(self, n: int, channels: Range, rows: Range, columns: Range) -> np.ndarray:
        """Return the sectors of a box, some of them more than once."""
        # Runs of adjacent elements, along channels or along columns, in rising order.
        if self.channels_last:
            lines = np.arange(*rows)[:, None] * self.width + np.arange(*columns)
            begins = (n * self.height * self.width + lines.ravel()) * self.channels + channels[0]
            length = channels[1] - channels[0]
        else:
            lines = np.arange(*channels)[:, None] * self.height + np.arange(*rows)
            begins = (n * self.channels * self.height + lines.ravel()) * self.width + columns[0]
            length = columns[1] - columns[0]
        if not len(begins) or length < 1:
            return np.zeros(0, dtype=int)
        first, last = begins // self.elements, (begins + length - 1) // self.elements
        return np.minimum(first[:, None] + np.arange(length // self.elements + 2), last[:, None]).ravel()

    def touch(self, boxes: list[tuple[Any, ...]]) -> int:
        """Mark the sectors of boxes, and return their number, each counted once."""
        found = np.unique(np.concatenate([self.sectors(*box) for box in boxes]))
        if len(found):
            self.touched[found] = True
            self.first, self.last = min(self.first, int(found[0])), max(self.last, int(found[-1]) + 1)
        return len(found)

    def drain(self) -> int:
        """Return the number of sectors that were touched since the last call."""
        touched = self.touched[self.first : self.last]
        count = int(np.count_nonzero(touched))
        touched[...] = False
        self.first, self.last = len(self.touched), 0
        return count


def traffic(compiled: Compiled, work: Workload, gpu: Gpu) -> Traffic:
    """Count the bytes of one launch."""
    tile, taps = compiled.options["TILE"], work.kernel_size**2
    n, c, h, w, last = work.batch, work.channels, work.height, work.width, work.channels_last
    columns, channels = tile.extent
    blocks = math.ceil(c / channels)
    tiles = math.ceil(h / tile.BLOCK_H) * math.ceil(w / columns)
    acc_itemsize = max(4, work.itemsize)

    def map(channels: int, samples: int = n, itemsize: int = work.itemsize, channels_last: bool = last) -> _SectorMap:
        return _SectorMap(samples, channels, h, w, itemsize, channels_last)

    def filters(samples: int = n, itemsize: int = work.itemsize, channels_last: bool = False) -> _SectorMap:
        return _SectorMap(samples, c, 1, taps, itemsize, channels_last)

    is_filters = compiled.kernel in FILTER_KERNELS
    reordered = not is_filters and not tile.KEEP_CF
    maps = {"spatial_filter": map(taps), "channel_filter": filters(channels_last=reordered)}
    if is_filters:
        summed = blocks > 1  # partial sums are contiguous, in the dtype of the accumulators
        maps |= {"grad_output": map(c), "input": map(c)}
        maps["grad_spatial"] = map(taps, n * blocks, acc_itemsize if summed else work.itemsize, last and not summed)
        maps["grad_channel"] = filters(n * tiles, acc_itemsize if tiles > 1 else work.itemsize)
    else:
        maps |= {name: map(c) for name in ("input", "output", "grad_output", "grad_input")}
    memory = cache = largest = programs = 0
    for wave in _waves(_boxes(compiled, work), resident(compiled, gpu)):
        programs += len(wave)
        for boxes in wave:
            for name, own in itertools.groupby(boxes, key=lambda box: box[0]):
                cache += SECTOR * maps[name].touch([box[1:] for box in own])
        touched = SECTOR * sum(own.drain() for own in maps.values())
        memory, largest = memory + touched, max(largest, touched)
    assert programs == compiled.programs, f"{programs} programs are counted, {compiled.programs} are launched"
    filter_elements = taps * (h * w + c)
    least = work.itemsize * n * (2 * c * h * w + filter_elements * (1 + is_filters))
    added = reordered * 2 * n * c * taps * work.itemsize  # another kernel copies the channel filter
    if is_filters:  # another kernel adds the partial sums up
        spatial_bytes = (blocks > 1) * h * w * (blocks * acc_itemsize + work.itemsize)
        channel_bytes = (tiles > 1) * c * (tiles * acc_itemsize + work.itemsize)
        added = n * taps * (spatial_bytes + channel_bytes)
    return Traffic(least, memory, cache, added, largest)


def _waves(programs: Iterator[list[Box]], size: int) -> Iterator[list[list[Box]]]:
    while wave := list(itertools.islice(programs, size)):
        yield wave


# --- time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Time:
    """Least microseconds of a launch, by each limit."""

    memory: float
    cache: float
    instructions: float
    least: float  # for the least bytes

    @property
    def predicted(self) -> float:
        return max(self.memory, self.cache, self.instructions)


def time(compiled: Compiled, work: Workload, gpu: Gpu, bytes: Traffic) -> Time:
    """Compute the least time for bytes from memory and cache and for instructions, at the data sheet's speeds."""
    tile = compiled.options["TILE"]
    if isinstance(tile, PlanarTile):
        trips = [tile.BLOCKS_C]
    elif compiled.kernel in FILTER_KERNELS:
        trips = [min(tile.BLOCK_H, work.height) * tile.STEPS_W]
    else:
        steps = math.ceil(min(tile.BLOCK_H, work.height) / tile.STEP_H)
        trips = [steps, *([] if tile.UNROLL else [work.kernel_size])]
    executed = sum(count * math.prod(trips[:depth]) for count, depth in compiled.loops)
    clocks = executed * compiled.warps * compiled.programs / (_ISSUED * gpu.num_sms)
    return Time(
        memory=bytes.memory / gpu.dram * 1e-3,
        cache=bytes.cache / (gpu.cache_bytes_per_clock * gpu.gigahertz) * 1e-3,
        instructions=clocks / gpu.gigahertz * 1e-3,
        least=bytes.least / gpu.dram * 1e-3,
    )
