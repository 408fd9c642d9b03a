"""``ddfnet export``: a network, a layer or the operator to ONNX, or to a program that PyTorch runs."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddfnet.arguments import positive_int
from ddfnet.cli._common import SUMMARIES
from ddfnet.errors import UserError, keep_inputs, require, writable_file
from ddfnet.export.formats import FORMATS


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help=SUMMARIES["export"],
        description="Writes a model with dynamic batch, height and width: onnx, with standard operators only; pt2, for "
        "torch.export.load; aoti, a library that AOTInductor compiles for this CPU. OUT.json is a report on the file.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a file that `ddfnet train` left; a name that timm knows, such as ddf_mul_resnet50; GuidedUpsampler (with "
        "the package's weights); fasterrcnn_resnet50_fpn (its backbone and pyramid); ddf, ddf_upsample; or a layer, "
        "such as DDF2d",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="format (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="file (MODEL.onnx or MODEL.pt2, here)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of a network of timm")
    parser.add_argument(
        "--size", type=height_and_width, metavar="N|HxW", help="height and width to trace at (by the model)"
    )
    parser.add_argument(
        "--batch", type=positive_int, default=2, metavar="N", help="batch to trace at, 2 or more (%(default)s)"
    )
    parser.add_argument(
        "--step",
        type=positive_int,
        metavar="N",
        help="number that heights and widths must be multiples of (by the model)",
    )
    parser.add_argument("--opset", type=positive_int, metavar="N", help="version of ONNX's operators (18)")
    parser.add_argument("--check", action="store_true", help="compare file and model at three other sizes")
    parser.add_argument("--tolerance", type=float, metavar="T", help="tolerance of the check (1e-4 of the output)")
    parser.add_argument(
        "--times", type=positive_int, default=0, metavar="N", help="time model and file N times, in turns"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT and its report if they exist")
    parser.set_defaults(run=run)


def height_and_width(text: str) -> tuple[int, int]:
    """Parse a size: one number for both sides, or HxW."""
    sides = [positive_int(part) for part in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must be a number, or two as HxW, got {text!r}")
    return sides[0], sides[-1]


def run(options: argparse.Namespace) -> int:
    from ddfnet.export import ExportError, MismatchError, api
    from ddfnet.export.catalog import subject

    if options.format == "onnx":
        require("export", api.MODULES)
    output = options.output or Path(Path(options.model).stem + (".onnx" if options.format == "onnx" else ".pt2"))
    if options.tolerance is not None and not options.check:
        raise UserError("--tolerance is of the check; give --check too")
    if options.opset is not None and options.format != "onnx":
        raise UserError(f"--opset is of ONNX's operators, and {options.format} has none of them")
    for file in (output, api.report_file(output)):
        writable_file(keep_inputs(file, (options.model, options.checkpoint)))
        if file.exists() and not options.overwrite:
            raise UserError(f"{file} exists; give --overwrite to replace it, or write to another name")
    try:
        with warnings.catch_warnings(), _silent_log():
            warnings.simplefilter("ignore")  # PyTorch's exporters warn about themselves
            chosen = subject(options.model, options.checkpoint)
            if chosen.note:
                print(f"note: {chosen.note}")
            report = api.export(
                chosen.model,
                chosen.inputs,
                output,
                format=options.format,
                size=(options.batch, *(options.size or chosen.size)),
                step=options.step or chosen.step,
                opset=options.opset or api.OPSET,
                check=options.check,
                tolerance=options.tolerance,
                times=options.times,
            )
    except MismatchError as error:
        print(summary(error.report))
        raise UserError(str(error)) from None
    except ModuleNotFoundError as error:
        raise UserError(_missing(error)) from None
    except (ExportError, ValueError, OSError) as error:
        raise UserError(str(error)) from None
    print(summary(report))
    return 0


@contextmanager
def _silent_log() -> Iterator[None]:
    """Let no library log warnings: those of PyTorch's compilers are about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def summary(report: Any) -> str:
    """Return a summary of a report for the terminal."""
    facts = report.facts
    operators = sum(facts["operators"].values())
    opset = f", opset {facts['opset']}" if "opset" in facts else ""
    lines = [
        f"{report.file}: {facts['bytes'] / 2**20:.1f} MiB, {operators} nodes of {len(facts['operators'])} kinds{opset}"
    ]
    for group in ("inputs", "outputs"):
        for name, own in facts[group].items():
            lines.append(f"  {group[:-1]} {name}: {own['dtype']} ({', '.join(map(str, own['shape']))})")
    for each in report.differences:
        batch, height, width = each.size
        verdict = "agrees" if each.agrees else "DOES NOT AGREE"
        lines.append(f"  {each.output} at {batch}x{height}x{width}: {verdict}, largest difference {each.largest:.3g}")
    if "milliseconds" in facts:
        times = facts["milliseconds"]
        lines.append(f"  model {times['model']:.1f} ms, file {times['file']:.1f} ms, {times['threads']} threads")
    lines.append(f"report: {report.json_file}")
    return "\n".join(lines)


def _missing(error: ModuleNotFoundError) -> str:
    """Return a message that names the extra: the package's own errors do, those of an import do not."""
    return (
        str(error) if "pip install" in str(error) else f"{error.name} not installed; run: pip install 'ddfnet[models]'"
    )
