"""Photographs, and what is done to them: noise of two kinds, and a reduction by four."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ddfnet.data.archives import members

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # they are scikit-image's, and in no training
TRAINED, TESTED = 4000, 100  # images of Imagenette


def photographs() -> dict[str, Tensor]:
    """Return photographs that scikit-image ships, (3, H, W), uint8, with sides that four divides."""
    from skimage import data

    found = {name: torch.from_numpy(np.array(getattr(data, name)())).permute(2, 0, 1) for name in PHOTOGRAPHS}
    return {name: image[:, : image.shape[1] // 4 * 4, : image.shape[2] // 4 * 4] for name, image in found.items()}


def imagenette(path: str, part: str, count: int, beside: int = 0) -> list[Tensor]:
    """Return images of ``imagenette112.tar``, evenly over its classes: (3, H, W), uint8.

    Args:
        path: the archive.
        part: ``"train"`` or ``"val"``.
        count: number of images.
        beside: number of images that another call returns, of which this one returns none.
    """
    with Path(path).open("rb") as stream:
        found = {name: content for name, content in members(stream, path) if f"/{part}/" in f"/{name}"}
    taken = set(_evenly(sorted(found), beside))
    return [_read(found[name]) for name in _evenly(sorted(found.keys() - taken), count)]


def _evenly(names: list[str], count: int) -> list[str]:
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _read(content: bytes) -> Tensor:
    image = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB"))).permute(2, 0, 1)
    return image[:, : image.shape[1] // 4 * 4, : image.shape[2] // 4 * 4]


# --- degradations -------------------------------------------------------------------------------------------------


def gaussian(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise of deviation 25 of 255."""
    return clean + 25 / 255 * torch.randn(clean.shape, generator=generator)


def camera(clean: Tensor, generator: torch.Generator) -> Tensor:
    r"""Add a camera's noise: in linear light, with a variance of ``shot*x + read``, drawn for each image.

    Source: Brooks et al., Unprocessing Images for Learned Raw Denoising, CVPR 2019: the ranges of both and how they
    hang together. Here the light is linear by a power of 2.2 alone, and a demosaicking is left out.
    """
    n = clean.shape[0]
    low, high = np.log(1e-4), np.log(0.012)
    shot = low + (high - low) * torch.rand(n, generator=generator)
    read = 2.18 * shot + 1.20 + 0.26 * torch.randn(n, generator=generator)
    light = clean.clamp(0, 1) ** 2.2
    variance = shot.exp().view(-1, 1, 1, 1) * light + read.exp().view(-1, 1, 1, 1)
    noisy = light + variance.sqrt() * torch.randn(clean.shape, generator=generator)
    return noisy.clamp(0, 1) ** (1 / 2.2)


def reduced(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce by four by antialiased bicubic interpolation, and round to 8 bits."""
    size = clean.shape[2] // 4, clean.shape[3] // 4
    small = F.interpolate(clean, size, mode="bicubic", antialias=True).clamp(0, 1)
    return (small * 255).round() / 255


@dataclass(frozen=True)
class Task:
    """Degradation to undo: its function, the enlargement, and the sides of a training window in pixels."""

    degrade: Callable[[Tensor, torch.Generator], Tensor]
    factor: int
    window: int


TASKS = {"noise-25": Task(gaussian, 1, 32), "noise-camera": Task(camera, 1, 32), "enlarge-4": Task(reduced, 4, 96)}


def batches(images: list[Tensor], task: Task, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end: degraded and clean windows, mirrored and transposed at random, from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)

    def draw(upper: int) -> int:
        return int(torch.randint(upper, (), generator=generator))

    while True:
        windows = []
        for _ in range(size):
            image = images[draw(len(images))]
            top, left = (draw(side - task.window + 1) for side in image.shape[1:])
            window = image[:, top : top + task.window, left : left + task.window]
            window = window.flip(2) if draw(2) else window
            windows.append(window.transpose(1, 2) if draw(2) else window)
        clean = torch.stack(windows).float() / 255
        yield task.degrade(clean, generator), clean
