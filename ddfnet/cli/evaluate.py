"""``ddfnet evaluate``: trained networks, and what they are compared with, on data that none was trained on."""

from __future__ import annotations

from typing import Any

from ddfnet.cli import evaluate_classification, evaluate_depth, evaluate_detection


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure trained networks beside what they are compared with",
        description="Measures trained networks on data that none was trained on, beside what they are compared with.",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    for task in (evaluate_depth, evaluate_classification, evaluate_detection):
        task.add(tasks)
