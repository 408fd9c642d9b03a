"""How large the tiles of a kernel are: a heuristic that can be read, and a table that goes before it.

Nothing is tuned at run time. ``ddfnet bench op --device cuda --tune FILE`` measures a few candidates and writes those
that win; the environment variable ``DDFNET_TRITON_TILES`` names such a file. docs/gpu.md says why the numbers are so.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ddfnet import files
from ddfnet.ops.triton.common import Window

ENVIRONMENT_VARIABLE = "DDFNET_TRITON_TILES"


class Tile(NamedTuple):
    """Of `forward` and `grad_input`."""

    columns: int  # positions of a row at a time
    channels: int  # of one head
    rows: int  # of a program
    step: int  # rows at a time, which share what they load; more than one only where stride and dilation are one
    subpixels: int  # of a position at a time
    unroll: bool  # the rows of the kernel
    keep: bool  # the channel filter in registers

    @property
    def extent(self) -> tuple[int, int]:
        """Columns and channels of a program."""
        return self.columns, self.channels


class FilterTile(NamedTuple):
    """Of `grad_filters`."""

    columns: int
    channels: int
    rows: int
    steps: int  # of ``columns`` each, along a row
    tap_rows: int  # of the kernel in a program: all, or one

    @property
    def extent(self) -> tuple[int, int]:
        return self.columns * self.steps, self.channels


class PlanarTile(NamedTuple):
    """Of `grad_filters_planar`."""

    columns: int
    channels: int  # at a time
    rows: int  # of a program, and at a time; no more than the map has
    blocks: int  # of ``channels`` each, one after another
    tap_rows: int

    @property
    def extent(self) -> tuple[int, int]:
        return self.columns, self.channels * self.blocks


class Launch(NamedTuple):
    tile: Tile | FilterTile | PlanarTile
    warps: int


@dataclass(frozen=True)
class Problem:
    """What the choice depends on."""

    kernel: str  # "forward", "grad_input" or "grad_filters"
    channels_inner: bool  # whether channels lie next to each other in memory, or columns
    item: int  # bytes of an element
    batch: int
    heads: int
    channels: int  # of a head
    height: int  # of what is walked over: positions, or the pixels of a phase
    width: int
    window: Window
    architecture: str  # as in "sm_90", "gfx942"
    processors: int  # that run programs at once

    @property
    def key(self) -> str:
        """Its name in a table; channels and pixels count by powers of two."""
        window = self.window
        return (
            f"{self.architecture} {self.kernel} {'channels_last' if self.channels_inner else 'contiguous'} "
            f"{8 * self.item} bits, kernel {window.kernel_y}x{window.kernel_x}, "
            f"stride {window.stride_y}x{window.stride_x}, dilation {window.dilation_y}x{window.dilation_x}, "
            f"scale {window.scale_y}x{window.scale_x}, "
            f"channels {_power_of_two(self.channels)}, pixels {_power_of_two(self.batch * self.height * self.width)}"
        )


def choose(problem: Problem) -> Launch:
    """The table's launch if it has one, else the heuristic's."""
    for problems in _recordings:
        problems.append(problem)
    return _table().get(problem.key) or heuristic(problem)


def heuristic(problem: Problem) -> Launch:
    return _of_filters(problem) if problem.kernel == "grad_filters" else _of_map(problem)


def candidates(problem: Problem) -> list[Launch]:
    """Launches that are worth a measurement, the heuristic's first."""
    first = heuristic(problem)
    tile, warps = first
    found = [first]
    for columns, channels in ((2, 1), (1, 2), (2, 2)):
        for other in (warps, 2 * warps):
            less, fewer = max(1, tile.columns // columns), max(1, tile.channels // channels)
            found += [
                Launch(tile._replace(columns=less, channels=fewer), warps),
                Launch(tile._replace(columns=tile.columns * columns, channels=tile.channels * channels), other),
            ]
    heights = (2, 4, 6) if isinstance(tile, PlanarTile) else (4, 8, 32)
    found += [Launch(tile._replace(rows=max(rows, getattr(tile, "step", 1))), warps) for rows in heights]
    if isinstance(tile, Tile) and tile.step > 1:
        found += [Launch(tile._replace(step=1), warps), Launch(tile._replace(step=4, rows=max(4, tile.rows)), warps)]
    return list(dict.fromkeys(found))


def _lanes(problem: Problem) -> int:
    """Threads of a warp."""
    return 64 if problem.architecture.startswith("gfx9") else 32


def _power_of_two(least: int, most: int = 1 << 62) -> int:
    """The smallest power of two that is not below ``least``, within ``most``, which is one too."""
    return min(1 << max(0, least - 1).bit_length(), most)


def _of_map(problem: Problem) -> Launch:
    window = problem.window
    taps, subpixels = window.kernel_y * window.kernel_x, window.scale_y * window.scale_x
    vector = 16 // problem.item  # elements of the widest load
    unroll = taps <= 9  # the offsets and masks of more fill the registers
    threads = 4 * _lanes(problem)
    if problem.channels_inner:
        # A thread has two widest loads at a time, or one where that is eight sums, or where masks of 64 lanes take up
        # the registers that lanes share.
        thread = 2 * vector if problem.item >= 4 and _lanes(problem) == 32 else vector
        channels = _power_of_two(problem.channels, 64)
        columns = _power_of_two(problem.width, max(1, threads * thread // channels))
        channels = _power_of_two(problem.channels, max(1, threads * thread // columns))
    else:
        # Shifted rows have no alignment: a warp reads 32 columns, and a thread has a few channels of its column.
        thread = 4
        columns = _power_of_two(problem.width, 32)
        channels = _power_of_two(problem.channels, 4 * threads // columns)
    together = next(n for n in (4, 3, 2, 1) if subpixels % n == 0) if problem.kernel == "forward" else 1
    plain = window[2:6] == (1, 1, 1, 1)  # stride and dilation: windows of neighbouring rows overlap in every row
    step = 2 if plain and unroll and together == 1 and problem.height > 1 else 1
    rows = _rows(problem, columns, channels, together, least=step)
    keep = unroll and subpixels == 1
    warps = max(1, min(4, columns * channels // (_lanes(problem) * thread)))
    return Launch(Tile(columns, channels, rows, step, together, unroll, keep), warps)


def _of_planes(problem: Problem) -> Launch:
    """Of `grad_filters_planar`."""
    window = problem.window
    taps = window.kernel_y * window.kernel_x
    tap_rows = window.kernel_y if taps <= 9 else 1
    # A thread keeps a sum for each tap and row, and that tap, and loads the pixels of all its windows at once. With one
    # row of the kernel no two windows share a pixel, so the sums are fewer; so they are where lanes share masks.
    sums = 45 if tap_rows > 1 else 30
    if _lanes(problem) == 64:
        sums = 36 if tap_rows > 1 else 15
    sums //= 1 if problem.item <= 4 else 2
    tiles = -(-problem.height // max(1, sums // (tap_rows * window.kernel_x)))
    rows = -(-problem.height // tiles)
    columns = _power_of_two(problem.width, 32 if tap_rows > 1 else 64)
    # One warp has 32 columns of a channel: the channel filter's sums stay within it. An interpreter has one thread.
    threads = 128 if problem.processors > 1 else 4096
    channels = _power_of_two(problem.channels, max(1, threads // columns))
    blocks = _power_of_two(-(-problem.channels // channels))
    others = problem.batch * problem.heads * tiles * -(-problem.width // columns) * window.scale_y * window.scale_x
    wanted, least = 2 * problem.processors, max(32, -(-taps // 2))  # programs, and channels of one
    while blocks > 1 and channels * blocks >= 2 * least:
        if others * -(-problem.channels // (channels * blocks)) >= wanted:
            break
        blocks //= 2
    warps = max(1, min(4, columns * channels // _lanes(problem)))
    return Launch(PlanarTile(columns, channels, rows, blocks, tap_rows), warps)


def _of_filters(problem: Problem) -> Launch:
    window = problem.window
    taps = window.kernel_y * window.kernel_x
    if not problem.channels_inner and taps <= (planes := _of_planes(problem)).tile.rows * planes.tile.columns:
        return planes  # else its parts of the channel filter's gradient would outgrow the input
    tap_rows = window.kernel_y if taps <= 9 and problem.channels_inner else 1
    if problem.channels_inner:
        # One warp: a sum over channels stays within it, and no warp waits for another. A thread has four channels of a
        # position, which with all rows of taps is as much as the registers hold, or eight with one row; half of that in
        # double precision. Half types have two positions, so that a load is as wide as it can be.
        columns, warps = 2 if problem.item == 2 and tap_rows > 1 else 1, 1
        thread = (4 if problem.item <= 4 else 2) * (2 if tap_rows == 1 else 1)
        channels = _power_of_two(problem.channels, thread * _lanes(problem))
        if problem.processors == 1:
            columns = 8  # an interpreter takes as long for one as for eight
    else:
        columns, warps = _power_of_two(problem.width, 32), 8
        channels = _power_of_two(problem.channels, 32)
    # The parts of both sums must not outgrow the input: of many taps they are fewer and larger.
    channels = max(channels, _power_of_two(problem.channels, _power_of_two(-(-taps // 2))))
    warps = max(warps, min(16, columns * channels // 512))
    steps = max(1, min(32, _power_of_two(problem.width)) // columns)
    least = max(4, _power_of_two(-(-4 * taps // (columns * steps))))
    rows = _rows(problem, columns * steps, channels, 1, least=least)
    return Launch(FilterTile(columns, channels, rows, steps, tap_rows), warps)


def _rows(problem: Problem, columns: int, channels: int, subpixels: int, least: int) -> int:
    """Rows of a program: 16, so that few border rows are read twice; fewer where the device would not be filled."""
    rows = max(least, _power_of_two(problem.height, 16))
    others = (
        problem.batch
        * problem.heads
        * -(-problem.channels // channels)
        * -(-problem.width // columns)
        * (problem.window.scale_y * problem.window.scale_x // subpixels)
    )
    while rows > least and others * -(-problem.height // rows) < 4 * problem.processors:
        rows //= 2
    return rows


_recordings: list[list[Problem]] = []  # of the `recording` blocks that are open


@contextmanager
def recording() -> Iterator[list[Problem]]:
    """The problems that a launch is chosen for inside a ``with`` block, in a list that grows with them."""
    problems: list[Problem] = []
    _recordings.append(problems)
    try:
        yield problems
    finally:
        _recordings.pop()


# --- the table ----------------------------------------------------------------------------------------------------

_tables: list[Mapping[str, Launch]] = []  # the innermost `using`


@contextmanager
def using(table: Mapping[str, Launch]) -> Iterator[None]:
    """Let this table go before every other inside a ``with`` block."""
    _tables.append(table)
    try:
        yield
    finally:
        _tables.pop()


def _table() -> Mapping[str, Launch]:
    if _tables:
        return _tables[-1]
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    return read_table(Path(path)) if path else {}


@functools.cache
def read_table(path: Path) -> Mapping[str, Launch]:
    """The launches of a file that `write_table` wrote, by `Problem.key`.

    Raises:
        ValueError: the file cannot be read, or has something else in it.
    """
    try:
        entries = json.loads(path.read_text())
        return {key: _launch(entry) for key, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must name a table that `ddfnet bench op --tune` wrote, got {path}: {error}"
        ) from None


def _launch(entry: dict[str, Any]) -> Launch:
    fields = dict(entry["tile"])
    kinds = (kind for kind in (Tile, FilterTile, PlanarTile) if set(kind._fields) == set(fields))
    kind = next(kinds, None)
    if kind is None:
        raise ValueError(f"a tile must have the fields of Tile, FilterTile or PlanarTile, got {', '.join(fields)}")
    tile: Tile | FilterTile | PlanarTile = kind(**fields)
    for name, value in (*fields.items(), ("warps", entry["warps"])):
        if not isinstance(value, int) or value < (not isinstance(value, bool)):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if name in ("columns", "channels", "warps") and value & (value - 1):
            raise ValueError(f"{name} must be a power of two, got {value!r}")
    if tile.rows % getattr(tile, "step", 1):
        raise ValueError(f"step must divide rows, got {tile}")
    return Launch(tile, entry["warps"])


def write_table(path: Path, table: Mapping[str, Launch]) -> None:
    entries = {key: {"tile": launch.tile._asdict(), "warps": launch.warps} for key, launch in sorted(table.items())}
    files.atomic_write(path, json.dumps(entries, indent=1) + "\n")
