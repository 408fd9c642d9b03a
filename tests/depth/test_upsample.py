"""Promises of `ddfnet.upsample_depth`, for all that hypothesis draws: sizes, ratios, offsets, samples, dtypes, holes.

The promises hold by construction, so the networks here were never trained. Where a sample lies and what is near it is
computed in this file, from the docstring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ddfnet
from ddfnet.depth.samples import SAMPLES
from tests.guided_networks import network

NETWORKS = {
    "2x": network(2),
    "4x": network(4),
    "8x": network(8),
    "8x, another": network(8, seed=1, blocks=2, channels=4),
    "16x": network(16, channels=4),
    "4x, 5x5": network(4, kernel_size=5),  # reaches further than it may
    "4x, as the paper has it": network(4, carry=False),  # its outputs are no averages
}
DTYPES = ("uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")
JUNK = (0.0, np.nan, np.inf, -np.inf, -1e30, 1e30)

properties = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Axis:
    """Sample i lies on pixel ``i * ratio + start`` of the guide."""

    samples: int
    pixels: int
    ratio: float
    start: float

    @property
    def positions(self) -> np.ndarray:
        """Return the positions of the guide's pixels, in samples."""
        return ((np.arange(self.pixels) - self.start) / self.ratio).clip(0, self.samples - 1)


@dataclass(frozen=True)
class Case:
    y: Axis
    x: Axis
    offset: Any  # as it is given to the function
    model: str
    seed: int
    samples: str = "auto"

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.samples, self.x.samples

    @property
    def placement(self) -> dict[str, Any]:
        """Return the options that say where and how the samples were taken."""
        return {"offset": self.offset, "samples": self.samples}

    def guide(self, again: int = 0) -> np.ndarray:
        rng = np.random.default_rng((self.seed, again))
        return rng.integers(0, 256, (self.y.pixels, self.x.pixels, 3), dtype=np.uint8)

    def depth(self, dtype: str = "float64") -> np.ndarray:
        """Draw a depth map that is valid everywhere."""
        rng = np.random.default_rng((self.seed, 7))
        if np.dtype(dtype).kind in "iu":
            return rng.integers(1, min(np.iinfo(dtype).max, 10**6), self.shape, dtype=dtype)
        values = rng.random(self.shape) * 10.0 ** rng.integers(-3, 4) + 10.0 ** rng.integers(-3, 4)
        return (values * rng.choice([-1, 1])).astype(dtype)

    def upsample(self, depth: np.ndarray, *, again: int = 0, fill: Any = "none", **options: Any) -> np.ndarray:
        result = ddfnet.upsample_depth(
            depth, self.guide(again), model=NETWORKS[self.model], fill=fill, **self.placement, **options
        )
        assert result.shape == (self.y.pixels, self.x.pixels)
        assert result.dtype == depth.dtype
        return result


def ratios() -> st.SearchStrategy[float]:
    return st.one_of(
        st.sampled_from([1.0, 2.0, 3.0, 4.0, 8.0, 16.0]), st.floats(1, 2), st.floats(2, 8), st.floats(8, 20)
    )


@st.composite
def whole_axes(draw: st.DrawFn) -> Axis:
    samples = draw(st.integers(1, 8))
    pixels = max(samples, round(samples * draw(ratios())))
    return Axis(samples, pixels, pixels / samples, (pixels / samples - 1) / 2)


@st.composite
def strided_axes(draw: st.DrawFn) -> Axis:
    """Draw axes of every r-th pixel from a whole one on, where no other whole step gives as many samples."""
    step = draw(st.integers(1, 17))
    start, pixels = draw(st.integers(0, step - 1)), draw(st.integers(step, 150))
    counts = [len(range(start, pixels, other)) for other in range(1, pixels + 1)]
    assume(counts.count(counts[step - 1]) == 1)
    return Axis(counts[step - 1], pixels, step, start)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["middle", "moved", "strided"]))
    axes = [draw(strided_axes() if kind == "strided" else whole_axes()) for _ in range(2)]
    offset: Any = None
    if kind == "moved":
        assume(any(axis.ratio > 1 for axis in axes))  # a map that is not enlarged is not moved either
        # From the middle as far as every sample is within half a ratio of the guide.
        starts = [(axis.ratio - 1) / 2 + draw(st.floats(-0.49, 0.49)) * (2 * axis.ratio - 1) for axis in axes]
        assume(not any(start.is_integer() for start in starts))
        axes = [Axis(axis.samples, axis.pixels, axis.ratio, start) for axis, start in zip(axes, starts, strict=True)]
    if kind != "middle":
        offset = axes[0].start, axes[1].start
        if offset[0] == offset[1] and draw(st.booleans()):
            offset = offset[0]
    samples = draw(st.sampled_from(SAMPLES)) if kind == "middle" else "auto"
    return Case(*axes, offset, draw(st.sampled_from(list(NETWORKS))), draw(st.integers(0, 2**16)), samples)


