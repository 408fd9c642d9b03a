"""Memory of `ddfnet.upsample_depth`: that of the result, and of one row of tiles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import ddfnet
from ddfnet.bench import memory
from tests.guided_networks import network

pytest.importorskip("scipy")

SIZE = (3072, 1024)  # a map of float64 has twice the bytes of the result


def prepare() -> Callable[[], Sequence[Tensor]]:
    """Return the call, of a depth map with holes, after a small one of the same kind."""
    own = network(4, channels=4, guide_channels=4)
    guide = torch.randint(256, (*SIZE, 3), dtype=torch.uint8)
    depth = torch.rand(SIZE[0] // 4, SIZE[1] // 4) + 1
    depth[depth < 1.1] = 0
    depth[5:25, 5:25] = 0

    def call(rows: int) -> tuple[Tensor]:
        return (ddfnet.upsample_depth(depth[: rows // 4], guide[:rows], model=own, tile=128, fill="nearest"),)

    call(256)
    return lambda: call(SIZE[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only")
def test_no_map_of_float64_is_as_large_as_the_guide() -> None:
    """Two views and their difference alone would be six times the result; most of what is added are tiles."""
    measured = memory.measure("ddfnet", "contiguous", prepare)
    assert measured.returned == SIZE[0] * SIZE[1] * 4 / memory.MIB
    assert measured.added < 4 * measured.returned
