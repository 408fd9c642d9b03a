"""Formula for bytes against the accesses of the interpreted kernels, each of which is recorded."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch
from gpu_compile import A100, Compiled
from gpu_traffic import SECTOR, Workload, traffic
from triton.runtime.interpreter import interpreter_builder

from ddfnet.ops.geometry import Geometry
from ddfnet.ops.triton import config, launcher
from tests.ops.cases import FORMATS


def tile_for(kernel: str, channels_last: bool) -> config.AnyTile:
    if kernel == "ddf_bwd_filters_planar_kernel":
        return config.PlanarTile(8, 8, 4, 2, 3)
    if kernel == "ddf_bwd_filters_kernel":
        return config.FilterTile(2, 8, 4, 4, 3) if channels_last else config.FilterTile(8, 8, 4, 1, 1)
    return config.Tile(4, 8, 4, 2, 1, True, True) if channels_last else config.Tile(8, 8, 4, 2, 1, True, False)


@pytest.mark.parametrize(
    ("kernel", "memory_format"),
    [
        *itertools.product(("ddf_fwd_kernel", "ddf_bwd_input_kernel", "ddf_bwd_filters_kernel"), FORMATS),
        ("ddf_bwd_filters_planar_kernel", "contiguous"),
    ],
)
def test_formula_and_accesses_agree_on_triton(kernel: str, memory_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, c, h, w, k = size = (2, 16, 9, 24, 3)
    last = memory_format == "channels_last"
    tile = tile_for(kernel, last)
    touched: dict[tuple, set[int]] = defaultdict(set)
    load, store = interpreter_builder.create_masked_load, interpreter_builder.create_masked_store

    def record(pointers, mask) -> None:
        touched[tuple(interpreter_builder.grid_idx)].update(
            (pointers.data[mask.data.astype(bool)] // SECTOR).flatten().tolist()
        )

    def recorded_load(pointers, mask, *rest):
        record(pointers, mask)
        return load(pointers, mask, *rest)

    def recorded_store(pointers, value, mask, *rest):
        record(pointers, mask)
        return store(pointers, value, mask, *rest)

    monkeypatch.setattr(interpreter_builder, "create_masked_load", recorded_load)
    monkeypatch.setattr(interpreter_builder, "create_masked_store", recorded_store)
    monkeypatch.setattr(launcher, "choose", lambda problem: config.LaunchConfig(tile, 1))

    shapes = (n, c, h, w), (n, c, k, k), (n, k * k, h, w), (n, c, h, w)
    input, channel, spatial, grad = (
        torch.randn(shape).contiguous(memory_format=FORMATS[memory_format]) if i != 1 else torch.randn(shape)
        for i, shape in enumerate(shapes)
    )
    geometry = Geometry((k, k), padding=(1, 1))
    if kernel == "ddf_fwd_kernel":
        launcher.ddf(input, channel, spatial, geometry)
    else:
        mask = [kernel == "ddf_bwd_input_kernel"] + [kernel.startswith("ddf_bwd_filters")] * 2
        launcher.ddf_backward(grad, input, channel, spatial, geometry, mask)

    programs = len(touched)
    compiled = Compiled(kernel, programs, {"TILE": tile, "num_warps": 1}, registers=32, spills=0, shared=0)
    counted = traffic(compiled, Workload(*size, 4, last), A100)
    assert counted.kernel_cache == SECTOR * sum(map(len, touched.values()))
    assert counted.kernel_memory <= counted.kernel_cache
    # All programs run at the same time here: memory is read once.
    assert counted.kernel_memory == SECTOR * len(set().union(*touched.values()))
