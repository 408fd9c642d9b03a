"""``ddfnet bench family``: operators of other papers beside their unfold forms."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import family
from ddfnet.bench.registry import FAMILY, FAMILY_GROUPS
from ddfnet.cli.bench import _common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "family",
        help="the operators of ddfnet.family beside their unfold forms",
        description="Times the operators of ddfnet.family (CARAFE, involution, PAC, ...) beside their common "
        "form without a kernel, with F.unfold: interleaved round by round. Each is checked against that form first.",
    )
    _common.add_options(parser, FAMILY)
    _common.add_group(parser, FAMILY_GROUPS)
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass together as well")
    parser.set_defaults(run=run, rounds=10)  # a call of the unfold forms takes a second


def run(options: argparse.Namespace) -> int:
    cases = _common.select_grouped(options, FAMILY, FAMILY_GROUPS)
    return _common.measure(
        options,
        "family",
        lambda device: family.run(cases, rounds=options.rounds, backward=options.backward, device=device),
    )
