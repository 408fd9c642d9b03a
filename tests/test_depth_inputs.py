"""What `ddfnet.upsample_depth` takes and gives, kind by kind, its memory, and what it says about wrong inputs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddfnet
from ddfnet.models import guided_files
from tests.guided_networks import enlarging, network

NETWORK = network(4)
ARRAY = np.random.default_rng(0).random((6, 7)) + 1
PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (20, 25, 3), dtype=np.uint8)
TENSOR, PICTURE = torch.from_numpy(ARRAY), torch.from_numpy(PHOTOGRAPH)


def enlarge(depth: Any = ARRAY, guide: Any = PHOTOGRAPH, **options: Any) -> Any:
    return ddfnet.upsample_depth(depth, guide, **{"model": NETWORK, **options})


# --- what comes in and what goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int64"])
def test_integers_are_rounded_and_not_valid_is_0(dtype: str) -> None:
    depth = (ARRAY * 50).astype(dtype)
    depth[:, :4] = 0
    exact = enlarge(depth.astype(np.float64))
    assert 0 < np.isnan(exact).mean() < 0.5
    for result in (enlarge(depth), enlarge(torch.from_numpy(depth), PICTURE).numpy()):
        assert result.dtype == dtype
        assert np.array_equal(result, np.nan_to_num(exact.round()).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_floats_are_worked_on_in_float64_and_not_valid_is_nan(dtype: torch.dtype) -> None:
    depth = TENSOR.to(dtype)
    depth[:, :4] = 0
    result = enlarge(depth, PICTURE)
    assert result.dtype == dtype
    assert 0 < result.isnan().float().mean() < 0.5
    assert torch.equal(result.nan_to_num(), enlarge(depth.double(), PICTURE).to(dtype).nan_to_num())


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
    result = enlarge(depth, lay_out(PHOTOGRAPH), valid=lay_out(ARRAY < 1.8))
    assert result.dtype == depth.dtype
    assert np.array_equal(result, enlarge(valid=ARRAY < 1.8))


def test_what_must_not_be_written_to_is_read_without_a_warning() -> None:
    """As the arrays are that NumPy makes of Pillow's pictures."""
    arrays = [ARRAY.copy(), PHOTOGRAPH.copy(), np.ones(ARRAY.shape, bool)]
    for array in arrays:
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(enlarge(arrays[0], arrays[1], valid=arrays[2]), enlarge())


def test_what_comes_in_is_left_alone() -> None:
    depth, guide, valid = TENSOR.clone().requires_grad_(), PICTURE.clone(), TENSOR < 1.8
    before = valid.clone()
    result = enlarge(depth, guide, valid=valid)
    assert not result.requires_grad and not result.is_inference()
    assert torch.equal(depth, TENSOR) and torch.equal(guide, PICTURE) and torch.equal(valid, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("tile", [None, 12])
def test_on_a_gpu(tile: int | None) -> None:
    expected = enlarge(TENSOR, PICTURE, valid=TENSOR < 1.5, fill=True)
    model = network(4)
    result = enlarge(TENSOR.cuda(), PICTURE.cuda(), valid=(TENSOR < 1.5).cuda(), fill=True, model=model, tile=tile)
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=1e-2)  # TF32 and other sums


# --- options -------------------------------------------------------------------------------------------------------


def test_at_ratio_1_valid_depths_stay_and_holes_are_filled() -> None:
    guide, valid = PHOTOGRAPH[:6, :7], np.ones(ARRAY.shape, bool)
    valid[2:4, 3] = valid[0, 0] = False
    result = enlarge(ARRAY, guide, valid=valid)
    assert np.array_equal(result[valid], ARRAY[valid])
    assert np.isfinite(result).all()
    assert np.ptp(ARRAY[1:5, 2:5]) > abs(result[2, 3] - ARRAY[2, 2]) > 0


def test_fill_takes_the_nearest_valid_sample_with_the_ratio_of_each_axis() -> None:
    depth = np.zeros((9, 9))
    depth[0, 4], depth[4, 0] = 1, 2  # four samples away along each axis: nearer to (4, 4) along that of the lower ratio
    tall, wide = PHOTOGRAPH[:1, :1].repeat(36, 0).repeat(18, 1), PHOTOGRAPH[:1, :1].repeat(18, 0).repeat(36, 1)
    assert np.isnan(enlarge(depth, tall)[18, 9])
    assert enlarge(depth, tall, fill=True)[18, 9] == 2
    assert enlarge(depth, wide, fill=True)[9, 18] == 1


