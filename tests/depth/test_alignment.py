"""Aligned bilinear interpolation and filling, against loops written from their definitions."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddfnet.depth.alignment import aligned_bilinear, nearest_valid


def loops(depth, valid, size, ratio, offset):
    """Interpolate by the definition, pixel by pixel; nan where none of the four samples is valid."""
    height, width = depth.shape
    out = torch.full(size, math.nan, dtype=torch.float64)
    for row, column in itertools.product(*map(range, size)):
        y = min(max((row - offset[0]) / ratio[0], 0), height - 1)
        x = min(max((column - offset[1]) / ratio[1], 0), width - 1)
        total = weights = 0.0
        for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            weight = (1 - abs(y - i)) * (1 - abs(x - j))
            if weight > 1e-9 and valid[i, j]:
                total, weights = total + weight * float(depth[i, j]), weights + weight
        if weights > 1e-9:
            out[row, column] = total / weights
    return out


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.tuples(st.floats(1, 5), st.floats(1, 5)),
    st.tuples(st.floats(-2, 3), st.floats(-2, 3)),
    st.integers(0, 1000),
)
def test_is_the_mean_of_the_valid_ones_of_the_four(height, width, ratio, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(height, width, generator=generator, dtype=torch.float64) + 1
    valid = torch.rand(height, width, generator=generator) < 0.6
    valid[seed % height, seed % width] = True
    size = (math.ceil(height * ratio[0]), math.ceil(width * ratio[1]))
    marked = depth.where(valid, torch.tensor(math.nan, dtype=torch.float64))
    result = aligned_bilinear(marked, size, valid=valid, ratio=ratio, offset=offset)
    expected = loops(depth, valid, size, ratio, offset)
    some = expected.isfinite()
    torch.testing.assert_close(result[some], expected[some])
    assert torch.isin(result[~some], depth[valid]).all()  # one valid sample, as it is


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_samples_stay_where_they_were_taken(factor):
    """On a slanted plane the aligned map is exact between the outermost samples; half a pixel off it is not."""
    plane = torch.arange(40.0)[:, None] + 2 * torch.arange(48.0) + 1
    first = (factor - 1) // 2
    low = plane[first::factor, first::factor]
    inner = slice(first, first + factor * (low.shape[0] - 1) + 1), slice(first, first + factor * (low.shape[1] - 1) + 1)
    aligned = aligned_bilinear(low, (40, 48), ratio=factor, offset=first)
    torch.testing.assert_close(aligned[inner], plane[inner])
    if factor % 2 == 0:
        other = aligned_bilinear(low, (40, 48), ratio=factor)
        assert (other - plane)[inner].abs().max() > 0.5


def test_without_an_offset_it_is_torchs_interpolate():
    low = torch.rand(5, 7, dtype=torch.float64) + 1
    expected = torch.nn.functional.interpolate(low[None, None], size=(20, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(aligned_bilinear(low, (20, 28)), expected[0, 0])


def test_ratio_and_offset_by_axis():
    low = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    result = aligned_bilinear(low, (2, 5), ratio=(1, 4), offset=(0, 0))
    torch.testing.assert_close(result, torch.tensor([[1.0, 1.25, 1.5, 1.75, 2.0], [3.0, 3.25, 3.5, 3.75, 4.0]]))


@pytest.mark.parametrize("invalid", [0.0, math.nan, math.inf, -math.inf])
def test_without_a_mask_zero_nan_and_infinity_are_not_valid(invalid):
    low = torch.tensor([[2.0, invalid, 4.0]])
    # Samples at 0, 4 and 8: what lies between a valid one and the hole is the valid one.
    result = aligned_bilinear(low, (1, 9), ratio=(1, 4), offset=0)
    assert result.tolist() == [[2, 2, 2, 2, 2, 4, 4, 4, 4]]


def test_a_mask_says_that_zero_is_a_value_and_nan_never_is():
    low, valid = torch.tensor([[0.0, math.nan]]), torch.ones(1, 2, dtype=torch.bool)
    assert aligned_bilinear(low, (1, 4), valid=valid).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_constant_stays_and_so_does_the_dtype(dtype):
    low = torch.full((3, 4), 0.7, dtype=dtype)
    low[1, 1] = 0
    result = aligned_bilinear(low, (17, 23))
    assert result.dtype == dtype
    torch.testing.assert_close(result, torch.full((17, 23), 0.7, dtype=dtype), rtol=1e-15, atol=0)


def test_arrays_give_arrays_and_integers_float32():
    low = np.array([[1000, 0], [3000, 1000]], dtype=np.uint16)
    result = aligned_bilinear(low, (4, 4), valid=low > 0)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float32
    expected = aligned_bilinear(torch.tensor(low.astype("float32")), (4, 4))
    np.testing.assert_array_equal(result, expected.numpy())


@pytest.mark.parametrize(
    ("depth", "options", "message"),
    [
        (torch.zeros(2, 2), {}, "a valid sample is required, got none"),
        (torch.ones(1, 2, 2), {}, r"required, got \(1, 2, 2\)"),
        (torch.ones(0, 2), {}, r"required, got \(0, 2\)"),
        (torch.ones(2, 2), {"valid": torch.ones(2, 3, dtype=torch.bool)}, r"got \(2, 2\) and \(2, 3\)"),
        (torch.ones(2, 2), {"ratio": 0}, "a positive ratio is required, got 0"),
    ],
)
def test_bad_input(depth, options, message):
    with pytest.raises(ValueError, match=message):
        aligned_bilinear(depth, (4, 4), **options)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_filling_takes_the_nearest(height, width, spacing, share, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.arange(height * width).reshape(height, width)
    valid = torch.rand(height, width, generator=generator) < share
    valid[seed % height, seed % width] = True
    found = nearest_valid(values, valid, spacing=spacing)
    places = [(i, j) for i, j in itertools.product(range(height), range(width)) if valid[i, j]]

    def distance(row, column, i, j):
        return math.hypot((row - i) * spacing[0], (column - j) * spacing[1])

    for row, column in itertools.product(range(height), range(width)):
        i, j = divmod(int(found[row, column]), width)
        assert valid[i, j]
        nearest = min(distance(row, column, *place) for place in places)
        assert distance(row, column, i, j) == pytest.approx(nearest)


SHAPES = {
    "one sample": lambda y, x: (y == 0) & (x == 0),
    "a row": lambda y, x: (y == 0) & (x >= 0),
    "a column": lambda y, x: (x == 7) & (y >= 0),
    "a diagonal": lambda y, x: y == x,
    "a circle": lambda y, x: ((y - 30).square() + (x - 40).square() - 20**2).abs() < 30,
    "all but a hole": lambda y, x: (y < 10) | (y > 50) | (x < 10) | (x > 70),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 2.0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_large_holes_are_filled_from_the_nearest_too(shape, spacing):
    y, x = torch.arange(60)[:, None], torch.arange(80)
    valid = SHAPES[shape](y, x)
    found = nearest_valid(torch.arange(60 * 80).reshape(60, 80), valid, spacing=spacing)
    assert valid.flatten()[found.flatten()].all()
    squared = ((found // 80 - y) * spacing[0]) ** 2 + ((found % 80 - x) * spacing[1]) ** 2
    rows, columns = valid.nonzero().T[..., None, None]
    least = ((rows - y) * spacing[0]) ** 2 + ((columns - x) * spacing[1]) ** 2
    assert torch.equal(squared, least.amin(0))  # to the bit: these are whole numbers


@pytest.mark.parametrize("count", [1, 640])
def test_a_huge_hole_is_filled_in_time_that_grows_with_the_map(count):
    """Some tenths of a second of work, where a search outward from each sample takes ten."""
    values, valid = torch.rand(480, 640), torch.zeros(480, 640, dtype=torch.bool)
    valid[0, :count] = True
    started = time.process_time()
    found = nearest_valid(values, valid)
    assert time.process_time() - started < 3
    assert torch.equal(found, values[:1, :].expand(480, 640) if count > 1 else values[0, 0].expand(480, 640))


def test_nothing_to_fill_with():
    with pytest.raises(ValueError, match="a valid sample is required, got none"):
        nearest_valid(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))
