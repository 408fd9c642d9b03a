"""``ddfnet train depth``: what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.pretrained import Weights, save
from ddfnet.tasks.depth.module import GuidedDepth, GuidedDepthData


def link(parser: LightningArgumentParser) -> None:
    parser.link_arguments("model.factors", "data.multiple", compute_fn=max)


def leave(cli: LightningCLI, weights: Weights, file: Path, facts: dict[str, Any]) -> None:
    card = {
        "network": cli.model.network.init_args,
        "data": "scenes composed on the fly of photographs (ddfnet.data.depth.synthetic.ComposedScenes)",
        "factors": list(cli.model.factors),
        **facts,
    }
    save(cli.model.network, file, card=card, weights=weights)


TASK = Task(GuidedDepth, GuidedDepthData, link, leave, in_steps=True, in_part=True)
