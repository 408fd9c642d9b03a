"""Bytes that a launch moves, counted from what its programs touch, and the time that a GPU needs at least.

Counted are sectors of 32 bytes, the least that a GPU's caches load. Two counts:

- *memory*: programs run in the order of their number, a wave at a time, as many as the processors hold by their
  registers and warps. A wave reads each sector from memory once, however many of its programs touch it; the next wave
  reads it again. (The second-level cache must hold what one wave touches, which is reported.)
- *cache*: each program reads each sector once from the second-level cache, into the cache of its processor.

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
FILTERS = "grad_filters", "grad_filters_planar"  # the kernels of their gradients
_ISSUED = 4  # instructions of a warp that a processor issues a clock

Range = tuple[int, int]
Box = tuple[str, int, Range, Range, Range]  # map, picture, channels, rows, columns


@dataclass(frozen=True)
class Shape:
    """Of a call with stride, dilation and scale of one, and one head."""

    batch: int
    channels: int
    height: int
    width: int
    kernel_size: int
    item: int  # bytes of an element
    channels_last: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes of a launch, and of what goes before and after it: another order of taps, the sum of parts."""

    least: int
    kernel_memory: int
    kernel_cache: int
    added: int  # by other kernels, from memory and cache alike
    wave: int  # touched by the largest wave

    @property
    def memory(self) -> int:
        return self.kernel_memory + self.added

    @property
    def cache(self) -> int:
        return self.kernel_cache + self.added

    def times(self, count: int) -> Traffic:
        """Of so many launches like this in one; a wave stays what it is."""
        own = {name: count * value for name, value in vars(self).items()}
        return Traffic(**(own | {"wave": self.wave}))

    @property
    def over_least(self) -> float:
        return self.memory / self.least


