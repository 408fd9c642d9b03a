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
from threading import Event
from typing import TYPE_CHECKING, Any

from ddfnet.depth import io
from ddfnet.depth.enlarged import even_blocks, find_blocks
from ddfnet.depth.orientation import as_stored, choose_orientation, exif_orientation
from ddfnet.depth.pairing import Job
from ddfnet.depth.progress import stop_by
from ddfnet.depth.result_type import ResultType, result_type
from ddfnet.depth.sizes import ASPECT_TOLERANCE, ROWS, aspect_error, covers, same_aspect_ratio, tile_slices
from ddfnet.depth.valid import check_negative, missing_values, seeming, valid_depth
from ddfnet.errors import DataError, UserError, out_of_memory
from ddfnet.files import atomic_open

if TYPE_CHECKING:
    import numpy as np

    from ddfnet.depth.network import GuidedUpsampler

    Array = np.ndarray[Any, np.dtype[Any]]

_SMALL_TILE = 512  # pixels; smaller ones save little, and cost time: each is computed with its surroundings


@dataclass(frozen=True)
class Settings:
    """Settings of a batch: those of `ddfnet.upsample_depth`, and those of its files.

    Attributes:
        ratio, offset, samples, model, tile, fill, quality, sharpness: see `ddfnet.upsample_depth`.
        invalid: values that mean missing besides nan and inf, in place of 0.
        zero: "valid" where 0 is a depth, "missing" where it is none whatever ``invalid`` and the file say.
        least: smallest value of a mask that counts, for a map of confidences; None where all but 0 do.
        channel: name of the channel, key or data set that is the depth map.
        dtype: number type of the results, one of `ddfnet.depth.result_type.DTYPES`, or None.
        stretch: allow a guide of another aspect ratio.
        orientation: "stored" or "upright" for a guide that its EXIF data says to turn; None for what fits.
        undo_nearest: take the samples of a depth map that was enlarged by nearest neighbour before: 0 where they lie on
            a grid that can be found, else the pixels per sample; None takes the map as it is.
        disparity: large values are near; for the preview alone.
        overwrite: replace results that exist.
        jobs: depth maps at a time.
    """

    ratio: float | tuple[float, float] | None = None
    offset: float | tuple[float, float] | None = None
    samples: str = "auto"
    model: str | Path | GuidedUpsampler = "auto"
    tile: int | None = None
    fill: str | None = None
    quality: str = "best"
    sharpness: float = 1.0
    invalid: Sequence[float] = ()
    zero: str | None = None
    least: float | None = None
    channel: str | None = None
    dtype: str | None = None
    stretch: bool = False
    orientation: str | None = None
    undo_nearest: float | None = None
    disparity: bool = False
    overwrite: bool = False
    jobs: int = 1


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
    start, enlarged = time.perf_counter(), True
    try:
        found = io.read(job.depth, channel=settings.channel)
        missing = missing_values(invalid=settings.invalid, zero=settings.zero, declared=found.missing)
        try:
            kind = result_type(found, job.output, settings.dtype, missing)
        except UserError as error:
            raise UserError(f"{job.depth}: {error}") from None
        valid, notes = _read_valid(job, found, missing, settings)
        depth, valid = _undo_nearest(found.values, valid, notes, settings.undo_nearest)
        guide = _read_guide(job, depth, valid, notes, settings.orientation)
        check_sizes(job, depth.shape, guide.shape[:2], notes, stretch=settings.stretch)
        enlarged = depth.shape != guide.shape[:2]
        if not enlarged and valid.all():
            notes.append("nothing is missing: it has the guide's size and no holes, so the result is a copy")
            result = kind.prepare(depth)
        else:
            result = _upsample(job, kind.prepare(depth), guide, valid, settings)
        notes += kind.notes(result)
        share = _missing_share(result, () if kind.zero_is_depth else (0,))
        if job.output in wanted:
            notes += _write(job, kind, result, depth.shape, settings)
        if job.preview in wanted:
            _write_preview(job.preview, depth, valid, guide, kind.unmarked(result), settings)
    except DataError as error:
        raise UserError(str(error)) from None
    except Exception as error:
        if out_of_memory(error):
            raise UserError(f"{job.depth}: not enough memory; {_memory_mend(settings, enlarged=enlarged)}") from None
        raise
    seconds = time.perf_counter() - start
    missing_pixels = f"{share:.1%} missing, " if share else ""
    line = f"{job.output}: {guide.shape[1]} x {guide.shape[0]}, {kind.dtype}, {missing_pixels}in {seconds:.1f} s"
    return Outcome(line, notes)


