"""``ddfnet bench op``: the operator beside convolutions and beside other ways to compute the same."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.cli import machine
from ddfnet.cli.arguments import positive
from ddfnet.cli.errors import UserError, writable_file
from ddfnet.cli.table import table

if TYPE_CHECKING:
    from ddfnet.benchmarks.registry import Case
    from ddfnet.benchmarks.run import Result


def add(commands: Any) -> None:
    try:
        from ddfnet.benchmarks.registry import CASES, GROUPS
    except ModuleNotFoundError:  # a checkout without symbolic links, as git makes it on Windows
        bench = commands.add_parser("bench", help="time the operator (not in this checkout)", add_help=False)
        bench.set_defaults(run=_missing)
        return

    bench = commands.add_parser("bench", help="time the operator", description="Time parts of ddfnet.")
    subjects = bench.add_subparsers(title="what", metavar="WHAT", required=True)
    parser = subjects.add_parser(
        "op",
        help="the operator beside convolutions, unfold and torch.compile",
        description="Times the operator beside depthwise and dense conv2d, an unfold formulation and torch.compile of "
        "the formula: in one process, interleaved round by round, each in its better memory format. Each case is "
        "checked against the float64 reference first.",
    )
    parser.add_argument(
        "--case", action="append", choices=CASES, metavar="NAME", help=f"may be repeated: {', '.join(CASES)}"
    )
    parser.add_argument("--group", choices=GROUPS, metavar="NAME", help=f"{', '.join(GROUPS)} (default: default)")
    parser.add_argument(
        "--rounds", type=positive, default=30, metavar="N", help="timings of each competitor (%(default)s)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of torch (as torch chooses)")
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass together as well")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--dtype", choices=("float64", "float32", "bfloat16", "float16"), help="instead of the case's own"
    )
    parser.add_argument("--device", default="cpu", help="where (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.set_defaults(run=run)


def _missing(options: argparse.Namespace) -> int:
    raise UserError("ddfnet/benchmarks is a symbolic link to benchmarks, which this checkout lacks; install a wheel")


def run(options: argparse.Namespace) -> int:
    import torch

    from ddfnet.benchmarks import run as runner

    cases = _cases(options)
    if options.json:
        writable_file(options.json)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = _device(options.device)
    about = machine.facts()
    kernel, reason = machine.kernel(device)
    print(f"ddfnet {about['ddfnet']} ({about['commit'] or 'no checkout'}), torch {about['torch']}, {about['system']}")
    print(f"{about['cpu']}, {about['threads']} of {about['cores']} cores, load {about['load']}")
    print(f"{device}: {kernel} kernel ({reason})")
    results = []
    try:
        for result in runner.run(
            cases,
            rounds=options.rounds,
            backward=options.backward,
            compiled=not options.no_compile,
            device=device,
        ):
            print(f"\n{_text(result)}", flush=True)
            results.append(result)
    except (runner.WrongResultError, NotImplementedError) as error:
        raise UserError(str(error)) from None
    if options.json:
        settings = {"rounds": options.rounds, "device": str(device), "kernel": f"{kernel} ({reason})"}
        document = {"command": _command(), "machine": about, **settings, "results": [r.as_dict() for r in results]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
        print(f"\nresults: {options.json}")
    return 0


def _cases(options: argparse.Namespace) -> list[Case]:
    from ddfnet.benchmarks.registry import CASES, GROUPS

    named = [CASES[name] for name in options.case or ()]
    group = options.group or (None if named else "default")
    cases = list(dict.fromkeys([*named, *(GROUPS[group] if group else ())]))
    return [replace(case, dtype=options.dtype) for case in cases] if options.dtype else cases


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or a torch that was built without it
        raise UserError(f"no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def _command() -> str:
    return " ".join(["ddfnet", *sys.argv[1:]])


def _text(result: Result) -> str:
    headers = ["", "format", "ms", "p20", "p80", "x depthwise", "other format"]
    rows = [
        [
            t.competitor,
            t.memory_format,
            *(f"{v:.3f}" for v in (t.median, t.p20, t.p80)),
            f"{t.ratio:.2f}",
            f"{t.other_median:.3f}",
        ]
        for t in result.timings
    ]
    title = f"{result.case} {result.direction} (checked: error {result.error:.2g} of what rounding explains)"
    notes = [f"{name}: left out, {reason}" for name, reason in result.skipped.items()]
    return "\n".join([title, table(headers, rows, left=2), *notes])
