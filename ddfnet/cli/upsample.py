"""``ddfnet upsample``: a small or holed depth map and a photograph in, a sharp depth map in the same unit out."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddfnet.cli.arguments import positive
from ddfnet.depth import batch, pairing
from ddfnet.depth.batch import Done
from ddfnet.depth.pairing import Job
from ddfnet.errors import UserError, require

_MODULES = ("numpy", "PIL", "safetensors", "tqdm")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "upsample",
        help="make a depth map as large and as sharp as a photograph of the same view",
        description="Makes a depth map as large and as sharp as a photograph of the same view. The unit and the type "
        "of the values are kept; 0, nan and inf are missing. Formats: PNG of 16 or 8 bits, TIFF of 16 bits or float32, "
        "NPY, PFM. With folders, files of the same name (a.png and a.jpg) are a pair, and results that exist are kept.",
    )
    parser.add_argument("depth", type=Path, metavar="DEPTH", help="the depth map, or a folder of them")
    parser.add_argument(
        "--guide", type=Path, required=True, metavar="PHOTO", help="the photograph, or the folder of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the result, or the folder for them"
    )
    parser.add_argument("--fill", action="store_true", help="give a value to pixels far from any measured one, too")
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="of the depth map's size, 0 where it is missing; or a folder of them"
    )
    parser.add_argument(
        "--invalid",
        type=float,
        action="append",
        default=[],
        metavar="VALUE",
        help="a value that means missing, besides 0, nan and inf, such as 65535; can be given more than once",
    )
    parser.add_argument(
        "--offset",
        type=numbers,
        metavar="N|Y,X",
        help="the photograph's pixel on which the first depth sample lies (the middle of its block); as "
        "--offset=-1,2 where one is negative",
    )
    parser.add_argument(
        "--ratio",
        type=numbers,
        metavar="N|Y,X",
        help="the photograph's pixels from one sample to the next (by the sizes)",
    )
    parser.add_argument(
        "--stretch", action="store_true", help="allow a photograph of another aspect ratio, if it shows the same view"
    )
    parser.add_argument("--tile", type=positive, metavar="N", help="work in tiles of N pixels, to bound the memory")
    parser.add_argument(
        "--ensemble",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average with the result for the maps transposed; without it twice as fast, and a little less sharp",
    )
    parser.add_argument(
        "--model", default="auto", metavar="FILE", help="weights, a .safetensors file (those of the package)"
    )
    parser.add_argument("--preview", type=Path, metavar="PNG|DIR", help="write a picture to judge the result by")
    parser.add_argument(
        "--disparity", action="store_true", help="large values are near; for the preview, the result is the same"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="depth maps at a time (%(default)s)")
    parser.set_defaults(run=run)


def numbers(text: str) -> float | tuple[float, float]:
    """The type of an offset or a ratio: one number for both axes, or two as Y,X."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(abs(value) < 1e9 for value in values):
        raise argparse.ArgumentTypeError(f"must be a number, or two as Y,X, got {text!r}")
    return values[0] if len(values) == 1 else (values[0], values[1])


def run(options: argparse.Namespace) -> int:
    require("upsample", _MODULES)
    # Large photographs are common here: Pillow warns of them, and refuses them from twice that size on.
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")
    if not options.depth.exists():
        raise UserError(f"{options.depth}: no such file or folder")
    if options.model != "auto":
        options.model = _network(options.model)  # read once, and found to be broken before anything is worked on
    return _run_folder(options) if options.depth.is_dir() else _run_single(options)


def _network(file: str) -> Any:
    from ddfnet.depth import weights_files

    try:
        return weights_files.load(Path(file))
    except (ValueError, OSError) as error:
        raise UserError(f"--model {error}") from None


def _run_single(options: argparse.Namespace) -> int:
    job = pairing.single(options)
    done = batch.upsample(job, options)
    _say_notes({note: [job.depth] for note in done.notes})
    print(done.line)
    return 0


def _run_folder(options: argparse.Namespace) -> int:
    from tqdm import tqdm  # type: ignore[import-untyped]

    jobs, problems = pairing.folder(options)
    count, written, kept = len(jobs) + len(problems), 0, 0
    notes: dict[str, list[Path]] = defaultdict(list)
    interrupted = False
    try:
        with _at_a_time(options.jobs) as pool, tqdm(total=len(jobs), unit="map", disable=None, file=sys.stderr) as bar:
            futures = {pool.submit(batch.upsample, job, options): job for job in jobs}
            for future in as_completed(futures):
                job = futures[future]
                done = _outcome(future, job)
                if isinstance(done, str):
                    problems.append(done)
                    bar.set_postfix(failed=len(problems))
                else:
                    written, kept = written + (done.line is not None), kept + (done.line is None)
                    for note in done.notes:
                        notes[note].append(job.depth)
                bar.update()
    except KeyboardInterrupt:
        interrupted = True
    _say_notes(notes)
    there = f", {kept} there already (--overwrite replaces them)" if kept else ""
    print(f"{written} of {count} written to {options.output}{there}")
    if problems:
        lines = "".join(f"\n  {line}" for line in sorted(problems))
        print(f"ddfnet: error: {len(problems)} of {count} failed:{lines}", file=sys.stderr)
    return 130 if interrupted else 1 if problems else 0


@contextmanager
def _at_a_time(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, among which torch's are shared out; on Ctrl-C what is under way is finished, no more."""
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(max(1, threads // jobs),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _outcome(future: Future[Done], job: Job) -> Done | str:
    """What was done, or why not: whatever became of one depth map, the others go on."""
    try:
        return future.result()
    except UserError as error:
        return str(error)
    except Exception as error:
        text = " ".join(str(error).split())
        return f"{job.depth}: {type(error).__name__}: {text} (a bug: on this file alone the command shows where)"


def _say_notes(notes: dict[str, list[Path]]) -> None:
    for note, paths in notes.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        names = ", ".join(map(str, sorted(paths)[:3]))
        print(f"ddfnet: note: {names}{more}: {note}", file=sys.stderr)
