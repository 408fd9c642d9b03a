"""``ddfnet evaluate``: trained networks beside their competitors, on data that none was trained on."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ddfnet import env_info, files
from ddfnet.arguments import positive_int
from ddfnet.cli._common import SUMMARIES, TRAINING_MODULES, quiet
from ddfnet.errors import UserError, keep_inputs, require, writable_file
from ddfnet.tasks import TASKS, TaskSpec
from ddfnet.tasks.evaluation import EvaluationTable


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help=SUMMARIES["evaluate"],
        description="Measures trained networks on data that none was trained on, beside their competitors.",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    for spec in TASKS.values():
        if (evaluation := spec.evaluation) is not None:
            own = tasks.add_parser(spec.name, help=spec.summary, description=evaluation.description)
            evaluation.add_arguments(own)
            own.add_argument(
                "--threads", type=positive_int, metavar="N", help=f"threads of {evaluation.thread_libraries}"
            )
            own.add_argument(
                "--json",
                type=Path,
                metavar="FILE",
                help="write all rows, with command, machine and commit, after each table",
            )
            own.set_defaults(run=run, task=spec)


def run(options: argparse.Namespace) -> int:
    spec: TaskSpec = options.task
    assert spec.evaluation is not None
    require("train", [*TRAINING_MODULES, *spec.modules])
    import torch

    if options.json is not None:
        writable_file(keep_inputs(options.json, _inputs(options)))
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    quiet()
    tables: list[EvaluationTable] = []
    try:
        for table in spec.evaluation.run(options):
            print("\n" * bool(tables) + table.text, flush=True)
            tables.append(table)
            if options.json is not None:  # after each table: a run of hours may be interrupted
                _write(options.json, tables)
    except ValueError as error:  # DataError among them
        raise UserError(" ".join(str(error).split())) from None
    return 0


def _inputs(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the files and folders among the options, whatever the task calls them, and the cards beside them."""
    for name, value in vars(options).items():
        for each in value if isinstance(value, list) else [value]:
            if name != "json" and isinstance(each, str | Path):
                yield Path(each)
                if Path(each).suffix:
                    yield Path(each).with_suffix(".json")
                if program := str(each).rpartition(":")[0]:
                    yield Path(program)  # FILE.py of FILE.py:FUNCTION


def _write(file: Path, tables: Sequence[EvaluationTable]) -> None:
    contents = [table.as_dict() for table in tables]
    results = {
        "command": shlex.join(["ddfnet", *sys.argv[1:]]),
        **{name: value for name, value in contents[-1].items() if name != "rows"},
        "machine": env_info.facts(),
        "rows": [row for content in contents for row in content["rows"]],
    }
    try:
        files.atomic_write(file, json.dumps(results, indent=2) + "\n")
    except OSError as error:
        raise UserError(str(error)) from None
