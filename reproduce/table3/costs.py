"""Costs of the networks: parameters and MACs by `ddfnet.profiler.estimate`; time and memory measured in turn.

python reproduce/table3/costs.py            # about ten minutes, on an idle machine
python reproduce/table3/costs.py --planned  # parameters and MACs alone
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rows import ROWS  # noqa: E402

import ddfnet  # noqa: E402
import ddfnet.models  # noqa: E402
from ddfnet import env_info  # noqa: E402
from ddfnet.bench import memory  # noqa: E402
from ddfnet.tasks.classification import comparison  # noqa: E402

SHAPE, BATCH, ROUNDS = (3, 32, 32), 128, 20


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("small_resnet23", num_classes=10, **ROWS[name].options)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def planned(name: str) -> dict[str, Any]:
    cost = ddfnet.profiler.estimate(network(name).eval(), (1, *SHAPE))
    return {"parameters": cost.parameters, "macs": cost.predicted.macs}


def step(name: str) -> Callable[[], tuple[Tensor, ...]]:
    """Return a training step of the recipe, after two warm-up steps."""
    model = network(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, *SHAPE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))

    def take() -> tuple[Tensor, ...]:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return ()

    take(), take()
    return take


def measured() -> dict[str, dict[str, Any]]:
    """Measure median milliseconds, the rows in turn, and the MiB of a step without weights and momenta."""
    inference = comparison.milliseconds(
        {name: network(name).eval() for name in ROWS}, SHAPE, batch_sizes=(1, BATCH), rounds=ROUNDS
    )
    steps, times = {name: step(name) for name in ROWS}, {name: [] for name in ROWS}
    for _ in range(ROUNDS):
        for name, take in steps.items():
            start = time.perf_counter()
            take()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {
            "milliseconds": inference[name],
            "step_milliseconds": statistics.median(times[name]),
            "step_mib": memory.measure(name, "channels_last", step, name).added,
        }
        for name in ROWS
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--planned", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {name: planned(name) for name in ROWS}
    if not options.planned:
        for name, own in measured().items():
            rows[name] |= own
    facts = {"command": "python " + " ".join(sys.argv), "batch": BATCH, "machine": env_info.facts()}
    (HERE / "costs.json").write_text(json.dumps(facts | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
