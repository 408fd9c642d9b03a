"""Batch jobs: depth maps upsampled from files to files, one or a folder of them."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.depth import io
from ddfnet.depth.alignment import align, aligned_bilinear, covers, same_aspect_ratio
from ddfnet.depth.pairing import Job
from ddfnet.depth.valid import MISSING, valid_depth
from ddfnet.errors import DataError, UserError
from ddfnet.files import atomic_open

if TYPE_CHECKING:
    import numpy as np

    from ddfnet.depth.network import GuidedUpsampler

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Settings:
    """Settings of a batch: those of `ddfnet.upsample_depth`, and those of its files.

    Attributes:
        ratio, offset, model, tile, fill, ensemble: see `ddfnet.upsample_depth`.
        invalid: values that mean missing, besides 0, nan and inf.
        stretch: allow a guide of another aspect ratio.
        disparity: large values are near; for the preview alone.
        overwrite: replace results that exist.
    """

    ratio: float | tuple[float, float] | None = None
    offset: float | tuple[float, float] | None = None
    model: str | Path | GuidedUpsampler = "auto"
    tile: int | None = None
    fill: str | bool | None = None
    ensemble: bool = True
    invalid: Sequence[float] = ()
    stretch: bool = False
    disparity: bool = False
    overwrite: bool = False


@dataclass
class Outcome:
    """Outcome of one job: a line about its result, or None where all results existed; and notes on its input."""

    line: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class JobSummary:
    """Outcome of many jobs.

    Attributes:
        written: number of jobs whose results were written.
        kept: number of jobs whose results existed.
        problems: one line per failed job.
        notes: depth maps by the note on them.
        interrupted: whether Ctrl-C ended it before all jobs had begun.
    """

    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    notes: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    interrupted: bool = False


def upsample_files(job: Job, settings: Settings) -> Outcome:
    """Do one job.

    Raises:
        UserError: a line that names the file and its fault. Nothing was written then, except that a result is there
            where only its preview failed.
    """
    wanted = [path for path in job.results() if settings.overwrite or not path.exists()]
    if not wanted:
        return Outcome()
    start = time.perf_counter()
    try:
        depth = io.read(job.depth).values
        io.check_holds(job.output, depth.dtype)
        guide = io.read_guide(job.guide)
        check_sizes(job, depth.shape, guide.shape[:2], stretch=settings.stretch)
        valid, notes = _read_valid(job, depth, settings.invalid)
        result = _upsample(job, depth, guide, valid, settings)
        if job.output in wanted:
            io.write(job.output, result)
        if job.preview in wanted:
            _write_preview(job.preview, depth, valid, guide, result, settings)
    except DataError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - start
    missing = 1 - valid_depth(result).mean()
    share = f"{missing:.1%} missing, " if missing else ""
    line = f"{job.output}: {guide.shape[1]} x {guide.shape[0]}, {result.dtype}, {share}in {seconds:.1f} s"
    return Outcome(line, notes)


def upsample_all(jobs: Sequence[Job], settings: Settings, *, workers: int = 1) -> JobSummary:
    """Do jobs, ``workers`` at a time, with a progress bar on a terminal; the others go on where one fails."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    summary = JobSummary()
    try:
        with _thread_pool(workers) as pool, tqdm(total=len(jobs), unit="map", disable=None, file=sys.stderr) as bar:
            futures = {pool.submit(upsample_files, job, settings): job for job in jobs}
            for future in as_completed(futures):
                _add(summary, future, futures[future])
                if summary.problems:
                    bar.set_postfix(failed=len(summary.problems))
                bar.update()
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


def _add(summary: JobSummary, future: Future[Outcome], job: Job) -> None:
    try:
        outcome = future.result()
    except UserError as error:
        summary.problems.append(str(error))
    except Exception as error:
        text = " ".join(str(error).split())
        bug = f"{type(error).__name__}: {text} (a bug: on this file alone the command shows where)"
        summary.problems.append(f"{job.depth}: {bug}")
    else:
        summary.written += outcome.line is not None
        summary.kept += outcome.line is None
        for note in outcome.notes:
            summary.notes[note].append(job.depth)


