"""Train networks of the study and measure them: python -m reproduce.restoration.train imagenette112.tar FOLDER

Each task, mixer, comparison and seed writes FOLDER/TASK-MIXER-EQUAL-SEED.json, unless it is there. EQUAL, macs or
parameters, is what a network has as many of as that with DDF.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ddfnet import env_info, files
from reproduce.restoration import images, networks

STEPS, BATCH, RATE, WARMUP = 2500, 8, 1.5e-3, 100
TEST_SEED = 1000


class Windows(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of one run, see `images.batches`."""

    def __init__(self, photos: list[Tensor], task: images.Task, seed: int) -> None:
        self.photos, self.task, self.seed = photos, task, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return images.batches(self.photos, self.task, BATCH, self.seed)


class Restoration(lightning.LightningModule):
    """Mean absolute error, Adam, a warm-up and a cosine to zero."""

    def __init__(self, network: networks.Restorer, steps: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.steps, self.losses = steps, []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        degraded, clean = batch
        loss = F.l1_loss(self.network(degraded.contiguous(memory_format=torch.channels_last)), clean)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.network.parameters(), RATE)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=WARMUP)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps - WARMUP)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, fall], [WARMUP])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.inference_mode()
def measure(network: networks.Restorer, photos: list[Tensor], task: images.Task) -> dict[str, float]:
    """Return the mean PSNR in dB and SSIM over images, four pixels off their border, rounded to 8 bits."""
    network.eval()
    generator = torch.Generator().manual_seed(TEST_SEED)
    found: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for photo in photos:
        clean = photo[None].float() / 255
        result = (network(task.degrade(clean, generator)).clamp(0, 1) * 255).round() / 255
        pair = result[..., 4:-4, 4:-4], clean[..., 4:-4, 4:-4]
        found["psnr"].append(float(peak_signal_noise_ratio(*pair, data_range=1.0)))
        found["ssim"].append(float(structural_similarity_index_measure(*pair, data_range=1.0)))  # type: ignore[arg-type]
    return {name: fmean(values) for name, values in found.items()}


def run(name: str, mixer: str, equal: str, seed: int, steps: int, trained: list[Tensor]) -> tuple[Any, dict[str, Any]]:
    """Train one network; return it and what it is."""
    task = images.TASKS[name]
    network = networks.build(mixer, task.factor, equal, seed)
    module = Restoration(network, steps)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begun = time.perf_counter()
    trainer.fit(module, DataLoader(Windows(trained, task, seed), batch_size=None))
    facts = {"task": name, "mixer": mixer, "equal": equal, "seed": seed, "steps": steps}
    channels = networks.width(mixer, task.factor, equal)
    facts |= {"channels": channels, **networks.costs(mixer, channels, task.factor)}
    facts["seconds"] = round(time.perf_counter() - begun)
    facts["loss"] = [fmean(module.losses[at : at + 100]) for at in range(0, steps, 100)]
    return network, facts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("imagenette")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=images.TASKS, default=list(images.TASKS))
    parser.add_argument("--mixers", nargs="+", choices=networks.MIXERS, default=list(networks.MIXERS))
    parser.add_argument("--equal", nargs="+", choices=("macs", "parameters"), default=["macs", "parameters"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    trained = images.imagenette(given.imagenette, "train", images.TRAINED)
    tests = {
        "imagenette": images.imagenette(given.imagenette, "val", images.TESTED),
        "photographs": list(images.photographs().values()),
    }
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed, name, equal, mixer in itertools.product(given.seeds, given.tasks, given.equal, given.mixers):
        target = given.folder / f"{name}-{mixer}-{equal}-{seed}.json"
        if target.exists() or (mixer == "ddf" and equal != "macs"):  # that network is the same in both comparisons
            continue
        network, facts = run(name, mixer, equal, seed, given.steps, trained)
        facts |= {part: measure(network, own, images.TASKS[name]) for part, own in tests.items()}
        files.atomic_write(target, json.dumps({**facts, "machine": env_info.facts()}, indent=1) + "\n")
        psnr = ", ".join(f"{part} {facts[part]['psnr']:.2f} dB" for part in tests)
        print(f"{target.stem}: {psnr}; {facts['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
