"""Look into the layers of small networks while they learn: python -m reproduce.learning.look cifar10-validation.tar

Trains each row of `ROWS` for N steps in the recipe of table 3 and writes to results/look.json, for each mixer of the
network at the steps of `SEEN`:

- ``update``: of each parameter, the length of an update over the length of the parameter, mean of the last steps;
- ``energy``: mean square of the output over that of the input;
- ``rank``: effective rank of the output's channels, (tr S)^2 / tr S^2 with their covariance S, over their number;
- ``neighbours``: correlation of the spatial filters of pixels side by side, less the mean filter of the map;
- ``dynamic``: the share of the output's variance that is lost where all images and pixels have the mean filter.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from ddfnet import env_info, files
from ddfnet.nn import DDF2d
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier
from reproduce.learning import forms  # noqa: F401  (registers started_resnet23)

HERE = Path(__file__).parent
RECIPE = HERE.parent / "table3" / "cifar10.yaml"
SEEN = (0, 30, 100, 200)
WINDOW = 20  # steps over which updates are averaged

ROWS: dict[str, dict[str, Any]] = {
    "depthwise": {"mixer": "depthwise"},
    "channel": {"mixer": "ddf", "block_args": {"filters": "channel"}},
    "spatial": {"mixer": "ddf", "block_args": {"filters": "spatial"}},
    "spatial-none": {"mixer": "ddf", "block_args": {"filters": "spatial", "norm": "none"}},
    "ddf": {"mixer": "ddf"},
    "start-depthwise": {"mixer": "ddf", "block_args": {"norm": "none", "zero_init": True}},
    "scale": {"mixer": "ddf", "scale": "depthwise"},
    "started": {"mixer": "ddf", "scale": "depthwise", "predict": "torch"},
    "static": {"mixer": "ddf", "block_args": {"static": True}},
}
"""Options of `forms.started_resnet23` by row; without ``scale`` and ``predict`` it is `small_resnet23`."""


class Look(lightning.Callback):
    """Record what each mixer does to the first batch of images, and how much its parameters move."""

    def __init__(self) -> None:
        self.images: Tensor | None = None
        self.seen: dict[int, dict[str, Any]] = {}
        self.moves: dict[str, list[float]] = defaultdict(list)
        self.before: dict[str, Tensor] = {}
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        if self.images is None:
            self.images = batch["image"].contiguous(memory_format=torch.channels_last)
        if trainer.global_step in SEEN:
            updates = {name: math.fsum(moves[-WINDOW:]) / len(moves[-WINDOW:]) for name, moves in self.moves.items()}
            self.seen[trainer.global_step] = {"update": updates} | self.outputs(module.network)
            self.moves.clear()
        if self.near(trainer.global_step):
            self.before = {name: parameter.detach().clone() for name, parameter in parameters(module.network)}

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        self.losses.append(float(outputs["loss"]))
        if not self.before:
            return
        for name, parameter in parameters(module.network):
            old = self.before[name]
            if length := float(old.norm()):
                self.moves[name].append(float((parameter.detach() - old).norm()) / length)
        self.before = {}

    @staticmethod
    def near(step: int) -> bool:
        """Return whether updates of a step count for the next of `SEEN`."""
        return any(seen - WINDOW <= step < seen for seen in SEEN)

    @torch.no_grad()
    def outputs(self, network: nn.Module) -> dict[str, Any]:
        found: dict[str, Any] = {}
        hooks = [
            layer.register_forward_hook(lambda layer, x, y, name=name: found.update({name: facts(layer, x[0], y)}))
            for name, layer in mixers(network)
        ]
        network(self.images)  # in training mode, whose batch norms have the statistics of these images
        for hook in hooks:
            hook.remove()
        return {"mixers": found}


def mixers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in network.named_modules():
        if name.endswith(".conv2"):
            yield name, layer


def parameters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of the mixers, and the 1x1 convolutions beside them to compare with."""
    for name, parameter in network.named_parameters():
        if ".conv" in name:
            yield name, parameter


def facts(layer: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return what a mixer does to its input x (N, C, H, W), float32, where y is its output."""
    values = y.transpose(0, 1).flatten(1)
    covariance = torch.cov(values)
    result = {
        "energy": float(y.square().mean() / x.square().mean()),
        "rank": float(covariance.trace() ** 2 / covariance.square().sum()) / len(covariance),
    }
    if not isinstance(layer, DDF2d):
        return result
    n, c = x.shape[:2]
    taps = math.prod(layer.kernel_size)
    channel, spatial = layer.predict(x)
    per_channel = x.new_ones(n, c, taps) if channel is None else channel.flatten(2)
    if spatial is None:
        mean = per_channel.mean(0)
    else:
        centered = spatial - spatial.mean((2, 3), keepdim=True)
        along = (centered[..., 1:] * centered[..., :-1]).mean() / centered.square().mean()
        result["neighbours"] = float(along)
        per_pixel = spatial.mean((2, 3)).unflatten(1, (layer.heads, taps)).repeat_interleave(c // layer.heads, 1)
        mean = (per_channel * per_pixel).mean(0)
    static = F.conv2d(x, mean.view(c, 1, *layer.kernel_size), None, layer.stride, layer.padding, 1, c)
    result["dynamic"] = float((y - static).var() / y.var())
    return result


def train(images: Path, row: str, steps: int, precision: str) -> dict[str, Any]:
    options = ROWS[row]
    recipe = yaml.safe_load(RECIPE.read_text())
    lightning.seed_everything(0)
    model = Classifier(
        **recipe["model"] | {"network": "started_resnet23", "network_options": options, "compile": False}
    )
    data = ClassificationData(str(images), num_classes=recipe["model"]["num_classes"], **recipe["data"])
    look = Look()
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=recipe["trainer"]["max_epochs"],  # the schedule is that of the whole run
        max_steps=-1,
        limit_val_batches=0,
        callbacks=[look, Stop(steps)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    blocks = [math.fsum(look.losses[at : at + 50]) / 50 for at in range(0, len(look.losses) - 49, 50)]
    return {"precision": precision, "options": options, "steps": steps, "loss_of_50_steps": blocks, "seen": look.seen}


class Stop(lightning.Callback):
    """End the run after so many steps, on the schedule of the whole run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--steps", type=int, default=max(SEEN) + 1)
    parser.add_argument("--precision", default="32-true", help="such as bf16-mixed, as the recipe has it")
    arguments = parser.parse_args()
    target = HERE / "results" / "look.json"
    target.parent.mkdir(exist_ok=True)
    results = json.loads(target.read_text()) if target.exists() else {"rows": {}}
    for row in arguments.rows or ROWS:
        results["rows"][row] = train(arguments.images, row, arguments.steps, arguments.precision)
        results |= {"command": "python -m reproduce.learning.look cifar10-validation.tar", "machine": env_info.facts()}
        files.atomic_write(target, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
