"""Share of maps for which `ddfnet.depth.samples.find_samples` tells how the samples were taken.

    python reproduce/field/samples.py middlebury15.tar nyu8.tar

Middlebury's fifteen maps and every hundredth of NYU Depth V2, each reduced by 4, 8 and 16 in every way. Writes
samples.json beside this file: how often each way was told, by the true one.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ddfnet import env_info, files
from ddfnet.data.depth import middlebury15, nyu8
from ddfnet.depth.samples import SAMPLES, find_samples, reduce_maps

HERE = Path(__file__).parent
FACTORS = (4, 8, 16)


def maps(middlebury: str, nyu: str) -> Iterator[Tensor]:
    for scene in middlebury15.load(middlebury):
        yield scene.depth.double()
    for split in ("train", "test"):
        scenes = nyu8.load(nyu, split)
        for number in range(0, len(scenes), 100):
            yield scenes[number].depth.double()


def reduced(depth: Tensor, factor: int, way: str) -> Tensor:
    rows, columns = (size - size % factor for size in depth.shape)
    depth = depth[:rows, :columns]
    first = (factor - 1) // 2
    return depth[first::factor, first::factor] if way == "point" else reduce_maps(depth[None, None], factor, way)[0, 0]


def main() -> None:
    found = {factor: {way: Counter[str]() for way in SAMPLES} for factor in FACTORS}
    count = 0
    for depth in maps(*sys.argv[1:]):
        count += 1
        for factor in FACTORS:
            for way in SAMPLES:
                low = reduced(depth, factor, way)
                found[factor][way][find_samples(low, torch.ones_like(low, dtype=torch.bool))] += 1
    results = {
        "command": "python reproduce/field/samples.py middlebury15.tar nyu8.tar",
        "machine": env_info.facts(),
        "maps": count,
        "told": {f"{factor}x": {way: dict(own) for way, own in ways.items()} for factor, ways in found.items()},
    }
    files.atomic_write(HERE / "samples.json", json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
