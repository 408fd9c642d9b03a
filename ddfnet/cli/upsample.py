"""``ddfnet upsample``: guided upsampling of depth maps, one or a folder of them."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ddfnet.arguments import positive_float, positive_int
from ddfnet.cli._common import SUMMARIES, mallopt
from ddfnet.depth import batch, io, known_layouts, pairing
from ddfnet.depth.orientation import ORIENTATIONS
from ddfnet.depth.progress import progress_bar
from ddfnet.depth.result_type import DTYPES
from ddfnet.depth.samples import SAMPLES
from ddfnet.depth.valid import FILLS
from ddfnet.errors import UserError, require

_MODULES = ("numpy", "PIL", "pyamg", "safetensors", "scipy", "tqdm")


def add(commands: Any) -> None:
    formats = "; ".join(f"{format.name} ({format.description})" for format in io.formats())
    parser = commands.add_parser(
        "upsample",
        help=SUMMARIES["upsample"],
        description="Makes a depth map as large and as sharp as an image of the same view. The unit "
        f"is kept; 0, nan and inf are missing. Formats: {formats}. With folders, files of the same name "
        "(a.png and a.jpg) are a pair, or those that a list such as TUM's associations.txt or the layout of a known "
        "data set says, and results that exist are kept.",
    )
    parser.add_argument("depth", type=Path, metavar="DEPTH", help="the depth map, or a folder of them")
    parser.add_argument(
        "--guide",
        type=Path,
        metavar="IMAGE",
        help="the guide image, for a folder one for all or a folder of them (the folder of the depth maps)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the result, or a folder for them"
    )
    parser.add_argument(
        "--pairs",
        nargs=2,
        metavar=("DEPTH", "IMAGE"),
        help="names of the files in a folder that are a pair, such as 'depth_{}.png' 'color_{}.jpg'; an IMAGE without "
        "{} is for all",
    )
    parser.add_argument(
        "--associations", type=Path, metavar="FILE", help="list of pairs, two names per line (associations.txt)"
    )
    parser.add_argument(
        "--max-gap",
        type=seconds,
        default=known_layouts.MAX_GAP,
        metavar="SECONDS",
        help="longest time between a depth map and its image, where the files are named by times (%(default)s)",
    )
    parser.add_argument(
        "--fill",
        nargs="?",
        type=_filling,
        const="guided",
        metavar="|".join(FILLS),
        help="give what is missing a value: with the guide's help (guided, as --fill alone), or that of the nearest "
        "measured pixel; guided for depth maps of the guide's size, none for others",
    )
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="0 where the depth map, of the same size, is missing; or a folder"
    )
    parser.add_argument(
        "--least", type=float, metavar="N", help="the mask is a map of confidences, and those from N on count"
    )
    parser.add_argument(
        "--invalid",
        type=float,
        action="append",
        default=[],
        metavar="VALUE",
        help="a value that means missing besides nan and inf, in place of 0; can be given more than once, as in "
        "--invalid 0 --invalid 65535",
    )
    parser.add_argument(
        "--zero",
        choices=("valid", "missing"),
        help="the meaning of 0: a depth, as in inverse or relative depth and disparity, or missing (missing, unless "
        "--invalid or the file says what is)",
    )
    parser.add_argument(
        "--channel",
        metavar="NAME",
        help="the channel, key or data set that is the depth map, where several are",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="the type of the result (floats where its format holds them, otherwise that of the depth map)",
    )
    parser.add_argument(
        "--offset",
        type=numbers,
        metavar="N|Y,X",
        help="the guide's pixel on which the first depth sample lies (the middle of its block); as --offset=-1,2 where "
        "one is negative",
    )
    parser.add_argument(
        "--ratio", type=numbers, metavar="N|Y,X", help="pixels of the guide per depth sample (by the sizes)"
    )
    parser.add_argument(
        "--samples",
        choices=("auto", *SAMPLES),
        default="auto",
        help="the way each depth sample was taken: the depth at one place (point), the mean of its block (average), or "
        "an antialiased bicubic reduction (bicubic); %(default)s tells by the edges",
    )
    parser.add_argument(
        "--stretch", action="store_true", help="allow a guide of another aspect ratio, if it shows the same view"
    )
    parser.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        help="use a guide that its EXIF data says to turn as it is stored, or upright (by aspect ratio and edges)",
    )
    parser.add_argument(
        "--undo-nearest",
        nargs="?",
        type=_block,
        const=0.0,
        metavar="PIXELS",
        help="take the samples of a depth map that was enlarged by nearest neighbour before, in blocks of so many "
        "pixels; alone it finds them",
    )
    parser.add_argument("--tile", type=positive_int, metavar="N", help="work in tiles of N pixels, to bound the memory")
    parser.add_argument(
        "--quality",
        choices=("best", "fast"),
        default="best",
        help="best: average with the result for the maps transposed; fast: half the time, a little less sharp (best)",
    )
    parser.add_argument(
        "--sharpness",
        type=positive_float,
        default=1.0,
        metavar="N",
        help="above 1 fewer pixels fly between two surfaces, as for point clouds, with a larger error (%(default)g)",
    )
    parser.add_argument(
        "--model", default="auto", metavar="FILE", help="weights, a .safetensors file (those of the package)"
    )
    parser.add_argument("--preview", type=Path, metavar="PNG|DIR", help="write an image to judge the result by")
    parser.add_argument(
        "--disparity", action="store_true", help="large values are near; for the preview, the result is the same"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="depth maps at a time (%(default)s)")
    parser.set_defaults(run=run)


def _filling(text: str) -> str:
    if text not in FILLS:
        raise argparse.ArgumentTypeError(
            f"must be guided, nearest or none, got {text!r}; write --fill=guided before a file"
        )
    return text


def _block(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 1 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number of pixels from 1 on, got {text!r}; alone it goes last")
    return value


def numbers(text: str) -> float | tuple[float, float]:
    """Parse an offset or a ratio: one number for both axes, or two as Y,X."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(abs(value) < 1e9 for value in values):
        raise argparse.ArgumentTypeError(f"must be a number, or two as Y,X, got {text!r}")
    return values[0] if len(values) == 1 else (values[0], values[1])


