"""Error where the image is moved against the depth map; writes registration.json.

python reproduce/field/registration.py      # a minute
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ddfnet import env_info
from ddfnet.data.depth.middlebury import motorcycle
from ddfnet.data.depth.protocols import PROTOCOLS
from ddfnet.tasks.depth.baselines import METHODS

HERE = Path(__file__).parent
FACTOR, PIXELS = 8, (0, 1, 2, 4, 8)
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # y, x


def moved(guide: Tensor, y: int, x: int) -> Tensor:
    """Move an image (3, H, W) down by y and right by x pixels; its border is repeated."""
    height, width = guide.shape[1:]
    rows, columns = ((torch.arange(size) - by).clamp(0, size - 1) for size, by in ((height, y), (width, x)))
    return guide[:, rows][:, :, columns]


def main() -> None:
    """Measure the share of aligned bilinear's RMSE, the mean of four directions, and write it."""
    scene, protocol = motorcycle(), PROTOCOLS["pac"]
    low = protocol.lowres(scene.depth, scene.valid, FACTOR)

    def rmse(method: str, guide: Tensor) -> float:
        result = METHODS[method](low.depth, low.valid, guide, factor=FACTOR, offset=low.offset)
        return protocol.rmse(result, scene)

    base = rmse("bilinear", scene.guide)
    shares = {}
    for pixels in PIXELS:
        steps = DIRECTIONS if pixels else DIRECTIONS[:1]
        errors = [rmse("ddfnet", moved(scene.guide, y * pixels, x * pixels)) for y, x in steps]
        shares[str(pixels)] = sum(errors) / len(errors) / base
        print(f"moved by {pixels}: {shares[str(pixels)]:.3f} ({', '.join(f'{each / base:.3f}' for each in errors)})")
    result = {
        "command": "python reproduce/field/registration.py",
        "scene": scene.origin,
        "factor": FACTOR,
        "protocol": protocol.name,
        "share": shares,
        "machine": env_info.facts(),
    }
    (HERE / "registration.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
