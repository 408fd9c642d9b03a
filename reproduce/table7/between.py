"""Take the weights between those that a training began with and those that it ended with: run by run.sh.

A training on synthetic scenes gains on such scenes to its end, and on real ones to a point, which was found on every
other one of Middlebury's 15 pairs. Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import load, read_card, save


def main(before: str, after: str, share: str, result: str) -> None:
    """Write ``before + share * (after - before)`` to ``result``, with the card of ``after``.

    Args:
        before: file of the weights that the training began with, see `GuidedUpsampler.begin_with`.
        after: file that it left.
        share: from 0 to 1.
        result: file to write.
    """
    network, made = load(after, GuidedUpsampler), float(share)
    start = GuidedUpsampler(**network.init_args)
    start.begin_with(load(before, GuidedUpsampler))
    first, last = start.state_dict(), network.state_dict()
    with torch.no_grad():
        network.load_state_dict({name: torch.lerp(first[name], last[name], made) for name in last})
    cards: list[dict[str, Any]] = [read_card(file) or {} for file in (before, after)]
    facts = {"share": made, "before": before, "after": after, "metrics": "those of after"}
    earlier = {name: cards[0].get(name) for name in ("data", "between")}
    save(network, result, card={**cards[1], "between": {**facts, "earlier": earlier}})


if __name__ == "__main__":
    main(*sys.argv[1:])
