"""Numbers at the ends of their types in `ddfnet.upsample_depth`: exact, in range, never 0 by rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import ddfnet
from tests.guided_networks import network

NETWORK = network(4)
RNG = np.random.default_rng(0)
GUIDE = RNG.integers(0, 256, (24, 28, 3), dtype=np.uint8)
SMALL = GUIDE[:6, :7]
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def upsample(depth: Any, guide: np.ndarray = GUIDE, **options: Any) -> Any:
    image = torch.from_numpy(guide.copy()) if isinstance(depth, torch.Tensor) else guide
    return ddfnet.upsample_depth(depth, image, model=NETWORK, **options)


def bits(values: Any) -> bytes:
    return values.view(torch.uint8).numpy().tobytes() if isinstance(values, torch.Tensor) else values.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_at_ratio_1_integers_stay_from_the_smallest_to_the_largest(dtype: str) -> None:
    ends = np.iinfo(dtype)
    low, high = max(ends.min, -(2**53) + 1), min(ends.max, 2**53 - 1)
    depth = RNG.integers(low, high, (6, 7), dtype=dtype, endpoint=True)
    depth[0, :3] = low or 1, high, high - 1
    depth[4, 4] = 0
    for given in (depth, torch.from_numpy(depth), depth.astype(np.dtype(dtype).newbyteorder(">"))):
        result = upsample(given, SMALL)
        assert result.dtype == given.dtype
        assert bits(result[depth != 0]) == bits(given[depth != 0])
        assert result[4, 4] != 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_at_ratio_1_floats_stay_from_the_smallest_to_the_largest(dtype: torch.dtype) -> None:
    ends = torch.finfo(dtype)
    depth = torch.rand(6, 7, dtype=torch.float64).to(dtype)
    depth[0, :4] = torch.tensor([ends.max, ends.tiny, ends.smallest_normal * ends.eps, 1 + ends.eps], dtype=dtype)
    depth[4, 4] = torch.nan
    given = [depth] if dtype == torch.bfloat16 else [depth, depth.numpy()]
    for each in given:
        result = upsample(each, SMALL)
        there = ~np.isnan(depth.double().numpy())
        assert bits(result[there]) == bits(each[there])
        assert result[4, 4] == result[4, 4]


@pytest.mark.parametrize(
    ("base", "dtype"), [(2**53 - 300, "int64"), (-(2**53) + 100, "int64"), (2**52, "uint64"), (1e15, "float64")]
)
def test_small_steps_far_from_0_are_kept(base: float, dtype: str) -> None:
    """Only the range reaches the network, and its output comes back on the very steps of the input."""
    steps = RNG.integers(0, 200, (6, 7))
    depth = np.array(base, dtype) + steps.astype(dtype)
    result = upsample(depth)
    assert result.dtype == dtype
    near = upsample(steps.astype("float64") + 1) - 1
    away = (result - np.array(base, dtype)).astype("float64")
    assert np.abs(away - near).max() <= 0.51  # an integer's rounding
    assert np.ptp(away) > 100


def test_neighbouring_integers_beyond_float64_are_refused_and_not_mixed_up() -> None:
    depth = np.array([[2**60, 2**60 + 1], [2**60 + 2, 2**60]])
    for given in (depth, depth.astype("uint64"), torch.from_numpy(depth)):
        with pytest.raises(ValueError, match="depth of integers must lie between"):
            upsample(given)
    assert np.ptp(upsample(depth - 2**60 + 1)) > 0
    depth[0, 0] = depth[1, 1] = 3
    assert set(np.unique(upsample(depth, valid=depth == 3, fill=True))) == {
        3
    }  # samples that are not valid do not count


def test_a_range_that_float64_just_holds() -> None:
    depth = np.where(RNG.random((6, 7)) < 0.5, -0.8e308, 0.9e308)
    result = upsample(depth)
    assert np.isfinite(result).all() and result.min() >= depth.min() and result.max() <= depth.max()
    assert np.ptp(result) > 0.5e308


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64"])
def test_no_valid_integer_is_rounded_to_0(dtype: str) -> None:
    """A depth of 0 would say that it is not valid."""
    depth = RNG.choice(np.array([-2, -1, 1, 3], dtype), (6, 7))
    assert (np.abs(upsample(depth.astype("float64"))) < 0.5).any()
    exact = upsample(depth.astype("float64"))
    for result in (upsample(depth), upsample(torch.from_numpy(depth)).numpy()):
        assert (result != 0).all()
        assert (
            (np.abs(result - exact) <= 1).all() and (result[exact > 0.5] > 0).all() and (result[exact < -0.5] < 0).all()
        )
