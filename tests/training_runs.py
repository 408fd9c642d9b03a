"""What the tests of `ddfnet train` share, whatever the task: the words of a command, and whether two runs are alike."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


def command(task: str, options: Mapping[str, Any], **others: Any) -> list[str]:
    """Of the command, the options by their keys, and others laid over them with two underscores for a dot."""
    options = {**options, **{key.replace("__", "."): value for key, value in others.items()}}
    return ["train", task, *(f"--{key}={value}" for key, value in options.items())]


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, to the last bit."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def logged(output: Path, name: str) -> list[float]:
    """What the log of the run in this folder has by this name."""
    [file] = (output / "csv").glob("*/metrics.csv")
    return [float(row[name]) for row in csv.DictReader(file.open()) if row[name]]


def losses(output: Path) -> list[float]:
    """Of each step."""
    return logged(output, "loss")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Imported by a module whose runs set torch's threads: puts them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
