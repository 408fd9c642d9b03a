"""``ddfnet bench op``: the operator beside convolutions and beside other computations of the same result."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddfnet import env_info
from ddfnet.bench import op
from ddfnet.bench.competitors import NAMES
from ddfnet.bench.registry import CASES, GROUPS, Case
from ddfnet.cli.bench import _common
from ddfnet.errors import UserError, writable_file
from ddfnet.ops import backends

_COMPETITOR_OPTIONS = ("only", "threads", "json", "backward", "memory", "no_compile")  # useless with --tune


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "op",
        help="the operator beside convolutions, unfold and torch.compile",
        description="Times the operator beside depthwise and dense conv2d, an unfold formulation, torch.compile of "
        "the formula, and the machine's own limit: in one process, interleaved round by round, each in its better "
        "memory format. Each case is checked against the float64 reference first. The baseline of half types is "
        "depthwise conv2d in float32.",
    )
    _common.add_options(parser, CASES, NAMES)
    _common.add_group(parser, GROUPS)
    _common.add_passes(parser)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--dtype", choices=("float64", "float32", "bfloat16", "float16"), help="instead of the dtype of the case"
    )
    parser.add_argument(
        "--tune",
        type=Path,
        metavar="FILE",
        help="time the Triton kernels with other tiles instead, and write those that beat the heuristic to this file, "
        "for DDFNET_TRITON_TILES",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.tune:
        return _tune(options)
    only = options.only
    if options.no_compile:
        only = [name for name in only or NAMES if name != "compiled"]
    return _common.measure(
        options,
        "op",
        lambda device: op.run(
            _cases(options),
            rounds=options.rounds,
            backward=options.backward,
            only=only,
            measure_memory=options.memory,
            device=device,
        ),
    )


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = _common.select_grouped(options, CASES, GROUPS)
    return [replace(case, dtype=options.dtype) for case in cases] if options.dtype else cases


def _tune(options: argparse.Namespace) -> int:
    useless = [f"--{name.replace('_', '-')}" for name in _COMPETITOR_OPTIONS if getattr(options, name)]
    if useless:
        raise UserError(f"--tune times no competitors: leave out {', '.join(useless)}")
    device = env_info.find_device(options.device)
    possible, why = backends.can_run("triton", device)
    if not possible:
        raise UserError(f"--tune is for the Triton kernels, which cannot serve {device}: {why}")
    from ddfnet.bench import tune  # imports Triton
    from ddfnet.ops.triton.config import write_table

    writable_file(options.tune)
    print(f"{device}: {why}")
    table = {}
    for tuned in tune.run(_cases(options), rounds=options.rounds, device=device):
        print(tuned, flush=True)
        if tuned.is_faster:
            table[tuned.problem.key] = tuned.config
    try:
        write_table(options.tune, table)
    except OSError as error:
        raise UserError(str(error)) from None
    print(f"\nconfigurations that beat the heuristic's: {len(table)}, in {options.tune}")
    return 0