def resident(compiled: Compiled, gpu: Gpu) -> int:
    """Programs that run at the same time."""
    threads = 32 * compiled.warps
    by_registers = gpu.registers // (math.ceil(compiled.registers / 8) * 8 * threads)
    return gpu.processors * max(1, min(by_registers, gpu.warps // compiled.warps, 32))


def _boxes(compiled: Compiled, shape: Shape) -> Iterator[list[Box]]:
    """What each program touches, in the order of their numbers."""
    tile, taps = compiled.options["TILE"], shape.kernel_size**2
    around = shape.kernel_size // 2
    filters = compiled.kernel in FILTERS
    columns, channels_of_program = tile.extent

    def ranges(size: int, tile: int) -> list[Range]:
        return [(begin, min(begin + tile, size)) for begin in range(0, size, tile)]

    def wider(own: Range, size: int) -> Range:
        return max(0, own[0] - around), min(size, own[1] + around)

    for n, (r, rows), (x, across), (b, channels), tap_rows in itertools.product(
        range(shape.batch),
        enumerate(ranges(shape.height, tile.rows)),
        enumerate(ranges(shape.width, columns)),
        enumerate(ranges(shape.channels, channels_of_program)),
        ranges(shape.kernel_size, tile.tap_rows if filters else shape.kernel_size),
    ):
        halo = wider(rows, shape.height), wider(across, shape.width)
        part = r * math.ceil(shape.width / columns) + x
        filter: Box = ("channel_filter", n, channels, (0, 1), (0, taps))
        if compiled.kernel == "forward":
            yield [
                ("input", n, channels, *halo),
                ("spatial_filter", n, (0, taps), rows, across),
                filter,
                ("output", n, channels, rows, across),
            ]
        elif compiled.kernel == "grad_input":
            yield [
                ("grad_output", n, channels, *halo),
                # A step's last row may lie below the map; its filters are loaded all the same.
                *_gathered(n, (rows[0], rows[1] + (rows[0] - rows[1]) % tile.step), across, shape),
                filter,
                ("grad_input", n, channels, rows, across),
            ]
        else:
            own = tap_rows[0] * shape.kernel_size, tap_rows[1] * shape.kernel_size
            # A last tile of planes begins higher, and loads again what the one above it has.
            first = min(rows[0], shape.height - tile.rows) if isinstance(tile, PlanarTile) else rows[0]
            read = max(0, first - around + tap_rows[0]), min(shape.height, rows[1] - around + tap_rows[1] - 1)
            yield [
                ("grad_output", n, channels, rows, across),
                ("input", n, channels, read, halo[1]),
                ("spatial_filter", n, own, (first, rows[1]), across),
                ("channel_filter", n, channels, (0, 1), own),
                ("grad_spatial", b * shape.batch + n, own, rows, across),
                ("grad_channel", part * shape.batch + n, channels, (0, 1), own),
            ]


def _gathered(n: int, rows: Range, columns: Range, shape: Shape) -> Iterator[Box]:
    """The spatial filter as the gradient of the input reads it: of each tap, the positions that it leads to."""
    k = shape.kernel_size
    for y, x in itertools.product(range(k), range(k)):
        to_row, to_column = k // 2 - y, k // 2 - x
        rows_there = max(0, rows[0] + to_row), min(shape.height, rows[1] + to_row)
        columns_there = max(0, columns[0] + to_column), min(shape.width, columns[1] + to_column)
        yield "spatial_filter", n, (y * k + x, y * k + x + 1), rows_there, columns_there


class _Map:
    """Which sectors of a dense tensor were touched."""

    def __init__(self, pictures: int, channels: int, height: int, width: int, item: int, channels_last: bool) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.elements = SECTOR // item
        self.channels_last = channels_last
        self.touched = np.zeros(math.ceil(pictures * channels * height * width / self.elements), dtype=bool)
        self.first, self.last = len(self.touched), 0

    def sectors(self, n: int, channels: Range, rows: Range, columns: Range) -> np.ndarray:
        """Those of a box, some more than once."""
        # Runs of elements that lie next to each other: along channels or along columns, in rising order.
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
        """Mark boxes; the number of their sectors, each counted once."""
        found = np.unique(np.concatenate([self.sectors(*box) for box in boxes]))
        if len(found):
            self.touched[found] = True
            self.first, self.last = min(self.first, int(found[0])), max(self.last, int(found[-1]) + 1)
        return len(found)

    def drain(self) -> int:
        """The number of sectors that were touched since the last call."""
        part = self.touched[self.first : self.last]
        count = int(np.count_nonzero(part))
        part[...] = False
        self.first, self.last = len(self.touched), 0
        return count


def traffic(compiled: Compiled, shape: Shape, gpu: Gpu) -> Traffic:
    """Count the bytes of one launch."""
    tile, taps = compiled.options["TILE"], shape.kernel_size**2
    n, c, h, w, last = shape.batch, shape.channels, shape.height, shape.width, shape.channels_last
    columns, channels = tile.extent
    blocks = math.ceil(c / channels)
    tiles = math.ceil(h / tile.rows) * math.ceil(w / columns)
    wide = max(4, shape.item)  # of a sum

    def map(channels: int, pictures: int = n, item: int = shape.item, own_last: bool = last) -> _Map:
        return _Map(pictures, channels, h, w, item, own_last)

    def filters(pictures: int = n, item: int = shape.item, channels_inner: bool = False) -> _Map:
        return _Map(pictures, c, 1, taps, item, channels_inner)

    filters_too = compiled.kernel in FILTERS
    reordered = not filters_too and not tile.keep
    maps = {"spatial_filter": map(taps), "channel_filter": filters(channels_inner=reordered)}
    if filters_too:
        summed = blocks > 1  # sums over parts are contiguous, in the dtype of sums
        maps |= {"grad_output": map(c), "input": map(c)}
        maps["grad_spatial"] = map(taps, n * blocks, wide if summed else shape.item, last and not summed)
        maps["grad_channel"] = filters(n * tiles, wide if tiles > 1 else shape.item)
    else:
        maps |= {name: map(c) for name in ("input", "output", "grad_output", "grad_input")}
    memory = cache = largest = programs = 0
    for wave in _waves(_boxes(compiled, shape), resident(compiled, gpu)):
        programs += len(wave)
        for boxes in wave:
            for name, own in itertools.groupby(boxes, key=lambda box: box[0]):
                cache += SECTOR * maps[name].touch([box[1:] for box in own])
        touched = SECTOR * sum(own.drain() for own in maps.values())
        memory, largest = memory + touched, max(largest, touched)
    assert programs == compiled.programs, f"{programs} programs are counted, {compiled.programs} are launched"
    of_filters = taps * (h * w + c)
    least = shape.item * n * (2 * c * h * w + of_filters * (1 + filters_too))
    added = reordered * 2 * n * c * taps * shape.item  # another kernel copies the channel filter
    if filters_too:  # another kernel adds the parts up
        of_spatial = (blocks > 1) * h * w * (blocks * wide + shape.item)
        of_channel = (tiles > 1) * c * (tiles * wide + shape.item)
        added = n * taps * (of_spatial + of_channel)
    return Traffic(least, memory, cache, added, largest)


def _waves(programs: Iterator[list[Box]], size: int) -> Iterator[list[list[Box]]]:
    while wave := list(itertools.islice(programs, size)):
        yield wave


# --- time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Time:
    """Microseconds that a launch takes at least, by what it is limited by."""

    memory: float
    cache: float
    instructions: float
    least: float  # for the least bytes

    @property
    def predicted(self) -> float:
        return max(self.memory, self.cache, self.instructions)


def time(compiled: Compiled, shape: Shape, gpu: Gpu, bytes: Traffic) -> Time:
    """The roofline: bytes from memory, bytes from the cache, and instructions, each at the data sheet's speed."""
    tile = compiled.options["TILE"]
    if isinstance(tile, PlanarTile):
        trips = [tile.blocks]
    elif compiled.kernel in FILTERS:
        trips = [min(tile.rows, shape.height) * tile.steps]
    else:
        trips = [math.ceil(min(tile.rows, shape.height) / tile.step), *([] if tile.unroll else [shape.kernel_size])]
    executed = sum(count * math.prod(trips[:depth]) for count, depth in compiled.loops)
    clocks = executed * compiled.warps * compiled.programs / (_ISSUED * gpu.processors)
    return Time(
        memory=bytes.memory / gpu.dram * 1e-3,
        cache=bytes.cache / (gpu.cache_bytes_a_clock * gpu.gigahertz) * 1e-3,
        instructions=clocks / gpu.gigahertz * 1e-3,
        least=bytes.least / gpu.dram * 1e-3,
    )
