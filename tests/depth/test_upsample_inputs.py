"""Inputs and outputs of `ddfnet.upsample_depth`, kind by kind, and its memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddfnet
from ddfnet.depth import tiling
from ddfnet.depth.alignment import AxisAlignment
from ddfnet.depth.grid import UpsampleGrid
from ddfnet.depth.network import GuidedUpsampler, typical_range, typical_range_of_parts
from ddfnet.depth.sizes import tile_slices
from ddfnet.pretrained import save
from tests.depth_maps import ARRAY, GUIDE, GUIDE_TENSOR, NETWORK, TENSOR, upsample
from tests.guided_networks import check_threads, network, upsampling_call

# --- what comes in and what goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int64"])
def test_integers_are_rounded_and_not_valid_is_0(dtype: str) -> None:
    depth = (ARRAY * 50).astype(dtype)
    depth[:, :3] = 0
    exact = upsample(depth.astype(np.float64))
    assert 0 < np.isnan(exact).mean() < 0.5
    for result in (upsample(depth), upsample(torch.from_numpy(depth), GUIDE_TENSOR).numpy()):
        assert result.dtype == dtype
        assert np.array_equal(result, np.nan_to_num(exact.round()).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_floats_are_worked_on_in_float64_and_not_valid_is_nan(dtype: torch.dtype) -> None:
    depth = TENSOR.to(dtype)
    depth[:, :3] = 0
    result = upsample(depth, GUIDE_TENSOR)
    assert result.dtype == dtype
    assert 0 < result.isnan().float().mean() < 0.5
    assert torch.equal(result.nan_to_num(), upsample(depth.double(), GUIDE_TENSOR).to(dtype).nan_to_num())


@pytest.mark.parametrize(
    "lay_out",
    [
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: np.flip(np.flip(array, 0).copy(), 0),
        lambda array: array.astype(array.dtype.newbyteorder(">")),
    ],
    ids=["columns first", "every other", "backwards", "big-endian"],
)
def test_however_an_array_lies_in_memory(lay_out: Callable[[np.ndarray], np.ndarray]) -> None:
    depth = lay_out(ARRAY)
    result = upsample(depth, lay_out(GUIDE), valid=lay_out(ARRAY < 1.8))
    assert result.dtype == depth.dtype
    assert np.array_equal(result, upsample(valid=ARRAY < 1.8), equal_nan=True)


def test_what_must_not_be_written_to_is_read_without_a_warning() -> None:
    """As the arrays are that NumPy makes of Pillow's images."""
    arrays = [ARRAY.copy(), GUIDE.copy(), np.ones(ARRAY.shape, bool)]
    for array in arrays:
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(upsample(arrays[0], arrays[1], valid=arrays[2]), upsample())


def test_what_comes_in_is_left_alone() -> None:
    depth, guide, valid = TENSOR.clone().requires_grad_(), GUIDE_TENSOR.clone(), TENSOR < 1.8
    before = valid.clone()
    result = upsample(depth, guide, valid=valid)
    assert not result.requires_grad and not result.is_inference()
    assert torch.equal(depth, TENSOR) and torch.equal(guide, GUIDE_TENSOR) and torch.equal(valid, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("tile", [None, 12])
def test_on_a_gpu(tile: int | None) -> None:
    expected = upsample(TENSOR, GUIDE_TENSOR, valid=TENSOR < 1.5, fill=True)
    model = network(4)
    result = upsample(
        TENSOR.cuda(), GUIDE_TENSOR.cuda(), valid=(TENSOR < 1.5).cuda(), fill=True, model=model, tile=tile
    )
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-2)  # TF32 and other sums


# --- what the network is given ---------------------------------------------------------------------------------------


def call_directly(model: GuidedUpsampler, depth: torch.Tensor, guide: np.ndarray) -> torch.Tensor:
    """Return the network's depth, read on its planes where samples lie on pixels, (H, W)."""
    image = torch.from_numpy(guide.copy()).permute(2, 0, 1)[None] / 255
    mask = (depth != 0).float()
    low, span = typical_range(depth[:, 0], depth[:, 0] != 0)
    scaled = ((depth - low) / span * mask).float()
    factor = image.shape[2] // depth.shape[2]
    with torch.no_grad():
        pixels = model.scaled_pixels(scaled, mask, image, model.context(scaled, mask), factor)
    assert pixels.slope is not None
    return ((pixels.depth + pixels.slope.sum(1, keepdim=True) / 2) * span + low)[0, 0]


