"""One depth map from its files to its files: read, judged, upsampled, written."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.depth.pairing import Job
from ddfnet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Done:
    """What is said of a depth map that was upsampled; no line where its results were there already."""

    line: str | None = None
    notes: list[str] = field(default_factory=list)


def upsample(job: Job, options: argparse.Namespace) -> Done:
    """Do one job with the options of ``ddfnet upsample``.

    Returns:
        What was done.

    Raises:
        UserError: a line that names the file and says what is wrong with it. Nothing was written then, except that a
            result is there where only its preview failed.
    """
    from ddfnet.depth import io
    from ddfnet.errors import DataError

    wanted = [path for path in job.results() if options.overwrite or not path.exists()]
    if not wanted:
        return Done()
    start = time.perf_counter()
    try:
        depth = io.read(job.depth).values
        io.check_holds(job.output, depth.dtype)
        guide = io.read_guide(job.guide)
        check_sizes(job, depth.shape, guide.shape[:2], stretch=options.stretch)
        valid, notes = _valid(job, depth, options.invalid)
        result = _computed(job, depth, guide, valid, options)
        if job.output in wanted:
            io.write(job.output, result)
        if job.preview in wanted:
            _write_preview(job.preview, depth, valid, guide, result, options)
    except DataError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - start
    line = f"{job.output}: {guide.shape[1]} x {guide.shape[0]}, {result.dtype}, {_missing(result)}in {seconds:.1f} s"
    return Done(line, notes)


def _computed(job: Job, depth: Array, guide: Array, valid: Array, options: argparse.Namespace) -> Array:
    """The upsampled map, with the errors of a function that does not know the file."""
    from ddfnet.depth.upsample import upsample_depth

    chosen = {name: getattr(options, name) for name in ("ratio", "offset", "model", "tile", "fill", "ensemble")}
    try:
        return upsample_depth(depth, guide, valid=valid, **chosen)
    except (ValueError, TypeError) as error:
        raise UserError(f"{job.depth}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch has no class of its own
            raise
        raise UserError(f"{job.depth}: not enough memory; give a --tile, such as 512, and fewer --jobs") from None


def check_sizes(job: Job, small: Sequence[int], large: Sequence[int], *, stretch: bool) -> None:
    """Refuse a guide that is smaller than the depth map, or shows another view by its shape.

    The sizes fit if one factor explains both: it takes the guide's to the depth map's to within one sample, however
    they were rounded.
    """
    sizes = [f"{size[1]} x {size[0]}" for size in (small, large)]
    if large[0] < small[0] or large[1] < small[1]:
        raise UserError(
            f"{job.guide}: a guide at least as large as the depth map is required; it is {sizes[1]}, "
            f"{job.depth} is {sizes[0]}"
        )
    least = max(length / (own + 1) for own, length in zip(small, large, strict=True))
    most = min(length / (own - 1) if own > 1 else float("inf") for own, length in zip(small, large, strict=True))
    if least >= most and not stretch:
        shapes = [f"{size[1] / size[0]:.3f}" for size in (small, large)]
        raise UserError(
            f"{job.guide}: a guide of the depth map's aspect ratio is required; it is {sizes[1]} ({shapes[1]}), "
            f"{job.depth} is {sizes[0]} ({shapes[0]}); "
            f"crop one to the other's view, or give --stretch if both show the same"
        )


def _valid(job: Job, depth: Array, invalid: Sequence[float]) -> tuple[Array, list[str]]:
    """Where the depth map (h, w) counts, and what should be said of it."""
    import numpy as np

    from ddfnet.depth import io

    finite = np.isfinite(depth)
    valid = finite & (depth != 0)
    for value in invalid:
        valid &= depth != value
    if job.mask is not None:
        mask = io.read_mask(job.mask)
        if mask.shape != depth.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (mask.shape, depth.shape)]
            raise UserError(f"{job.mask}: the mask must have the depth map's size, {sizes[1]}, it has {sizes[0]}")
        valid &= mask
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
    if not finite.all():
        notes.append("nan or inf counts as missing")
    return valid, notes


def _write_preview(
    path: Path, depth: Array, valid: Array, guide: Array, result: Array, options: argparse.Namespace
) -> None:
    from ddfnet.depth.alignment import aligned_bilinear
    from ddfnet.depth.preview import preview
    from ddfnet.depth.upsample import places
    from ddfnet.files import atomic_open

    y, x = places(depth.shape, guide.shape, options.ratio, options.offset)
    size = (guide.shape[0], guide.shape[1])
    bilinear = aligned_bilinear(depth, size, valid=valid, ratio=(y.ratio, x.ratio), offset=(y.offset, x.offset))
    picture = preview(depth, valid, guide, bilinear, result, nearer="large" if options.disparity else "small")
    try:
        with atomic_open(path) as stream:
            picture.save(stream, "PNG")
    except OSError as error:
        raise UserError(str(error)) from None


def _missing(result: Array) -> str:
    import numpy as np

    share = 1 - np.count_nonzero(np.isfinite(result) & (result != 0)) / result.size
    return f"{share:.1%} missing, " if share else ""
