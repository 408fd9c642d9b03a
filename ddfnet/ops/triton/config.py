"""Tile sizes: a readable heuristic, and a table of measured ones that takes precedence.

Nothing is tuned at run time. ``ddfnet bench op --device cuda --tune FILE`` measures a few candidates and writes the
winners; the environment variable ``DDFNET_TRITON_TILES`` names such a file. docs/gpu.md gives the reasons for the
numbers.
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

from triton import cdiv

from ddfnet import files
from ddfnet.ops.triton.common import StaticGeometry

ENVIRONMENT_VARIABLE = "DDFNET_TRITON_TILES"


class Tile(NamedTuple):
    """Tile of a program of `ddf_fwd_kernel` and `ddf_bwd_input_kernel`."""

    BLOCK_W: int  # positions of a row, processed together
    BLOCK_C: int  # channels of one head
    BLOCK_H: int  # rows per program
    STEP_H: int  # rows per step, which share what they load; more than one only where stride and dilation are one
    SUBPIXELS: int  # sub-pixels of a position per step
    UNROLL: bool  # unroll the loop over the rows of the kernel
    KEEP_CF: bool  # keep the channel filter in registers

    @property
    def extent(self) -> tuple[int, int]:
        """Columns and channels of a program."""
        return self.BLOCK_W, self.BLOCK_C


class FilterTile(NamedTuple):
    """Tile of a program of `ddf_bwd_filters_kernel`."""

    BLOCK_W: int
    BLOCK_C: int
    BLOCK_H: int
    STEPS_W: int  # blocks of BLOCK_W positions along a row, one after another
    TAP_ROWS: int  # rows of the kernel per program: all, or one

    @property
    def extent(self) -> tuple[int, int]:
        return self.BLOCK_W * self.STEPS_W, self.BLOCK_C


class PlanarTile(NamedTuple):
    """Tile of a program of `ddf_bwd_filters_planar_kernel`."""

    BLOCK_W: int
    BLOCK_C: int
    BLOCK_H: int  # rows per program, processed together; at most the rows of the map
    BLOCKS_C: int  # blocks of BLOCK_C channels, one after another
    TAP_ROWS: int

    @property
    def extent(self) -> tuple[int, int]:
        return self.BLOCK_W, self.BLOCK_C * self.BLOCKS_C


AnyTile = Tile | FilterTile | PlanarTile


class LaunchConfig(NamedTuple):
    """A tile, and the warps that a program has for it."""

    tile: AnyTile
    num_warps: int


@dataclass(frozen=True)
class Problem:
    """Facts that a configuration depends on."""

    kernel: str  # "fwd", "bwd_input" or "bwd_filters"
    channels_last: bool  # channels are adjacent in memory, not columns
    itemsize: int  # bytes per element
    batch: int
    heads: int
    channels: int  # per head
    height: int  # positions, or pixels per phase
    width: int
    geometry: StaticGeometry
    architecture: str  # such as "sm_90", "gfx942"
    num_sms: int  # multiprocessors

    @property
    def key(self) -> str:
        """Name of the problem in a table, with channels and pixels rounded up to powers of two."""
        g = self.geometry
        return (
            f"{self.architecture} {self.kernel} {'channels_last' if self.channels_last else 'contiguous'} "
            f"{8 * self.itemsize} bits, kernel {g.kernel_h}x{g.kernel_w}, stride {g.stride_h}x{g.stride_w}, "
            f"dilation {g.dilation_h}x{g.dilation_w}, scale {g.scale_h}x{g.scale_w}, channels "
            f"{_power_of_two(self.channels)}, pixels {_power_of_two(self.batch * self.height * self.width)}"
        )


def choose(problem: Problem) -> LaunchConfig:
    """Return the configuration of the table if it has one, else that of the heuristic."""
    for problems in _recordings:
        problems.append(problem)
    return _table().get(problem.key) or heuristic(problem)


# --- the heuristic ------------------------------------------------------------------------------------------------


def heuristic(problem: Problem) -> LaunchConfig:
    """Return the configuration that needs no measurement."""
    return _filters_config(problem) if problem.kernel == "bwd_filters" else _map_config(problem)


def candidates(problem: Problem) -> list[LaunchConfig]:
    """Return the configurations that are worth a measurement, that of the heuristic first."""
    first = heuristic(problem)
    tile, warps = first
    found = [first]
    for w, c in ((2, 1), (1, 2), (2, 2)):
        for more_warps in (warps, 2 * warps):
            smaller = tile._replace(BLOCK_W=max(1, tile.BLOCK_W // w), BLOCK_C=max(1, tile.BLOCK_C // c))
            larger = tile._replace(BLOCK_W=tile.BLOCK_W * w, BLOCK_C=tile.BLOCK_C * c)
            found += [LaunchConfig(smaller, warps), LaunchConfig(larger, more_warps)]
    step = getattr(tile, "STEP_H", 1)
    heights = (2, 4, 6) if isinstance(tile, PlanarTile) else (4, 8, 32)
    found += [LaunchConfig(tile._replace(BLOCK_H=max(rows, step)), warps) for rows in heights]
    if isinstance(tile, Tile) and step > 1:
        found += [
            LaunchConfig(tile._replace(STEP_H=1), warps),
            LaunchConfig(tile._replace(STEP_H=4, BLOCK_H=max(4, tile.BLOCK_H)), warps),
        ]
    return list(dict.fromkeys(found))


def _warp_size(problem: Problem) -> int:
    return 64 if problem.architecture.startswith("gfx9") else 32


def _power_of_two(size: int, most: int = 1 << 62) -> int:
    """Return the smallest power of two that is not below the size, but at most ``most``, which is a power of two."""
    return min(1 << max(0, size - 1).bit_length(), most)


def _map_config(problem: Problem) -> LaunchConfig:
    """Return the configuration of `ddf_fwd_kernel` or `ddf_bwd_input_kernel`."""
    g, warp = problem.geometry, _warp_size(problem)
    taps, subpixels = g.kernel_h * g.kernel_w, g.scale_h * g.scale_w
    vector = 16 // problem.itemsize  # elements of the widest load
    unroll = taps <= 9  # the offsets and masks of more taps fill the registers
    threads = 4 * warp
    if problem.channels_last:
        # A thread has two widest loads at a time. It has one where that is eight sums already, or where the masks of 64
        # lanes take up the registers that lanes share.
        per_thread = 2 * vector if problem.itemsize >= 4 and warp == 32 else vector
        block_c = _power_of_two(problem.channels, 64)
        block_w = _power_of_two(problem.width, max(1, threads * per_thread // block_c))
        block_c = _power_of_two(problem.channels, max(1, threads * per_thread // block_w))
    else:
        # Shifted rows have no alignment: a warp reads 32 columns, and a thread has a few channels of its column.
        per_thread = 4
        block_w = _power_of_two(problem.width, 32)
        block_c = _power_of_two(problem.channels, 4 * threads // block_w)
    together = next(n for n in (4, 3, 2, 1) if subpixels % n == 0) if problem.kernel == "fwd" else 1
    # With stride and dilation of one, the windows of neighbouring rows overlap in every row.
    overlap = (g.stride_h, g.stride_w, g.dilation_h, g.dilation_w) == (1, 1, 1, 1)
    step = 2 if overlap and unroll and together == 1 and problem.height > 1 else 1
    block_h = _block_h(problem, block_w, block_c, together, least=step)
    keep_cf = unroll and subpixels == 1
    num_warps = max(1, min(4, block_w * block_c // (warp * per_thread)))
    return LaunchConfig(Tile(block_w, block_c, block_h, step, together, unroll, keep_cf), num_warps)


def _planar_config(problem: Problem) -> LaunchConfig:
    """Return the configuration of `ddf_bwd_filters_planar_kernel`."""
    g, warp = problem.geometry, _warp_size(problem)
    taps = g.kernel_h * g.kernel_w
    tap_rows = g.kernel_h if taps <= 9 else 1
    # A thread keeps a sum and a tap for each tap and row, and loads the pixels of all its windows at once. There are
    # fewer sums with one row of the kernel, where no two windows share a pixel, and where lanes share masks.
    sums = 45 if tap_rows > 1 else 30
    if warp == 64:
        sums = 36 if tap_rows > 1 else 15
    sums //= 1 if problem.itemsize <= 4 else 2
    tiles = cdiv(problem.height, max(1, sums // (tap_rows * g.kernel_w)))
    block_h = cdiv(problem.height, tiles)
    block_w = _power_of_two(problem.width, 32 if tap_rows > 1 else 64)
    # One warp has 32 columns of a channel, so that the sums of the channel filter stay within it. The interpreter has
    # one thread.
    threads = 128 if problem.num_sms > 1 else 4096
    block_c = _power_of_two(problem.channels, max(1, threads // block_w))
    blocks = _power_of_two(cdiv(problem.channels, block_c))
    programs = problem.batch * problem.heads * tiles * cdiv(problem.width, block_w) * g.scale_h * g.scale_w
    wanted, least = 2 * problem.num_sms, max(32, cdiv(taps, 2))  # programs, and channels per program
    while blocks > 1 and block_c * blocks >= 2 * least:
        if programs * cdiv(problem.channels, block_c * blocks) >= wanted:
            break
        blocks //= 2
    num_warps = max(1, min(4, block_w * block_c // warp))
    return LaunchConfig(PlanarTile(block_w, block_c, block_h, blocks, tap_rows), num_warps)


def _filters_config(problem: Problem) -> LaunchConfig:
    """Return the configuration of `ddf_bwd_filters_kernel`, or that of the planar kernel where it is the better one."""
    g = problem.geometry
    taps = g.kernel_h * g.kernel_w
    if not problem.channels_last:
        planar = _planar_config(problem)
        # With more taps the partial sums of the channel filter would outgrow the input.
        if taps <= planar.tile.BLOCK_H * planar.tile.BLOCK_W:
            return planar
    tap_rows = g.kernel_h if taps <= 9 and problem.channels_last else 1
    if problem.channels_last:
        # One warp: a sum over channels stays within it, and no warp waits for another. A thread has four channels of a
        # position, which with all rows of taps is as much as the registers hold, or eight with one row; half of that in
        # double precision. Half types have two positions, so that a load is as wide as it can be.
        block_w, num_warps = 2 if problem.itemsize == 2 and tap_rows > 1 else 1, 1
        per_thread = (4 if problem.itemsize <= 4 else 2) * (2 if tap_rows == 1 else 1)
        block_c = _power_of_two(problem.channels, per_thread * _warp_size(problem))
        if problem.num_sms == 1:
            block_w = 8  # the interpreter takes as long for one as for eight
    else:
        block_w, num_warps = _power_of_two(problem.width, 32), 8
        block_c = _power_of_two(problem.channels, 32)
    # The partial sums of both filters must not outgrow the input: with many taps they are fewer and larger.
    block_c = max(block_c, _power_of_two(problem.channels, _power_of_two(cdiv(taps, 2))))
    num_warps = max(num_warps, min(16, block_w * block_c // 512))
    steps = max(1, min(32, _power_of_two(problem.width)) // block_w)
    least = max(4, _power_of_two(cdiv(4 * taps, block_w * steps)))
    block_h = _block_h(problem, block_w * steps, block_c, 1, least=least)
    return LaunchConfig(FilterTile(block_w, block_c, block_h, steps, tap_rows), num_warps)


def _block_h(problem: Problem, columns: int, channels: int, subpixels: int, least: int) -> int:
    """Return the rows per program: 16, so that few border rows are read twice; fewer where the programs would not fill
    the device."""
    rows = max(least, _power_of_two(problem.height, 16))
    programs = (
        problem.batch
        * problem.heads
        * cdiv(problem.channels, channels)
        * cdiv(problem.width, columns)
        * (problem.geometry.scale_h * problem.geometry.scale_w // subpixels)
    )
    while rows > least and programs * cdiv(problem.height, rows) < 4 * problem.num_sms:
        rows //= 2
    return rows


_recordings: list[list[Problem]] = []  # one list per open `record_problems` block


@contextmanager
def record_problems() -> Iterator[list[Problem]]:
    """Collect the problems that a configuration is chosen for inside a ``with`` block, in a list that grows."""
    problems: list[Problem] = []
    _recordings.append(problems)
    try:
        yield problems
    finally:
        _recordings.pop()


# --- the table ----------------------------------------------------------------------------------------------------

_tables: list[Mapping[str, LaunchConfig]] = []  # one table per open `use_table` block


@contextmanager
def use_table(table: Mapping[str, LaunchConfig]) -> Iterator[None]:
    """Give this table precedence over every other inside a ``with`` block."""
    _tables.append(table)
    try:
        yield
    finally:
        _tables.pop()


def _table() -> Mapping[str, LaunchConfig]:
    if _tables:
        return _tables[-1]
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    return read_table(Path(path)) if path else {}


@functools.cache
def read_table(path: Path) -> Mapping[str, LaunchConfig]:
    """Load the configurations that `write_table` wrote, by `Problem.key`.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    try:
        entries = json.loads(path.read_text())
        return {key: _parse(entry) for key, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must name a table that `ddfnet bench op --tune` wrote, got {path}: {error}"
        ) from None