def upsample_all(jobs: Sequence[Job], settings: Settings) -> JobSummary:
    """Do jobs, with a progress bar on a terminal; the others go on where one fails."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    summary = JobSummary()
    try:
        with (
            _thread_pool(settings.jobs) as pool,
            tqdm(total=len(jobs), unit="map", disable=None, file=sys.stderr) as bar,
        ):
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
    """Open a pool that shares torch's threads out to its own.

    On Ctrl-C it finishes the jobs that have begun. On SIGTERM, behind which SIGKILL comes soon, it leaves them.
    """
    import torch

    threads, stop = torch.get_num_threads(), Event()

    def prepare() -> None:
        torch.set_num_threads(max(1, threads // workers))
        stop_by(stop)

    pool = ThreadPoolExecutor(workers, initializer=prepare)
    try:
        yield pool
    except SystemExit:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _upsample(job: Job, depth: Array, guide: Array, valid: Array, settings: Settings) -> Array:
    """Call the depth tool, with the name of the file before its errors."""
    from ddfnet.depth.upsample import upsample_depth

    options: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("ratio", "offset", "samples", "model", "tile", "fill", "quality", "sharpness")
    }
    try:
        return upsample_depth(depth, guide, valid=valid, **options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{job.depth}: {error}") from error


def _memory_mend(settings: Settings, *, enlarged: bool) -> str:
    """Return what helps where memory was short: tiles only where the map is enlarged."""
    if enlarged and (settings.tile is None or settings.tile > _SMALL_TILE):
        return f"give --tile {_SMALL_TILE}, with which the guide, the result and about 1 GiB are enough"
    if settings.jobs > 1:
        return f"give fewer --jobs than {settings.jobs}"
    needed = "the guide, the result and about 1 GiB are needed" if enlarged else "filling takes several such maps"
    return f"{needed}; end other programs, or cut both maps into parts"


def _undo_nearest(depth: Array, valid: Array, notes: list[str], ratio: float | None) -> tuple[Array, Array]:
    """Return the depth map and its mask, or the samples of both where an enlargement is to be undone."""
    blocks = even_blocks((depth.shape[0], depth.shape[1]), ratio) if ratio else find_blocks(depth)
    if blocks is None:
        if ratio is not None:
            notes.append(
                "--undo-nearest: no blocks of equal pixels on a grid were found, so it is taken as it is; "
                "--undo-nearest=3 would take blocks of 3 x 3 pixels"
            )
        return depth, valid
    if ratio is None:
        notes.append(f"it was enlarged by nearest neighbour, from {blocks}; --undo-nearest upsamples these samples")
        return depth, valid
    notes.append(f"enlarged by nearest neighbour before, so it is taken as {blocks}")
    return blocks.take(depth), blocks.take(valid)


def _read_guide(job: Job, depth: Array, valid: Array, notes: list[str], wanted: str | None) -> Array:
    """Return the guide, turned as its EXIF data says or as it is stored."""
    guide = io.read_guide(job.guide)
    orientation = exif_orientation(job.guide)
    if orientation == 1 or wanted == "upright":
        return guide
    if wanted == "stored":
        return as_stored(guide, orientation)
    guide, note = choose_orientation(guide, orientation, depth, valid)
    notes.append(note)
    return guide


def check_sizes(
    job: Job, depth_size: Sequence[int], guide_size: Sequence[int], notes: list[str], *, stretch: bool
) -> None:
    """Refuse a guide that is smaller than the depth map, or that shows another view by its aspect ratio.

    Args:
        job: files, for messages.
        depth_size: (h, w).
        guide_size: (H, W).
        notes: gets a note where the aspect ratios differ by no more than `ASPECT_TOLERANCE`.
        stretch: allow any aspect ratio.

    Raises:
        UserError: such a guide, and the mend.
    """
    sizes = [f"{size[1]} x {size[0]}" for size in (depth_size, guide_size)]
    if not covers(guide_size, depth_size):
        raise UserError(
            f"{job.guide}: a guide at least as large as the depth map is required; it is {sizes[1]}, "
            f"{job.depth} is {sizes[0]}"
        )
    if stretch or same_aspect_ratio(guide_size, depth_size):
        return
    if (error := aspect_error(guide_size, depth_size)) <= ASPECT_TOLERANCE:
        notes.append(f"its aspect ratio and the guide's differ by {error:.1%}; they are taken for the same view")
    else:
        ratios = [f"{size[1] / size[0]:.3f}" for size in (depth_size, guide_size)]
        raise UserError(
            f"{job.guide}: a guide of the depth map's aspect ratio is required; it is {sizes[1]} ({ratios[1]}), "
            f"{job.depth} is {sizes[0]} ({ratios[0]}); "
            f"crop one to the other's view, or give --stretch if both show the same"
        )


def _missing_share(result: Array, missing: Sequence[float]) -> float:
    """Return the share of pixels that are not valid."""
    parts = (result[rows] for rows in tile_slices(len(result), ROWS))
    return 1 - sum(int(valid_depth(part, missing=missing).sum()) for part in parts) / result.size


def _read_valid(job: Job, found: io.DepthMap, missing: Sequence[float], settings: Settings) -> tuple[Array, list[str]]:
    """Return where the depth map (h, w) is valid, its mask included, and notes on it."""
    import numpy as np

    depth = found.values
    valid: Array = valid_depth(depth, missing=missing)
    if job.mask is not None:
        mask = io.read_mask(job.mask, least=settings.least)
        if mask.shape != depth.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (mask.shape, depth.shape)]
            raise UserError(f"{job.mask}: the mask must have the depth map's size, {sizes[1]}, it has {sizes[0]}")
        valid = valid & mask
    if not valid.any():
        named = "".join(f"{value:g}, " for value in missing)
        raise UserError(f"{job.depth}: no valid pixel: all are {named}nan, inf or masked out")
    if found.missing is None:
        check_negative(job.depth, depth, valid, missing)
    notes = [*found.notes, *seeming(depth, valid, missing)]
    if settings.invalid and settings.zero is None and 0 not in missing and (zeros := (depth == 0).mean()):
        notes.append(f"0 counts as a depth, in {zeros:.1%} of the pixels; if it is none, give --zero missing too")
    if depth.dtype == np.uint8:
        notes.append("8-bit depth, at most 255 steps; 16 bits hold finer ones")
    if not np.isfinite(depth).all():
        notes.append("nan or inf counts as missing")
    return valid, notes


def _write(job: Job, kind: ResultType, result: Array, size: Sequence[int], settings: Settings) -> list[str]:
    """Write a result with what the depth map's file says besides its values, and return notes on what is lost.

    Args:
        job: files.
        kind: number type, and the depth map as it was read.
        result: (H, W).
        size: (h, w) of the samples that were upsampled, which are fewer than the map's where an enlargement was undone.
        settings: settings of the batch.
    """
    try:
        values = kind.convert(result)
    except UserError as error:
        raise UserError(f"{job.depth}: {error}") from None
    ratio, offset = [1.0, 1.0], [0.0, 0.0]
    if (own := kind.source.values.shape) != result.shape:
        from ddfnet.depth.alignment import align

        # The options are about the samples; an enlarged map itself lies evenly on the guide.
        options = (settings.ratio, settings.offset) if own == size else (None, None)
        axes = align(own, result.shape, *options)
        ratio, offset = [axis.ratio for axis in axes], [axis.offset for axis in axes]
    io.write(job.output, values, source=kind.source, ratio=ratio, offset=offset)
    lost = "georeference" in kind.source.extras and io.format_of(job.output).name != kind.source.format
    return ["the georeference is not written; name the result .tif for it"] if lost else []


def _write_preview(path: Path, depth: Array, valid: Array, guide: Array, result: Array, settings: Settings) -> None:
    from ddfnet.depth.alignment import align, aligned_bilinear
    from ddfnet.depth.preview import preview, shown_pixels

    y, x = align(depth.shape, guide.shape, settings.ratio, settings.offset)
    size = (guide.shape[0], guide.shape[1])
    own: dict[str, Any] = {"valid": valid, "ratio": (y.ratio, x.ratio), "offset": (y.offset, x.offset)}
    bilinear = aligned_bilinear(depth, size, **own, wanted=shown_pixels(size))
    page = preview(depth, valid, guide, bilinear, result, nearer="large" if settings.disparity else "small")
    try:
        with atomic_open(path) as stream:
            page.save(stream, "PNG")
    except OSError as error:
        raise UserError(str(error)) from None
