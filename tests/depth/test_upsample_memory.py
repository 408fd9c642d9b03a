"""Memory of `ddfnet.upsample_depth`: that of the result, and of one tile."""

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

HIGH, WIDE = (3072, 1024), (512, 6144)  # a map of float64 has twice the bytes of the result


def prepare(size: tuple[int, int], fill: str) -> Callable[[], Sequence[Tensor]]:
    """Return the call, of a depth map with holes, after a small one of the same kind."""
    own = network(4, channels=4, guide_channels=4)
    guide = torch.randint(256, (*size, 3), dtype=torch.uint8)
    depth = torch.rand(size[0] // 4, size[1] // 4) + 1
    depth[depth < 1.1] = 0
    depth[5:25, 5:25] = 0

    def call(rows: int, columns: int) -> tuple[Tensor]:
        options = {"model": own, "tile": 128, "fill": fill}
        return (ddfnet.upsample_depth(depth[: rows // 4, : columns // 4], guide[:rows, :columns], **options),)

    call(256, 1024)
    return lambda: call(*size)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only")
@pytest.mark.parametrize(("size", "fill"), [(HIGH, "nearest"), (WIDE, "none")])
def test_what_is_held_beside_the_result_are_tiles(size: tuple[int, int], fill: str) -> None:
    """Rows of tiles of a wide map, two views and the outline, would be more than twice the result."""
    measured = memory.measure("ddfnet", "contiguous", prepare, size, fill)
    assert measured.returned == size[0] * size[1] * 4 / memory.MIB
    assert measured.added < 2.5 * measured.returned