def seconds(text: str) -> float:
    """Parse a time: a number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, got {text!r}")
    return value


def run(options: argparse.Namespace) -> int:
    require("upsample", _MODULES)
    # Large images are common here: Pillow warns of them, and refuses them from twice that size on.
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")
    if options.tile and options.own_process:
        return_memory()
    if not options.depth.exists():
        raise UserError(f"{options.depth}: no such file or folder")
    if options.least is not None and options.mask is None:
        raise UserError("--least needs a --mask, the map of confidences")
    return _run_folder(options) if options.depth.is_dir() else _run_file(options)


def return_memory() -> bool:
    """Let glibc return each large block when it is freed; otherwise it keeps some, hundreds of megabytes in all.

    The system clears the pages anew for the next block, which takes time, so only where memory is to be bounded.

    Returns:
        True if this C library has the setting.
    """
    mmap_threshold = -3  # constant of malloc.h
    return mallopt(mmap_threshold, 2**20)


def _run_file(options: argparse.Namespace) -> int:
    for name in ("guide", "pairs", "associations"):
        if (getattr(options, name) is None) == (name == "guide"):
            need = "is required with" if name == "guide" else "is for folders, this is"
            raise UserError(f"--{name} {need} a single depth map, {options.depth}")
    paths = options.depth, options.guide, options.mask, options.output, options.preview
    job = pairing.single(*paths, overwrite=options.overwrite)
    settings = _settings(options)
    with progress_bar():
        outcome = batch.upsample_files(job, settings)
    _print_notes({note: [job.depth] for note in outcome.notes})
    print(outcome.line)
    return 0


def _run_folder(options: argparse.Namespace) -> int:
    jobs, pairs = pairing.folder(
        options.depth,
        options.guide or options.depth,
        options.mask,
        options.output,
        options.preview,
        patterns=options.pairs,
        associations=options.associations,
        max_gap=options.max_gap,
    )
    if pairs.rule or pairs.spare:
        spare = f"; {pairs.spare} images without a depth map are left out" if pairs.spare else ""
        print(f"ddfnet: note: {len(jobs)} pairs {pairs.rule}".rstrip() + spare, file=sys.stderr)
    summary = batch.upsample_all(jobs, _settings(options))
    _print_notes(summary.notes)
    problems, count = [*pairs.problems, *summary.problems], len(jobs) + len(pairs.problems)
    kept = f", {summary.kept} there already (--overwrite replaces them)" if summary.kept else ""
    print(f"{summary.written} of {count} written to {options.output}{kept}")
    if problems:
        lines = "".join(f"\n  {line}" for line in sorted(problems))
        print(f"ddfnet: error: {len(problems)} of {count} failed:{lines}", file=sys.stderr)
    return 130 if summary.interrupted else 1 if problems else 0


def _settings(options: argparse.Namespace) -> batch.Settings:
    """Return the settings of the options, with the network loaded once, so that a broken file ends the command early.

    Nothing before this needs torch, whose import takes longer than every check of arguments and files.
    """
    if options.model != "auto":
        options.model = _load(options.model)
    return batch.Settings(**{own.name: getattr(options, own.name) for own in fields(batch.Settings)})


def _load(file: str) -> Any:
    from ddfnet.depth.network import GuidedUpsampler
    from ddfnet.pretrained import load

    try:
        return load(file, GuidedUpsampler)
    except (ValueError, OSError) as error:
        raise UserError(f"--model {error}") from None


def _print_notes(notes: Mapping[str, Sequence[Path]]) -> None:
    for note, paths in notes.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        names = ", ".join(map(str, sorted(paths)[:3]))
        print(f"ddfnet: note: {names}{more}: {note}", file=sys.stderr)