@contextmanager
def _thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool that shares torch's threads out to its own; on Ctrl-C it finishes the jobs that have begun."""
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _upsample(job: Job, depth: Array, guide: Array, valid: Array, settings: Settings) -> Array:
    """Call the depth tool, with the name of the file before its errors."""
    from ddfnet.depth.upsample import upsample_depth

    options: dict[str, Any] = {
        name: getattr(settings, name) for name in ("ratio", "offset", "model", "tile", "fill", "ensemble")
    }
    try:
        return upsample_depth(depth, guide, valid=valid, **options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{job.depth}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch has no class of its own
            raise
        raise UserError(f"{job.depth}: not enough memory; give a --tile, such as 512, and fewer --jobs") from None


def check_sizes(job: Job, depth_size: Sequence[int], guide_size: Sequence[int], *, stretch: bool) -> None:
    """Refuse a guide that is smaller than the depth map, or that shows another view by its aspect ratio.

    Raises:
        UserError: such a guide, and the mend.
    """
    sizes = [f"{size[1]} x {size[0]}" for size in (depth_size, guide_size)]
    if not covers(guide_size, depth_size):
        raise UserError(
            f"{job.guide}: a guide at least as large as the depth map is required; it is {sizes[1]}, "
            f"{job.depth} is {sizes[0]}"
        )
    if not stretch and not same_aspect_ratio(guide_size, depth_size):
        ratios = [f"{size[1] / size[0]:.3f}" for size in (depth_size, guide_size)]
        raise UserError(
            f"{job.guide}: a guide of the depth map's aspect ratio is required; it is {sizes[1]} ({ratios[1]}), "
            f"{job.depth} is {sizes[0]} ({ratios[0]}); "
            f"crop one to the other's view, or give --stretch if both show the same"
        )


def _read_valid(job: Job, depth: Array, invalid: Sequence[float]) -> tuple[Array, list[str]]:
    """Return where the depth map (h, w) is valid, its mask included, and notes on it."""
    import numpy as np

    valid: Array = valid_depth(depth, missing=(*MISSING, *invalid))
    if job.mask is not None:
        mask = io.read_mask(job.mask)
        if mask.shape != depth.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (mask.shape, depth.shape)]
            raise UserError(f"{job.mask}: the mask must have the depth map's size, {sizes[1]}, it has {sizes[0]}")
        valid = valid & mask
    if not valid.any():
        raise UserError(f"{job.depth}: no valid pixel: all are 0, nan, inf, --invalid or masked out")
    if (negative := depth[valid & (depth < 0)]).size:
        raise UserError(
            f"{job.depth}: depth must not be negative, {negative.size} pixels are, down to {negative.min()}; give "
            f"--invalid {negative.min()} if that means missing, or a --mask"
        )
    notes = []
    if depth.dtype == np.uint8:
        notes.append("8-bit depth, at most 255 steps, and so is the result; 16 bits hold finer ones")
    if not np.isfinite(depth).all():
        notes.append("nan or inf counts as missing")
    return valid, notes


def _write_preview(path: Path, depth: Array, valid: Array, guide: Array, result: Array, settings: Settings) -> None:
    from ddfnet.depth.preview import preview

    y, x = align(depth.shape, guide.shape, settings.ratio, settings.offset)
    size = (guide.shape[0], guide.shape[1])
    bilinear = aligned_bilinear(depth, size, valid=valid, ratio=(y.ratio, x.ratio), offset=(y.offset, x.offset))
    page = preview(depth, valid, guide, bilinear, result, nearer="large" if settings.disparity else "small")
    try:
        with atomic_open(path) as stream:
            page.save(stream, "PNG")
    except OSError as error:
        raise UserError(str(error)) from None