@st.composite
def masks(draw: st.DrawFn, case: Case) -> np.ndarray:
    """Draw a mask that is somewhere true."""
    rng = np.random.default_rng((case.seed, 11))
    mask = rng.random(case.shape) < draw(st.sampled_from([0.05, 0.3, 0.7, 0.95]))
    mask.flat[rng.integers(mask.size)] = True
    return mask


@st.composite
def holed(draw: st.DrawFn) -> tuple[Case, np.ndarray]:
    case = draw(cases())
    return case, draw(masks(case))


def neighbourhood(case: Case, depth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest valid sample of the 5x5 around each pixel's nearest sample."""

    def reduce(values: np.ndarray, reducer: np.ufunc) -> np.ndarray:
        for axis in (case.y, case.x):
            nearest = np.round(axis.positions).astype(int)
            values = np.stack([reducer.reduce(values[max(i - 2, 0) : i + 3], axis=0) for i in nearest]).T
        return values

    exact = depth.astype(np.float64)
    return reduce(np.where(valid, exact, np.inf), np.minimum), reduce(np.where(valid, exact, -np.inf), np.maximum)


def missing(result: np.ndarray) -> np.ndarray:
    return np.isnan(result) if result.dtype.kind == "f" else result == 0


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8))


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES))
def test_within_what_is_valid_in_the_5x5(case_and_valid: tuple[Case, np.ndarray], dtype: str) -> None:
    case, valid = case_and_valid
    depth = case.depth(dtype)
    result = case.upsample(depth, valid=valid)
    low, high = neighbourhood(case, depth, valid)
    known = ~missing(result)
    exact = result.astype(np.float64)
    assert (low[known] <= exact[known]).all() and (exact[known] <= high[known]).all()


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES), number=st.floats(-3e4, 3e4).filter(lambda v: abs(v) >= 1))
def test_a_constant_stays_that_constant(case_and_valid: tuple[Case, np.ndarray], dtype: str, number: float) -> None:
    case, valid = case_and_valid
    with np.errstate(invalid="ignore"):
        depth = np.full(case.shape, abs(number) % 255 + 1 if dtype.startswith("u") else number).astype(dtype)
    result = case.upsample(depth, valid=valid)
    assert (result[~missing(result)] == depth[0, 0]).all()
    assert same(case.upsample(depth), np.full_like(result, depth[0, 0]))


@properties
@given(
    case_and_valid=holed(),
    junk=st.lists(st.sampled_from(JUNK), min_size=1),
    fill=st.sampled_from(["none", "nearest", "guided"]),
)
def test_what_is_not_valid_changes_nothing(
    case_and_valid: tuple[Case, np.ndarray], junk: list[float], fill: str
) -> None:
    """Not a bit of it, whatever it holds: marked by a mask, or by 0, nan or inf."""
    case, valid = case_and_valid
    depth = case.depth()
    held = np.resize(junk, case.shape)
    expected = case.upsample(np.where(valid, depth, 1.0), valid=valid, fill=fill)
    assert same(case.upsample(np.where(valid, depth, held), valid=valid, fill=fill), expected)
    unmarked = np.where(np.isfinite(held), 0, held)
    assert same(case.upsample(np.where(valid, depth, unmarked), fill=fill), expected)
    no_number = np.where(np.isfinite(held), np.nan, held)
    assert same(case.upsample(np.where(valid, depth, no_number), valid=valid | True, fill=fill), expected)


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES))
def test_valid_where_all_samples_near_are_and_not_where_none_is(
    case_and_valid: tuple[Case, np.ndarray], dtype: str
) -> None:
    case, valid = case_and_valid
    result = case.upsample(case.depth(dtype), valid=valid)
    least, most = neighbourhood(case, valid, np.ones_like(valid))
    assert not missing(result)[least > 0].any()
    assert missing(result)[most == 0].all()
    assert not missing(case.upsample(case.depth(dtype))).any()


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES))
def test_nearest_leaves_no_pixel_out_and_changes_no_other(case_and_valid: tuple[Case, np.ndarray], dtype: str) -> None:
    case, valid = case_and_valid
    depth = case.depth(dtype)
    result, filled = case.upsample(depth, valid=valid), case.upsample(depth, valid=valid, fill="nearest")
    without = missing(result)
    assert same(filled[~without], result[~without])
    assert not missing(filled).any()
    # Where none is near, a pixel has the depth of a valid sample, as near as any, up to a sample's own half block.
    without = neighbourhood(case, valid, np.ones_like(valid))[1] == 0
    rows, columns = np.nonzero(valid)
    reach = np.hypot(case.y.ratio, case.x.ratio) + 1e-6
    for y, x in np.argwhere(without)[::7]:
        nearest = np.round(case.y.positions[y]), np.round(case.x.positions[x])
        away = np.hypot((rows - nearest[0]) * case.y.ratio, (columns - nearest[1]) * case.x.ratio)
        near = away <= away.min() + reach
        assert filled[y, x] in depth[rows[near], columns[near]]


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES))
def test_guided_leaves_no_pixel_out_and_overshoots_nothing(case_and_valid: tuple[Case, np.ndarray], dtype: str) -> None:
    case, valid = case_and_valid
    depth = case.depth(dtype)
    filled = case.upsample(depth, valid=valid, fill="guided")
    assert not missing(filled).any()
    assert depth[valid].min() <= filled.min() and filled.max() <= depth[valid].max()
    assert same(case.upsample(depth, fill="guided"), case.upsample(depth))
    if case.shape == filled.shape:
        assert same(filled[valid], depth[valid])


