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

import numpy as np
from gpu_compile import Compiled, Gpu

SECTOR = 32
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
    """Bytes of a launch."""

    least: int
    memory: int
    cache: int
    wave: int  # touched by the largest wave

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
    filters = compiled.kernel == "grad_filters"
    columns = tile.columns * (tile.steps if filters else 1)

    def ranges(size: int, tile: int) -> list[Range]:
        return [(begin, min(begin + tile, size)) for begin in range(0, size, tile)]

    def wider(own: Range, size: int) -> Range:
        return max(0, own[0] - around), min(size, own[1] + around)

    for n, (r, rows), (x, across), (b, channels), tap_rows in itertools.product(
        range(shape.batch),
        enumerate(ranges(shape.height, tile.rows)),
        enumerate(ranges(shape.width, columns)),
        enumerate(ranges(shape.channels, tile.channels)),
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
                ("spatial_filter", n, (0, taps), *halo),
                filter,
                ("grad_input", n, channels, rows, across),
            ]
        else:
            own = tap_rows[0] * shape.kernel_size, tap_rows[1] * shape.kernel_size
            read = max(0, rows[0] - around + tap_rows[0]), min(shape.height, rows[1] - around + tap_rows[1] - 1)
            yield [
                ("grad_output", n, channels, rows, across),
                ("input", n, channels, read, halo[1]),
                ("spatial_filter", n, own, rows, across),
                ("channel_filter", n, channels, (0, 1), own),
                ("grad_spatial", b * shape.batch + n, own, rows, across),
                ("grad_channel", part * shape.batch + n, channels, (0, 1), own),
            ]


class _Map:
    """Which sectors of a tensor were touched. Sectors lie along the inner dimension."""

    def __init__(self, pictures: int, channels: int, height: int, width: int, item: int, channels_last: bool) -> None:
        self.elements = SECTOR // item
        self.channels_last = channels_last
        sectors = math.ceil((channels if channels_last else width) / self.elements)
        lines = (height, width, sectors) if channels_last else (channels, height, sectors)
        self.touched = np.zeros((pictures, *lines), dtype=bool)
        self.first, self.last = pictures, 0

    def touch(self, n: int, channels: Range, rows: Range, columns: Range) -> int:
        """Mark a box; the number of its sectors."""
        inner = channels if self.channels_last else columns
        sectors = slice(inner[0] // self.elements, math.ceil(inner[1] / self.elements))
        outer = (slice(*rows), slice(*columns)) if self.channels_last else (slice(*channels), slice(*rows))
        box = self.touched[(n, *outer, sectors)]
        box[...] = True
        self.first, self.last = min(self.first, n), max(self.last, n + 1)
        return box.size

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
    blocks = math.ceil(c / tile.channels)
    tiles = math.ceil(h / tile.rows) * math.ceil(w / (tile.columns * getattr(tile, "steps", 1)))
    wide = max(4, shape.item)  # of a sum

    def map(channels: int, pictures: int = n, item: int = shape.item, own_last: bool = last) -> _Map:
        return _Map(pictures, channels, h, w, item, own_last)

    def filters(pictures: int = n, item: int = shape.item) -> _Map:
        return _Map(pictures, c, 1, taps, item, False)

    filters_too = compiled.kernel == "grad_filters"
    maps = {"spatial_filter": map(taps), "channel_filter": filters()}
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
        cache += SECTOR * sum(maps[name].touch(*box) for boxes in wave for name, *box in boxes)
        touched = SECTOR * sum(own.drain() for own in maps.values())
        memory, largest = memory + touched, max(largest, touched)
    assert programs == compiled.programs, f"{programs} programs are counted, {compiled.programs} are launched"
    of_filters = taps * (h * w + c)
    least = shape.item * n * (2 * c * h * w + of_filters * (1 + filters_too))
    if filters_too:  # another kernel adds the parts up
        added = (
            n
            * taps
            * ((blocks > 1) * h * w * (blocks * wide + shape.item) + (tiles > 1) * c * (tiles * wide + shape.item))
        )
        memory, cache = memory + added, cache + added
    return Traffic(least, memory, cache, largest)


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
    if compiled.kernel == "grad_filters":
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
