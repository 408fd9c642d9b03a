"""A small depth map and its photograph, as arrays and as tensors, and what a small network makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import ddfnet
from tests.guided_networks import network

NETWORK = network(4)
ARRAY = np.random.default_rng(0).random((6, 7)) + 1
PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (20, 25, 3), dtype=np.uint8)
TENSOR, PICTURE = torch.from_numpy(ARRAY), torch.from_numpy(PHOTOGRAPH)


def enlarge(depth: Any = ARRAY, guide: Any = PHOTOGRAPH, **options: Any) -> Any:
    return ddfnet.upsample_depth(depth, guide, **{"model": NETWORK, **options})