@properties
@given(case_and_valid=holed(), scale=st.floats(1e-3, 1e3), ranges=st.floats(0, 100))
def test_scaled_and_shifted(case_and_valid: tuple[Case, np.ndarray], scale: float, ranges: float) -> None:
    """Depths have no sign, so that none becomes 0, which is not valid; no shift is so far that digits are lost."""
    case, valid = case_and_valid
    depth = np.abs(case.depth())
    shift = ranges * scale * np.ptp(depth)
    result, other = case.upsample(depth, valid=valid), case.upsample(depth * scale + shift, valid=valid)
    assert np.array_equal(np.isnan(result), np.isnan(other))
    known = ~np.isnan(result)
    tolerance = 1e-6 * scale * np.ptp(depth[valid]) + 1e-12 * (scale * depth.max() + shift)
    assert np.abs(other - (result * scale + shift))[known].max(initial=0) <= tolerance


@properties
@given(case_and_valid=holed(), cuts=st.integers(1, 4))
def test_tiled_is_whole(case_and_valid: tuple[Case, np.ndarray], cuts: int) -> None:
    case, valid = case_and_valid
    depth, tile = case.depth(), math.ceil(max(case.y.pixels, case.x.pixels) / cuts)
    whole, tiled = case.upsample(depth, valid=valid), case.upsample(depth, valid=valid, tile=tile)
    assert np.array_equal(np.isnan(whole), np.isnan(tiled))
    assert np.abs(whole - tiled)[~np.isnan(whole)].max(initial=0) <= 1e-6 * np.ptp(depth[valid])


@properties
@given(case_and_valid=holed(), dtype=st.sampled_from(DTYPES))
def test_tensors_are_as_arrays(case_and_valid: tuple[Case, np.ndarray], dtype: str) -> None:
    case, valid = case_and_valid
    depth = case.depth(dtype)
    given_depth, guide, mask = (torch.from_numpy(array) for array in (depth, case.guide(), valid))
    options: dict[str, Any] = {"model": NETWORKS[case.model], "fill": "none", **case.placement}
    result = ddfnet.upsample_depth(given_depth, guide, valid=mask, **options)
    assert result.dtype == given_depth.dtype
    # Torch rounds to float16 by way of float32, which can be a last digit off.
    np.testing.assert_allclose(result.numpy(), case.upsample(depth, valid=valid), rtol=np.finfo("float16").eps)


@properties
@given(axis=strided_axes(), model=st.sampled_from(list(NETWORKS)))
def test_every_rth_pixel_has_the_ratio_r(axis: Axis, model: str) -> None:
    """However much of the last block the guide has: the same as where it has all of it, repeated from the edge."""
    assume(axis.samples * axis.ratio >= axis.pixels > axis.samples)
    case = Case(axis, axis, axis.start, model, seed=axis.pixels)
    depth, guide = case.depth(), case.guide()
    more = int(axis.samples * axis.ratio) - axis.pixels
    whole = np.pad(guide, ((0, more), (0, more), (0, 0)), mode="edge")
    expected = ddfnet.upsample_depth(depth, whole, offset=axis.start, model=NETWORKS[model])
    assert same(case.upsample(depth), np.ascontiguousarray(expected[: axis.pixels, : axis.pixels]))


@properties
@given(case=cases())
def test_the_guide_matters(case: Case) -> None:
    """So that what holds above does not hold for want of a network."""
    assume(min(case.shape) > 2 and min(case.y.ratio, case.x.ratio) >= 2)
    depth = case.depth()
    assert np.abs(case.upsample(depth) - case.upsample(depth, again=1)).max() > 0.01 * np.ptp(depth)