@pytest.mark.parametrize("offset", [(1, 0.5), [1, 0.5], (np.int64(1), np.float32(0.5))], ids=repr)
def test_an_offset_for_each_axis(offset: Any) -> None:
    both = enlarge(offset=offset)
    assert np.array_equal(both, enlarge(offset=(1.0, 0.5)))
    assert not np.array_equal(both, enlarge(offset=(0.5, 1.0)))
    assert not np.array_equal(both, enlarge())


def test_an_offset_for_both_axes() -> None:
    assert np.array_equal(enlarge(offset=0.75), enlarge(offset=(0.75, 0.75)))
    middle = tuple((large / small - 1) / 2 for large, small in zip(PHOTOGRAPH.shape[:2], ARRAY.shape, strict=True))
    assert np.array_equal(enlarge(), enlarge(offset=middle))


@pytest.mark.parametrize("tile", [1, np.int64(12), 10**9], ids=str)
def test_tiles_of_any_size(tile: int) -> None:
    np.testing.assert_allclose(enlarge(tile=tile), enlarge(), atol=1e-6, rtol=0)


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guided_files.save(NETWORK, tmp_path / "small.safetensors", {})
    expected = enlarge()
    assert np.array_equal(enlarge(model=tmp_path / "small.safetensors"), expected)
    assert np.array_equal(enlarge(model=str(tmp_path / "small.safetensors")), expected)
    monkeypatch.setattr(guided_files, "shipped", lambda: NETWORK)
    assert np.array_equal(ddfnet.upsample_depth(ARRAY, PHOTOGRAPH), expected)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("options", [{}, {"carry": False}, {"norm": "filter"}, {"upsampler": "bilinear"}], ids=str)
def test_threads_change_not_a_bit(options: dict[str, Any], threads: None) -> None:
    """Of a map large enough that the work is shared out."""
    depth, guide = torch.rand(40, 50) + 1, torch.randint(256, (320, 400, 3), dtype=torch.uint8)
    model, results = network(8, channels=16, guide_channels=16, **options), []
    for number in (1, 2):
        torch.set_num_threads(number)
        results.append(enlarge(depth, guide, valid=depth < 1.9, model=model))
    assert torch.equal(*(result.view(torch.int32) for result in results))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured on Linux only")
def test_memory_is_bounded_by_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the map is, to the results' 8 bytes a pixel and some; the whole map at once takes 200 a pixel."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])  # the measuring process imports `enlarging` by its name
    memory = pytest.importorskip("ddfnet.benchmarks.memory")
    size, ratio = (1024, 64), 4
    taken = memory.measure("tiles", "contiguous", enlarging, size, ratio, 128)
    pixels = size[0] * size[1] * ratio**2
    assert taken.returned * memory.MIB == 4 * pixels
    assert taken.added * memory.MIB < 24 * memory.MIB + 24 * pixels


# --- errors --------------------------------------------------------------------------------------------------------

