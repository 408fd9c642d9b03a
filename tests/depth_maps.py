"""Small depth map and its guide, as arrays and as tensors, and their upsampling by a small network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import ddfnet
from tests.guided_networks import network

NETWORK = network(4)
ARRAY = np.random.default_rng(0).random((6, 7)) + 1
GUIDE = np.random.default_rng(1).integers(0, 256, (20, 25, 3), dtype=np.uint8)
TENSOR, GUIDE_TENSOR = torch.from_numpy(ARRAY), torch.from_numpy(GUIDE)


def upsample(depth: Any = ARRAY, guide: Any = GUIDE, **options: Any) -> Any:
    return ddfnet.upsample_depth(depth, guide, **{"model": NETWORK, **options})
