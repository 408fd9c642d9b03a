"""Helpers for the tests of `ddfnet train` of every task: command lines, and comparisons of two runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


def command(task: str, options: Mapping[str, Any], **others: Any) -> list[str]:
    """Return the words of a command: options by their keys, overridden by others with two underscores for a dot."""
    options = {**options, **{key.replace("__", "."): value for key, value in others.items()}}
    return ["train", task, *(f"--{key}={value}" for key, value in options.items())]


def same(one: Path, other: Path) -> bool:
    """Return True if two files hold the same weights, to the last bit."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def logged(output: Path, name: str) -> list[float]:
    """Return the values that the run in this folder has logged under this name."""
    [file] = (output / "csv").glob("*/metrics.csv")
    return [float(row[name]) for row in csv.DictReader(file.open()) if row[name]]


def losses(output: Path) -> list[float]:
    """Return the loss of each step."""
    return logged(output, "loss")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of torch's threads after a module whose runs set it; import it there."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
