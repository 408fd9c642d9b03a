"""What ``ddfnet evaluate depth``, ``classification`` and ``detection`` share: options, names and the results file."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ddfnet import env_info, files
from ddfnet.cli.arguments import positive
from ddfnet.errors import UserError, writable_file


def add_options(parser: argparse.ArgumentParser, of: str = "torch") -> None:
    """The options of every task; ``of`` is whose threads there are."""
    parser.add_argument("--threads", type=positive, metavar="N", help=f"threads of {of}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows, with command, machine and commit")


def prepare(options: argparse.Namespace) -> None:
    """Refuse a results file that could not be written, and set torch's threads."""
    import torch

    if options.json is not None:
        writable_file(options.json)
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def once(checkpoints: Sequence[Path]) -> list[Path]:
    """The whole paths, each of which must be given once."""
    paths = [file.resolve() for file in checkpoints]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UserError(f"--checkpoint {checkpoints[number]} is given twice; give it once")
    return paths


def labels(checkpoints: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """The ends of the paths, the shortest that tell the networks from each other and from names that are taken; with
    the suffix where only that differs."""
    paths = once(checkpoints)
    stems = [path.with_suffix("") for path in paths]
    parts = [path.parts for path in (stems if len(set(stems)) == len(stems) else paths)]
    ends = (["/".join(own[-length:]) for own in parts] for length in count(1))
    return next(names for names in ends if len({*names, *taken}) == len(names) + len(taken))


def write(
    options: argparse.Namespace,
    *,
    data: Any,
    networks: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    **more: Any,
) -> None:
    """Write what ``--json`` asks for, if it does."""
    if options.json is None:
        return
    command = shlex.join(["ddfnet", *sys.argv[1:]])
    about = {"command": command, **more, "data": data, "networks": networks, "machine": env_info.facts()}
    try:
        files.atomic_write(options.json, json.dumps({**about, "rows": rows}, indent=2) + "\n")
    except OSError as error:
        raise UserError(str(error)) from None