@pytest.mark.parametrize("step", [1, 7, 64])
@pytest.mark.parametrize("kind", ["random", "equal", "one", "one else"])
def test_the_range_of_a_map_in_parts_is_that_of_the_whole(kind: str, step: int) -> None:
    depth = torch.rand(60, 70, dtype=torch.float64) if kind == "random" else torch.full((60, 70), 0.3).double()
    valid = torch.rand(60, 70) < 0.8
    if kind == "one":
        valid = torch.arange(4200).reshape(60, 70) == 777
    if kind == "one else":
        depth[13, 5], valid[13, 5] = 2.0, True
    depth[~valid] = torch.nan
    parts = (depth[rows][valid[rows]] for rows in tile_slices(60, step))
    low, span = typical_range_of_parts(parts, int(valid.sum()))
    assert (low, span) == tuple(each.item() for each in typical_range(depth[None], valid[None]))


def hold(result: torch.Tensor, depth: np.ndarray, factor: int) -> np.ndarray:
    """Return a result held to the range of the samples in the 5x5 around each pixel."""
    around = np.pad(depth, 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(np.where(around == 0, np.nan, around), (5, 5))
    # Samples lie on the pixels i*s + (s - 1)//2; halves belong to the even one.
    near = [
        np.round((np.arange(size * factor) - (factor - 1) // 2) / factor).clip(0, size - 1).astype(int)
        for size in depth.shape
    ]
    low, high = (np.nanmin(windows, (2, 3))[np.ix_(*near)], np.nanmax(windows, (2, 3))[np.ix_(*near)])
    return result.double().numpy().clip(low, high)


@pytest.mark.parametrize("tile", [None, 40])
@pytest.mark.parametrize(("factor", "size"), [(2, (9, 10)), (4, (150, 7)), (8, (9, 10))], ids=str)
def test_at_its_own_factor_it_is_the_network(factor: int, size: tuple[int, int], tile: int | None) -> None:
    """With samples on the pixels i*s + (s - 1)//2, where it has them; and so is the validity."""
    model, rng = network(factor, sharp=60.0), np.random.default_rng(0)
    depth = np.where(rng.random(size) < 0.8, rng.random(size) + 1, 0)
    guide = rng.integers(0, 256, (size[0] * factor, size[1] * factor, 3), dtype=np.uint8)
    result = upsample(depth, guide, model=model, offset=(factor - 1) // 2, tile=tile, quality="fast")
    share = upsample((depth != 0) + 1.0, guide, model=model, offset=(factor - 1) // 2, quality="fast") - 1
    assert 0.02 < np.isnan(result).mean() < 0.5
    assert np.array_equal(np.isnan(result), share < 0.5)
    expected = hold(call_directly(model, torch.from_numpy(depth)[None, None], guide), depth, factor)
    there = ~np.isnan(result)
    np.testing.assert_allclose(result[there], expected[there], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tile", [None, 40])
def test_the_best_quality_is_the_average_with_the_maps_transposed(tile: int | None) -> None:
    model, rng = network(8, sharp=60.0), np.random.default_rng(0)
    depth = rng.random((9, 12)) + 1
    guide = rng.integers(0, 256, (63, 100, 3), dtype=np.uint8)
    alone = {"model": model, "tile": tile, "quality": "fast"}
    one = upsample(depth, guide, offset=(2, 3.5), **alone)
    other = upsample(depth.T, guide.transpose(1, 0, 2), offset=(3.5, 2), **alone).T
    result = upsample(depth, guide, offset=(2, 3.5), **{**alone, "quality": "best"})
    # Each is held to the range of the samples nearby, and the average is before that.
    near = np.abs(result - (one + other) / 2) < 1e-6
    assert near.mean() > 0.9
    assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize("factor", [4, 8])
def test_sharper_filters_leave_fewer_pixels_between_two_surfaces(factor: int) -> None:
    """A step of depth and grey at random places, with the weights of the package."""
    rng = np.random.default_rng(0)
    edge = 100 + rng.integers(-8, 9, 160).repeat(2)[:160]
    near = np.arange(200)[None] < edge[:, None]
    guide = np.where(near[..., None], 60, 190) + rng.integers(-30, 31, (160, 200, 3))
    depth = np.where(near, 1.0, 2.0)[(factor - 1) // 2 :: factor, (factor - 1) // 2 :: factor]
    between = []
    for sharpness in (0.5, 1, 2, 4):
        result = upsample(depth, guide.astype(np.uint8), offset=(factor - 1) // 2, sharpness=sharpness)
        assert result.min() >= 1 and result.max() <= 2
        between.append(((result > 1.1) & (result < 1.9)).mean())
    assert between[0] > between[1] > between[2] > between[3] > 0
    assert between[3] < 0.7 * between[1]


@pytest.mark.parametrize(
    ("offset", "down", "up"), [(1.5, 1, 2), (1, 1, 1), (1.4, 1, 1), (0.6, 1, 1), (-0.5, -1, 0), (2.5, 2, 3)]
)
def test_of_two_pixels_as_near_each_view_sees_one(offset: float, down: int, up: int) -> None:
    axis = AxisAlignment(9, 36, 4, offset)
    assert (UpsampleGrid(axis, 4).offset, UpsampleGrid(axis, 4, up=True).offset) == (down, up)
    other = AxisAlignment(9, 27, 3, offset)  # another step than the grid's: the guide is interpolated
    assert UpsampleGrid(other, 4).offset == UpsampleGrid(other, 4, up=True).offset == offset


def test_the_features_average_is_that_of_the_whole_map_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(8, sharp=60.0)
    whole = upsample(model=model)
    monkeypatch.setattr(tiling, "_POOLED", 2)
    assert np.abs(upsample(model=model) - whole).max() < 1e-6


def test_where_the_ratio_is_above_the_networks_it_is_the_network_twice() -> None:
    """First with every fourth pixel of the guide, which is where the samples of the second pass lie."""
    model, rng = network(4, sharp=60.0), np.random.default_rng(0)
    depth = rng.random((5, 6)) + 1
    guide = rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)
    options = {"model": model, "quality": "fast"}
    coarse = upsample(depth, guide[1::4, 1::4], offset=1, **options)
    result = upsample(depth, guide, offset=5, **options)
    expected = upsample(coarse, guide, offset=1, **options)
    # Between the passes nothing is held to the range of the samples.
    assert (np.abs(result - expected) < 1e-5).mean() > 0.9


# --- options -------------------------------------------------------------------------------------------------------


def test_at_ratio_1_valid_depths_stay_and_holes_are_filled() -> None:
    guide, valid = GUIDE[:6, :7], np.ones(ARRAY.shape, bool)
    valid[2:4, 3] = valid[0, 0] = False
    result = upsample(ARRAY, guide, valid=valid)
    assert np.array_equal(result[valid], ARRAY[valid])
    assert np.isfinite(result).all()
    assert np.ptp(ARRAY[1:5, 2:5]) > abs(result[2, 3] - ARRAY[2, 2]) > 0


def test_nearest_takes_the_nearest_valid_sample_with_the_ratio_of_each_axis() -> None:
    depth = np.zeros((9, 9))
    depth[0, 4], depth[4, 0] = 1, 2  # four samples away along each axis: nearer to (4, 4) along that of the lower ratio
    tall, wide = GUIDE[:1, :1].repeat(36, 0).repeat(18, 1), GUIDE[:1, :1].repeat(18, 0).repeat(36, 1)
    assert np.isnan(upsample(depth, tall)[18, 9])
    assert upsample(depth, tall, fill="nearest")[18, 9] == 2
    assert upsample(depth, wide, fill="nearest")[9, 18] == 1


@pytest.mark.parametrize("offset", [(1, 0.5), [1, 0.5], (np.int64(1), np.float32(0.5))], ids=repr)
def test_an_offset_for_each_axis(offset: Any) -> None:
    both = upsample(offset=offset)
    assert np.array_equal(both, upsample(offset=(1.0, 0.5)))
    assert not np.array_equal(both, upsample(offset=(0.5, 1.0)))
    assert not np.array_equal(both, upsample())


def test_an_offset_for_both_axes() -> None:
    assert np.array_equal(upsample(offset=0.75), upsample(offset=(0.75, 0.75)))
    middle = tuple((large / small - 1) / 2 for large, small in zip(GUIDE.shape[:2], ARRAY.shape, strict=True))
    assert np.array_equal(upsample(), upsample(offset=middle))


@pytest.mark.parametrize("tile", [1, np.int64(12), 10**9], ids=str)
def test_tiles_of_any_size(tile: int) -> None:
    np.testing.assert_allclose(upsample(tile=tile), upsample(), atol=1e-6, rtol=0)


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(NETWORK, tmp_path / "small.safetensors")
    expected = upsample()
    assert np.array_equal(upsample(model=tmp_path / "small.safetensors"), expected)
    assert np.array_equal(upsample(model=str(tmp_path / "small.safetensors")), expected)
    monkeypatch.setattr("ddfnet.depth.network.default_model", lambda: NETWORK)
    assert np.array_equal(ddfnet.upsample_depth(ARRAY, GUIDE), expected)


@pytest.mark.parametrize("options", [{}, {"carry": False}, {"norm": "filter"}, {"upsampler": "bilinear"}], ids=str)
def test_threads_change_not_a_bit(options: dict[str, Any]) -> None:
    """Maps are large enough that the work is shared out."""
    depth, guide = torch.rand(40, 50) + 1, torch.randint(256, (320, 400, 3), dtype=torch.uint8)
    model = network(8, channels=16, guide_channels=16, **options)
    check_threads(lambda: upsample(depth, guide, valid=depth < 1.9, model=model))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only")
def test_memory_is_bounded_by_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the map is, to the results' 8 bytes per pixel and some; the map in one tile takes 200."""
    monkeypatch.syspath_prepend(
        Path(__file__).parents[2]
    )  # the measuring process imports `upsampling_call` by its name
    memory = pytest.importorskip("ddfnet.bench.memory")
    size, ratio = (1024, 64), 4
    taken = memory.measure("tiles", "contiguous", upsampling_call, size, ratio, 128)
    pixels = size[0] * size[1] * ratio**2
    assert taken.returned * memory.MIB == 4 * pixels
    assert taken.added * memory.MIB < 24 * memory.MIB + 24 * pixels


# --- what was found in use -----------------------------------------------------------------------------------------


def test_the_ratio_can_be_given_where_the_sizes_do_not_tell_it() -> None:
    """13 samples, every 16th of 200 pixels: by the sizes alone it could as well be every 15th."""
    depth, guide = np.random.default_rng(2).random((1, 13)) + 1, np.zeros((16, 200, 3), np.uint8)
    given = upsample(depth, guide, ratio=16, offset=7, model=network(16, sharp=0))
    padded = upsample(depth, np.zeros((16, 208, 3), np.uint8), ratio=16, offset=7, model=network(16, sharp=0))
    inside = slice(0, 100)  # away from where the two guides end
    assert np.allclose(given[:, inside], padded[:, inside], atol=1e-6)
    with pytest.raises(ValueError, match="ratio must be at least 1, got 0.5"):
        upsample(ratio=0.5)


def test_what_a_numpy_mask_hides_contributes_nothing() -> None:
    depth = np.ma.masked_where(ARRAY > 1.8, ARRAY)
    assert depth.mask.any()
    assert np.array_equal(upsample(depth), upsample(ARRAY, valid=ARRAY <= 1.8), equal_nan=True)


def test_a_network_in_training_stays_there() -> None:
    model = network(4).train()
    assert np.array_equal(upsample(model=model), upsample())
    assert model.training and all(module.training for module in model.modules())
    assert np.allclose(upsample(model=network(4).double()), upsample(), atol=1e-5)