ALIKE = "must be a NumPy array or a torch.Tensor, as the others are"
TYPES: list[tuple[dict[str, Any], str]] = [
    ({"depth": [[1.0]]}, f"depth {ALIKE}, got list"),
    ({"guide": PHOTOGRAPH.tolist()}, f"guide {ALIKE}, got list"),
    ({"guide": PICTURE}, f"guide {ALIKE}, got Tensor"),
    ({"valid": TENSOR > 1}, f"valid {ALIKE}, got Tensor"),
    ({"depth": TENSOR}, "guide must be a torch.Tensor as depth is, got ndarray"),
    (
        {"depth": TENSOR, "guide": PICTURE, "valid": ARRAY > 1},
        "valid must be a torch.Tensor as depth is, got ndarray",
    ),
    ({"depth": ARRAY > 1}, "depth must be real numbers, got bool"),
    ({"depth": ARRAY + 1j}, "depth must be real numbers, got complex128"),
    ({"depth": ARRAY.astype(str)}, "depth must be real numbers, got <U32"),
    ({"depth": TENSOR > 1, "guide": PICTURE}, "depth must be real numbers, got torch.bool"),
    ({"depth": TENSOR + 1j, "guide": PICTURE}, "depth must be real numbers, got torch.complex128"),
    ({"guide": PHOTOGRAPH / 255}, "guide must be uint8, 0 to 255, got torch.float64"),
    ({"depth": TENSOR, "guide": PICTURE.int()}, "guide must be uint8, 0 to 255, got torch.int32"),
    ({"valid": np.ones(ARRAY.shape, np.uint8)}, "valid must be bool, got torch.uint8; compare it, as in mask > 0"),
    ({"model": 8}, "model must be 'auto', a file or a GuidedUpsampler, got int"),
    ({"model": torch.nn.Identity()}, "model must be 'auto', a file or a GuidedUpsampler, got Identity"),
]
ALL_WRONG = "all of it is 0, nan, inf or masked out"
OFFSET = "offset must be a number or (y, x), in pixels of the guide"
TILE = "tile must be None or a whole number of pixels from 1 on"
VALUES: list[tuple[dict[str, Any], str]] = [
    ({"depth": ARRAY[0]}, "depth must be (h, w), at least one sample, got (7,)"),
    ({"depth": PHOTOGRAPH[:6, :7]}, "depth must be (h, w), at least one sample, got (6, 7, 3)"),
    ({"depth": ARRAY[:0]}, "depth must be (h, w), at least one sample, got (0, 7)"),
    ({"guide": PHOTOGRAPH[..., 0]}, "guide must be (H, W, 3), RGB, got (20, 25)"),
    ({"guide": PHOTOGRAPH.repeat(2, axis=2)}, "guide must be (H, W, 3), RGB, got (20, 25, 6)"),
    (
        {"guide": PHOTOGRAPH[:, :6]},
        "guide must be at least as large as depth (6, 7), got (20, 6); were the two exchanged?",
    ),
    (
        {"guide": PHOTOGRAPH[:5]},
        "guide must be at least as large as depth (6, 7), got (5, 25); were the two exchanged?",
    ),
    ({"valid": np.ones((7, 6), bool)}, "valid must be of depth's shape (6, 7), got (7, 6)"),
    ({"depth": ARRAY * 0}, f"depth (6, 7) has no valid sample: {ALL_WRONG}"),
    ({"depth": np.full((2, 3), np.nan)}, f"depth (2, 3) has no valid sample: {ALL_WRONG}"),
    ({"depth": np.full((2, 3), -np.inf)}, f"depth (2, 3) has no valid sample: {ALL_WRONG}"),
    ({"valid": ARRAY < 0}, f"depth (6, 7) has no valid sample: {ALL_WRONG}"),
    ({"offset": np.nan}, f"{OFFSET}, got nan"),
    ({"offset": (1, np.inf)}, f"{OFFSET}, got (1, inf)"),
    ({"offset": (1, 2, 3)}, f"{OFFSET}, got (1, 2, 3)"),
    ({"offset": "1"}, f"{OFFSET}, got '1'"),
    ({"tile": 0}, f"{TILE}, got 0"),
    ({"tile": -3}, f"{TILE}, got -3"),
    ({"tile": 2.5}, f"{TILE}, got 2.5"),
    ({"model": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
    ({"model": Path("nowhere.ckpt")}, "nowhere.ckpt: no such file"),
]


def names(value: Any) -> str | None:
    return "-".join(value) if isinstance(value, dict) else None


@pytest.mark.parametrize(("wrong", "message"), TYPES, ids=names)
def test_type_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        enlarge(**wrong)
    assert str(raised.value) == message


@pytest.mark.parametrize(("wrong", "message"), VALUES, ids=names)
def test_value_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        enlarge(**wrong)
    assert str(raised.value) == message


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="broken.safetensors: a file that `ddfnet train guided` wrote is required"):
        enlarge(model=tmp_path / "broken.safetensors")


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guided_files.save(NETWORK, tmp_path / "small.safetensors", {})
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs safetensors: pip install 'ddfnet\[upsample\]'"):
        enlarge(model=tmp_path / "small.safetensors")


# --- what was found in use -----------------------------------------------------------------------------------------


def test_the_ratio_can_be_given_where_the_sizes_do_not_tell_it() -> None:
    """13 samples, every 16th of 200 pixels: by the sizes alone it could as well be every 15th."""
    depth, guide = np.random.default_rng(2).random((1, 13)) + 1, np.zeros((16, 200, 3), np.uint8)
    given = enlarge(depth, guide, ratio=16, offset=7, model=network(16, sharp=0))
    padded = enlarge(depth, np.zeros((16, 208, 3), np.uint8), ratio=16, offset=7, model=network(16, sharp=0))
    inside = slice(0, 100)  # away from where the two guides end
    assert np.allclose(given[:, inside], padded[:, inside], atol=1e-6)
    with pytest.raises(ValueError, match="ratio must be at least 1, got 0.5"):
        enlarge(ratio=0.5)


def test_what_a_numpy_mask_hides_contributes_nothing() -> None:
    depth = np.ma.masked_where(ARRAY > 1.8, ARRAY)
    assert depth.mask.any()
    assert np.array_equal(enlarge(depth), enlarge(ARRAY, valid=ARRAY <= 1.8), equal_nan=True)


def test_a_network_in_training_stays_there() -> None:
    model = network(4).train()
    assert np.array_equal(enlarge(model=model), enlarge())
    assert model.training and all(module.training for module in model.modules())
    assert np.allclose(enlarge(model=network(4).double()), enlarge(), atol=1e-5)
