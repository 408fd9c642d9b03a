"""Options, output and requirements that the commands of ``ddfnet bench`` share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ddfnet import env_info
from ddfnet.arguments import comma_separated, positive_int
from ddfnet.bench import documents
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.memory import MemoryUnavailableError
from ddfnet.bench.registry import AnyCase
from ddfnet.bench.result import Result, summarise
from ddfnet.bench.text import result_text, summary_text
from ddfnet.errors import DataError, UserError, require, writable_file
from ddfnet.export.api import MODULES

_Case = TypeVar("_Case", bound=AnyCase)


# --- options --------------------------------------------------------------------------------------------------------


def add_options(
    parser: argparse.ArgumentParser, cases: Collection[str], competitors: Sequence[str] = (), *, cpu_only: bool = False
) -> None:
    """Add the options of every measurement; without competitors, all of them always take part."""
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
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads of torch (default: torch's choice)")
    parser.set_defaults(device="cpu")
    if not cpu_only:
        parser.add_argument("--device", help="device that computes (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file as well")


def add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=positive_int, default=30, metavar="N", help="timings of each competitor (%(default)s)"
    )


def add_group(parser: argparse.ArgumentParser, groups: Collection[str]) -> None:
    parser.add_argument("--group", choices=groups, metavar="NAME", help=f"{', '.join(groups)} (default: default)")


def add_passes(parser: argparse.ArgumentParser) -> None:
    """Add the measurements of operator and layer besides the forward pass."""
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass together as well")
    parser.add_argument(
        "--memory", action="store_true", help="measure the memory beyond inputs and results, each in its own process"
    )


def select_cases(options: argparse.Namespace, cases: Mapping[str, _Case], default: Sequence[str]) -> list[_Case]:
    """Return the cases that the options name, each once."""
    return [cases[name] for name in dict.fromkeys(options.case or default)]


def select_grouped(
    options: argparse.Namespace, cases: Mapping[str, _Case], groups: Mapping[str, Sequence[_Case]]
) -> list[_Case]:
    """Return the cases that the options name, alone or by their group, each once; else the group "default"."""
    group = options.group or (None if options.case else "default")
    named = [*(cases[name] for name in options.case or ()), *(groups[group] if group else ())]
    return list(dict.fromkeys(named))


# --- requirements ---------------------------------------------------------------------------------------------------


def require_libraries(what: str) -> None:
    """Raise a UserError if a library is missing that the benchmark of this name needs."""
    if what in ("network", "export"):
        require("models", ["timm"])
    if what == "export":
        require("export", MODULES)
    if what == "depth":
        require("train", ["cv2", "safetensors", "skimage"])
        import cv2

        if not hasattr(cv2, "ximgproc"):
            raise UserError(
                "this OpenCV has no ximgproc; run: pip uninstall opencv-python opencv-python-headless, then "
                "pip install --force-reinstall opencv-contrib-python-headless"
            )


# --- a run ----------------------------------------------------------------------------------------------------------


def measure(
    options: argparse.Namespace,
    what: str,
    run: Callable[[torch.device], Iterator[Result]],
    text: Callable[[Result], str] = result_text,
) -> int:
    """Print each result of ``run(device)`` as it comes, then the summary, and write the results file."""
    if options.json:
        writable_file(options.json)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = env_info.find_device(options.device)
    machine = env_info.facts()
    kernel = kernel_text(device)
    print(
        f"ddfnet {machine['ddfnet']} ({machine['commit'] or 'no checkout'}), torch {machine['torch']}, "
        f"{machine['system']}"
    )
    print(f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores, load {machine['load']}")
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
        document = documents.Document(what, command, options.rounds, str(device), kernel, machine, results)
        try:
            documents.write(options.json, document)
        except OSError as error:
            raise UserError(str(error)) from None
        print(f"\nresults: {options.json}")
    return 0


def kernel_text(device: torch.device) -> str:
    """Return the kernel that serves this device and the reason, which names the instruction set."""
    name, reason = env_info.kernel(device)
    return f"{name} kernel ({reason})"
