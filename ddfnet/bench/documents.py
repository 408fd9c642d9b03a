"""Results files, written by a run and read by the regression check and the roofline plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddfnet import files
from ddfnet.bench.limits import Limit
from ddfnet.bench.memory import Memory
from ddfnet.bench.registry import SEED, AnyCase, Case, DepthCase, FamilyCase, LayerCase, NetworkCase
from ddfnet.bench.result import Result, costs, summarise
from ddfnet.bench.timing import Timing

_CASES: dict[str, type[AnyCase]] = {
    "op": Case,
    "layer": LayerCase,
    "network": NetworkCase,
    "export": NetworkCase,
    "depth": DepthCase,
    "family": FamilyCase,
}


class ResultsFileError(ValueError):
    """A file that `write` did not write."""


@dataclass(frozen=True)
class Document:
    """One run of a benchmark and its results.

    Args:
        what: the benchmark: "op", "layer", "network", "export", "depth" or "family".
        command: the command line that made it.
        rounds: the number of timings of each competitor.
        device, kernel: the device, and the kernel that served it.
        machine: the facts of `ddfnet.env_info.facts`.
        results: the results of all cases.
    """

    what: str
    command: str
    rounds: int
    device: str
    kernel: str
    machine: Mapping[str, Any]
    results: Sequence[Result]


def write(file: Path, document: Document) -> None:
    """Write JSON with the seed and the summary of the results; for depth also one row per method and case."""
    fields = dict(vars(document)) | {"seed": SEED}
    fields["results"] = [result.as_dict() for result in document.results]
    fields["summary"] = [asdict(summary) for summary in summarise(document.results)]
    if document.what == "depth":
        threads = {"threads": document.machine["threads"]}
        fields["rows"] = [asdict(cost) | threads for result in document.results for cost in costs(result)]
    files.atomic_write(file, json.dumps(fields, indent=2) + "\n")


def read(file: Path) -> Document:
    """Load a file that `write` wrote.

    Raises:
        ResultsFileError: the file cannot be read, or is another one.
    """
    try:
        fields = json.loads(file.read_text())
    except OSError as error:
        raise ResultsFileError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # not JSON, or not even text
        raise ResultsFileError(f"{file} is no results file: {error}") from None
    try:
        case = _CASES[fields["what"]]
        results = [_result(case, dict(result)) for result in fields["results"]]
        names = ("what", "command", "rounds", "device", "kernel", "machine")
        document = Document(**{name: fields[name] for name in names}, results=results)
        for name in ("cpu", "torch", "threads"):
            document.machine[name]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ResultsFileError(
            f"{file} is no results file of this version ({detail}); "
            "make one with ddfnet bench op|layer|network|export|depth|family --json"
        ) from None
    if not results:
        raise ResultsFileError(f"{file} holds no results")
    return document


def _result(case: type[AnyCase], fields: dict[str, Any]) -> Result:
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields["case"].items()
    }
    result = Result(
        **fields
        | {
            "case": case(**sizes),
            "timings": tuple(Timing(**timing) for timing in fields["timings"]),
            "limit": None if fields["limit"] is None else Limit(**fields["limit"]),
            "memory": tuple(Memory(**memory) for memory in fields["memory"]),
        }
    )
    if not {result.ours, result.baseline} <= {timing.competitor for timing in result.timings}:
        raise ValueError(f"{result.case.name} has no timings of {result.ours} and {result.baseline}")
    return result