def _parse(entry: dict[str, Any]) -> LaunchConfig:
    fields, num_warps = dict(entry["tile"]), entry["num_warps"]
    kinds = (kind for kind in (Tile, FilterTile, PlanarTile) if set(kind._fields) == set(fields))
    kind = next(kinds, None)
    if kind is None:
        raise ValueError(f"a tile must have the fields of Tile, FilterTile or PlanarTile, got {', '.join(fields)}")
    tile: AnyTile = kind(**fields)
    for name, value in (*fields.items(), ("num_warps", num_warps)):
        if not isinstance(value, int) or value < (not isinstance(value, bool)):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if name in ("BLOCK_W", "BLOCK_C", "num_warps") and value & (value - 1):
            raise ValueError(f"{name} must be a power of two, got {value!r}")
    if tile.BLOCK_H % getattr(tile, "STEP_H", 1):
        raise ValueError(f"STEP_H must divide BLOCK_H, got {tile}")
    return LaunchConfig(tile, num_warps)


def write_table(path: Path, table: Mapping[str, LaunchConfig]) -> None:
    """Write the configurations to a file that `read_table` loads."""
    entries = {key: {"tile": found.tile._asdict(), "num_warps": found.num_warps} for key, found in table.items()}
    files.atomic_write(path, json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
