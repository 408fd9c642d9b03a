"""Data that the processes of a training exchange, by formula; writes results.json and the tables of docs/scale.md.

python reproduce/scale/communication.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch

import ddfnet
import ddfnet.models

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "scale.md"
NETWORKS = ("resnet50", "ddf_mul_resnet50", "resnet101", "ddf_mul_resnet101")
GPUS = (8, 64)
IMAGES = 1_281_167  # size of ImageNet's training part
RECIPES = {"paper": (256, 120), "released": (1024, 130)}  # batch, epochs
BYTES = 4  # size of a gradient in float32
_MARKS = ("<!-- {} -->\n", "<!-- end of {} -->")


def all_reduce(parameters: int, gpus: int) -> float:
    """Return the bytes that each GPU sends per step to sum all gradients in a ring: two rounds less one hop each."""
    return 2 * (gpus - 1) / gpus * BYTES * parameters


def sharded(parameters: int, gpus: int) -> float:
    """Return the same for sharded weights: gathered forward and backward, and the gradients scattered."""
    return 3 * (gpus - 1) / gpus * BYTES * parameters


def network(name: str) -> dict[str, Any]:
    """Return the size of a network, and the bytes that it sends."""
    with torch.device("meta"):
        model = timm.create_model(name)
    cost = ddfnet.profiler.estimate(model.eval(), (1, 3, 224, 224))
    return {
        "parameters": cost.parameters,
        "buffers": sum(buffer.numel() for buffer in model.buffers()),
        "macs": cost.predicted.macs,
        "sent_a_step": {gpus: all_reduce(cost.parameters, gpus) for gpus in GPUS},
        "sent_a_step_sharded": {gpus: sharded(cost.parameters, gpus) for gpus in GPUS},
        "sent_a_run": {
            recipe: {gpus: IMAGES // batch * epochs * all_reduce(cost.parameters, gpus) for gpus in GPUS}
            for recipe, (batch, epochs) in RECIPES.items()
        },
    }


def tables(results: dict[str, dict[str, Any]]) -> str:
    """Format the results in Markdown."""
    step = ["| | parameters | MACs | " + " | ".join(f"DDP, {g} GPUs | FSDP, {g} GPUs" for g in GPUS) + " |"]
    step.append("|---" * (3 + 2 * len(GPUS)) + "|")
    run = ["| TB per GPU | " + " | ".join(f"`{r}`, {g} GPUs" for r in RECIPES for g in GPUS) + " |"]
    run.append("|---" * (1 + len(RECIPES) * len(GPUS)) + "|")
    for name, row in results.items():
        cells = [f"{kind[g] / 1e6:.0f} MB" for g in GPUS for kind in (row["sent_a_step"], row["sent_a_step_sharded"])]
        size = [f"{row['parameters'] / 1e6:.2f} M", f"{row['macs'] / 1e9:.2f} G"]
        step.append(f"| `{name}` | " + " | ".join([*size, *cells]) + " |")
        cells = [f"{row['sent_a_run'][r][g] / 1e12:.0f}" for r in RECIPES for g in GPUS]
        run.append(f"| `{name}` | " + " | ".join(cells) + " |")
    for conv, ddf in (NETWORKS[:2], NETWORKS[2:]):
        shares = [results[ddf][key] / results[conv][key] for key in ("parameters", "macs")]
        cells = [f"{share:.2f}" for share in [*shares, *[shares[0]] * (2 * len(GPUS))]]
        step.append(f"| `{ddf}` / `{conv}` | " + " | ".join(cells) + " |")
    return "\n".join([*step, "", *run]) + "\n"


def page(text: str, content: str, name: str = "communication") -> str:
    """Return a page with new content between its marks."""
    begin, end = (mark.format(name) for mark in _MARKS)
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end)[1]


def main() -> None:
    results = {name: network(name) for name in NETWORKS}
    facts = {"command": "python reproduce/scale/communication.py", "images": IMAGES, "recipes": RECIPES}
    (HERE / "results.json").write_text(json.dumps(facts | {"networks": results}, indent=2) + "\n")
    PAGE.write_text(page(PAGE.read_text(), tables(results)))


if __name__ == "__main__":
    main()
