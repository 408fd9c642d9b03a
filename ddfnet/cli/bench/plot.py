"""``ddfnet bench plot``: the roofline plot of results of ``ddfnet bench op``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ddfnet.bench import documents, roofline
from ddfnet.errors import UserError, keep_inputs, require, writable_file


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "plot",
        help="draw the roofline plot of results of bench op",
        description="Draws the speed of each case in results files of bench op below the limit of the machine.",
    )
    parser.add_argument("file", nargs="+", type=Path, metavar="FILE", help="written by bench op --json")
    parser.add_argument(
        "--out", type=Path, default=Path("roofline.svg"), metavar="FILE", help="the image (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("demo", ["matplotlib"])
    try:
        read = [documents.read(file) for file in options.file]
    except documents.ResultsFileError as error:
        raise UserError(str(error)) from None
    writable_file(keep_inputs(options.out, options.file))
    titles = dict.fromkeys(
        f"{document.machine['cpu']}, {document.machine['threads']} threads, {document.kernel}" for document in read
    )
    try:
        roofline.draw([result for document in read for result in document.results], "\n".join(titles), options.out)
    except ValueError as error:
        raise UserError(f"cannot draw {options.out}: {error}") from None
    print(options.out)
    return 0
