"""``ddfnet upsample``: guided upsampling of depth maps, one or a folder of them."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ddfnet.arguments import positive_int
from ddfnet.depth import batch, io, pairing
from ddfnet.errors import UserError, require

_MODULES = ("numpy", "PIL", "pyamg", "safetensors", "scipy", "tqdm")


def add(commands: Any) -> None:
    formats = "; ".join(f"{format.name} ({format.description})" for format in io.formats())
    parser = commands.add_parser(
        "upsample",
        help="make a depth map as large and as sharp as an image of the same view",
        description="Makes a depth map as large and as sharp as an image of the same view. The unit and the type "
        f"of the values are kept; 0, nan and inf are missing. Formats: {formats}. With folders, files of the same name "
        "(a.png and a.jpg) are a pair, and results that exist are kept.",
    )
    parser.add_argument("depth", type=Path, metavar="DEPTH", help="the depth map, or a folder of them")
    parser.add_argument(
        "--guide", type=Path, required=True, metavar="IMAGE", help="the guide image, or a folder of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the result, or a folder for them"
    )
    parser.add_argument(
        "--fill",
        nargs="?",
        const="guided",
        choices=("guided", "nearest", "none"),
        help="give what is missing a value: with the guide's help (guided, as --fill alone), or that of the nearest "
        "measured pixel; guided for depth maps of the guide's size, none for others",
    )
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="0 where the depth map, of the same size, is missing; or a folder"
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
        help="the guide's pixel on which the first depth sample lies (the middle of its block); as --offset=-1,2 where "
        "one is negative",
    )
    parser.add_argument(
        "--ratio", type=numbers, metavar="N|Y,X", help="pixels of the guide per depth sample (by the sizes)"
    )
    parser.add_argument(
        "--stretch", action="store_true", help="allow a guide of another aspect ratio, if it shows the same view"
    )
    parser.add_argument("--tile", type=positive_int, metavar="N", help="work in tiles of N pixels, to bound the memory")
    parser.add_argument(
        "--ensemble",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average with the result for the maps transposed; without it twice as fast, and a little less sharp",
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


def numbers(text: str) -> float | tuple[float, float]:
    """Parse an offset or a ratio: one number for both axes, or two as Y,X."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(abs(value) < 1e9 for value in values):
        raise argparse.ArgumentTypeError(f"must be a number, or two as Y,X, got {text!r}")
    return values[0] if len(values) == 1 else (values[0], values[1])


def run(options: argparse.Namespace) -> int:
    require("upsample", _MODULES)
    # Large images are common here: Pillow warns of them, and refuses them from twice that size on.
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")
    if not options.depth.exists():
        raise UserError(f"{options.depth}: no such file or folder")
    if options.model != "auto":
        options.model = _load(options.model)  # once, so that a broken file ends the command before any work
    settings = batch.Settings(**{own.name: getattr(options, own.name) for own in fields(batch.Settings)})
    paths = options.depth, options.guide, options.mask, options.output, options.preview
    if not options.depth.is_dir():
        job = pairing.single(*paths, overwrite=settings.overwrite)
        outcome = batch.upsample_files(job, settings)
        _print_notes({note: [job.depth] for note in outcome.notes})
        print(outcome.line)
        return 0
    jobs, unpaired = pairing.folder(*paths)
    summary = batch.upsample_all(jobs, settings, workers=options.jobs)
    _print_notes(summary.notes)
    problems, count = [*unpaired, *summary.problems], len(jobs) + len(unpaired)
    kept = f", {summary.kept} there already (--overwrite replaces them)" if summary.kept else ""
    print(f"{summary.written} of {count} written to {options.output}{kept}")
    if problems:
        lines = "".join(f"\n  {line}" for line in sorted(problems))
        print(f"ddfnet: error: {len(problems)} of {count} failed:{lines}", file=sys.stderr)
    return 130 if summary.interrupted else 1 if problems else 0


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
