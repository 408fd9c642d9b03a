"""Train networks of the study and measure them: python -m reproduce.restoration.train imagenette112.tar FOLDER

Each task, mixer, comparison and seed writes FOLDER/TASK-MIXER-EQUAL-SEED.json, unless it is there. EQUAL, macs or
parameters, is what a network has as many of as that with DDF. With --validate the images that measure are of the
training part, and none that trains.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ddfnet import env_info, files
from reproduce.restoration import images, networks
from reproduce.steps import train

STEPS, BATCH, RATE, WARMUP = 2500, 8, 1.5e-3, 100
TEST_SEED = 1000


class Windows(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of one run, see `images.batches`."""

    def __init__(self, photos: list[Tensor], task: images.Task, seed: int) -> None:
        self.photos, self.task, self.seed = photos, task, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return images.batches(self.photos, self.task, BATCH, self.seed)


def error(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean absolute error."""
    degraded, clean = batch
    return F.l1_loss(network(degraded.contiguous(memory_format=torch.channels_last)), clean)


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
    network = networks.build(mixer, task.factor, equal, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels = networks.width(mixer, task.factor, equal)
    facts = {"task": name, "mixer": mixer, "equal": equal, "seed": seed, "steps": steps, "channels": channels}
    batches = DataLoader(Windows(trained, task, seed), batch_size=None)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    facts |= networks.costs(mixer, channels, task.factor)
    facts |= train(network, error, batches, optimizer, steps=steps, warmup=WARMUP)
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
    parser.add_argument("--validate", action="store_true")
    given = parser.parse_args()
    trained = images.imagenette(given.imagenette, "train", images.TRAINED)
    if given.validate:
        tests = {"validation": images.imagenette(given.imagenette, "train", images.TESTED, beside=images.TRAINED)}
    else:
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
        files.atomic_write(
            target, json.dumps({**facts, "validate": given.validate, "machine": env_info.facts()}, indent=1) + "\n"
        )
        psnr = ", ".join(f"{part} {facts[part]['psnr']:.2f} dB" for part in tests)
        print(f"{target.stem}: {psnr}; {facts['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
