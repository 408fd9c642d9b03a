"""What ``ddfnet bench op``, ``layer``, ``network`` and ``depth`` share: options, the head of the output, the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ddfnet import env_info
from ddfnet.arguments import comma_separated, positive_int
from ddfnet.bench import documents
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.memory import MemoryUnavailableError
from ddfnet.bench.registry import AnyCase
from ddfnet.bench.result import Result
from ddfnet.bench.summary import summarise
from ddfnet.cli.bench.text import result_text, summary_text
from ddfnet.errors import DataError, UserError, writable_file

_Case = TypeVar("_Case", bound=AnyCase)


def add_options(
    parser: argparse.ArgumentParser, cases: Collection[str], competitors: Sequence[str] = (), *, cpu_only: bool = False
) -> None:
    """The options of everything that is timed; without competitors, where all always take part."""
    parser.add_argument(
        "--case", action="append", choices=cases, metavar="NAME", help=f"may be repeated: {', '.join(cases)}"
    )
    if competitors:
        parser.add_argument(
            "--only",
            type=comma_separated(competitors),
            metavar="NAMES",
            help=f"only these, of {','.join(competitors)}; ours and its baseline always take part",
        )
    add_rounds(parser)
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads of torch (as torch chooses)")
    parser.set_defaults(device="cpu")
    if not cpu_only:
        parser.add_argument("--device", help="where (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")


def add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=positive_int, default=30, metavar="N", help="timings of each competitor (%(default)s)"
    )


def add_group(parser: argparse.ArgumentParser, groups: Collection[str]) -> None:
    parser.add_argument("--group", choices=groups, metavar="NAME", help=f"{', '.join(groups)} (default: default)")


def add_passes(parser: argparse.ArgumentParser) -> None:
    """What is measured of operator and layer besides a forward pass."""
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass together as well")
    parser.add_argument(
        "--memory", action="store_true", help="measure what is added to inputs and results, in processes of their own"
    )


def measure(
    options: argparse.Namespace,
    what: str,
    run: Callable[[torch.device], Iterator[Result]],
    text: Callable[[Result], str] = result_text,
) -> int:
    """Print each result of ``run(device)`` as it comes, then the summary, and write the file."""
    if options.json:
        writable_file(options.json)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = env_info.device_named(options.device)
    about = env_info.facts()
    kernel = kernel_text(device)
    print(f"ddfnet {about['ddfnet']} ({about['commit'] or 'no checkout'}), torch {about['torch']}, {about['system']}")
    print(f"{about['cpu']}, {about['threads']} of {about['cores']} cores, load {about['load']}")
    print(f"{device}: {kernel}")
    results = []
    try:
        for result in run(device):
            print(f"\n{text(result)}", flush=True)
            results.append(result)
    except (WrongResultError, MemoryUnavailableError, DataError, NotImplementedError) as error:
        raise UserError(str(error)) from None
    print(f"\n{summary_text(summarise(results), results[0].ours)}")
    if options.json:
        command = " ".join(["ddfnet", *sys.argv[1:]])
        document = documents.Document(what, command, options.rounds, str(device), kernel, about, results)
        try:
            documents.write(options.json, document)
        except OSError as error:
            raise UserError(str(error)) from None
        print(f"\nresults: {options.json}")
    return 0


def kernel_text(device: torch.device) -> str:
    """The kernel that serves this device, its vector instructions included."""
    name, reason = env_info.kernel(device)
    return f"{name} kernel ({reason})"


def chosen(options: argparse.Namespace, cases: dict[str, Any], default: Sequence[str]) -> list[Any]:
    """The cases that were named, each once."""
    return [cases[name] for name in dict.fromkeys(options.case or default)]


def grouped(
    options: argparse.Namespace, cases: Mapping[str, _Case], groups: Mapping[str, Sequence[_Case]]
) -> list[_Case]:
    """The cases that were named, alone or by their group, each once; by default those of the group of that name."""
    group = options.group or (None if options.case else "default")
    named = [*(cases[name] for name in options.case or ()), *(groups[group] if group else ())]
    return list(dict.fromkeys(named))
