"""DDF-Up-Net: what it promises holds for any weights, so nothing here is trained."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.network import GuidedUpsampler, Level
from ddfnet.depth.samples import SAMPLES
from tests.guided_networks import check_threads, network
from tests.meta_device import check_reset_statistics

FILTERS = ("both", "spatial", "channel")
NORMS = ("softmax", "filter", "batch", "sigmoid", "none")
JUNK = (float("nan"), float("inf"), -float("inf"), 1e30, -1.0)
WAYS: dict[str, dict[str, Any]] = {
    "carry": {},
    "carry, 5x5": {"kernel_size": 5},
    "carry, other filters for the features": {"norm": "filter"},
    "carry, two blocks": {"blocks": 2},
    "carry, coarse blocks": {"coarse_blocks": 2},
    "paper": {"carry": False},
    "plain": {"upsampler": "bilinear"},
}
every_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)


def maps(scale_factor: int, size: tuple[int, int] = (7, 6), batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Draw depth from 3 to 5, a guide, and a mask with holes larger than a filter."""
    height, width = size
    valid = torch.rand(batch, 1, height, width) < 0.5
    valid[..., :4, :4] = False
    valid[..., -1, -1] = True
    guide = torch.rand(batch, 3, scale_factor * height, scale_factor * width)
    return torch.rand(batch, 1, height, width) * 2 + 3, guide, valid


def around(depth: Tensor, valid: Tensor, scale_factor: int) -> tuple[Tensor, Tensor]:
    """Return the range of the valid depths in the 5x5 around each output's sample; inf and -inf where none is."""
    infinity = float("inf")
    high = F.max_pool2d(depth.masked_fill(~valid, -infinity), 5, 1, 2)
    low = -F.max_pool2d((-depth).masked_fill(~valid, -infinity), 5, 1, 2)
    return F.interpolate(low, scale_factor=scale_factor), F.interpolate(high, scale_factor=scale_factor)


def gradients(model: GuidedUpsampler, levels: list[Level]) -> dict[str, Tensor | None]:
    loss = sum((level.depth * level.valid).square().mean() for level in levels)
    assert isinstance(loss, Tensor)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def check_gradients(given: dict[str, Tensor | None]) -> None:
    for name, gradient in given.items():
        assert gradient is not None, name
        assert gradient.isfinite().all() and gradient.any(), name


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale_factor", [2, 4, 8, 16])
@pytest.mark.parametrize("options", [{}, {"carry": False}, {"upsampler": "bilinear"}])
def test_sizes(scale_factor: int, options: dict[str, Any]) -> None:
    model = network(scale_factor, **options)
    depth, guide, valid = maps(scale_factor, (5, 3))
    result = model(depth, guide, valid)
    assert result.depth.shape == result.valid.shape == (2, 1, 5 * scale_factor, 3 * scale_factor)
    assert (result.depth.dtype, result.valid.dtype) == (torch.float32, torch.bool)
    assert model(depth, guide).valid.all()


@pytest.mark.parametrize("scale_factor", [2, 4, 8, 16])
def test_one_network_serves_smaller_factors(scale_factor: int) -> None:
    model = network(16)
    depth, guide, valid = maps(scale_factor, (4, 5))
    result = model(depth, guide, valid, scale_factor=scale_factor)
    assert result.depth.shape == (2, 1, 4 * scale_factor, 5 * scale_factor)

    smaller = network(scale_factor)
    kept = {name: value for name, value in model.state_dict().items() if name in smaller.state_dict()}
    smaller.load_state_dict(kept)  # strictly: the finest stages are a network of the smaller factor
    assert torch.equal(smaller(depth, guide, valid).depth, result.depth)


def test_levels_go_from_coarse_to_fine() -> None:
    model = network(8)
    depth, guide, valid = maps(8, (4, 3))
    levels = model.levels(depth, guide, valid)
    assert [tuple(level.depth.shape[2:]) for level in levels] == [(8, 6), (16, 12), (32, 24)]
    assert torch.equal(levels[-1].depth, model(depth, guide, valid).depth)


def test_a_single_sample() -> None:
    result = network(8)(torch.tensor([[[[7.5]]]]), torch.rand(1, 3, 8, 8))
    assert result.valid.all() and (result.depth == 7.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_depth_of_other_types_is_taken_as_float32(dtype: torch.dtype) -> None:
    depth, guide, valid = maps(4)
    result = network(4)(depth.to(dtype), guide, valid)
    assert torch.equal(result.depth, network(4)(depth.to(dtype).float(), guide, valid).depth)


# --- averages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharp", [1.0, 20.0, 1e4])
@pytest.mark.parametrize("scale_factor", [2, 4, 8, 16])
def test_every_output_is_between_valid_depths_near_it(scale_factor: int, sharp: float) -> None:
    model = network(scale_factor, sharp=sharp)
    depth, guide, valid = maps(scale_factor, (9, 8))
    for level, factor in zip(model.levels(depth, guide, valid), (2, 4, 8, 16), strict=False):
        low, high = around(depth, valid, factor)
        known = level.valid
        assert (level.depth >= low - 1e-5)[known].all() and (level.depth <= high + 1e-5)[known].all()


@every_way
def test_valid_where_a_valid_sample_is_near_and_0_elsewhere(options: dict[str, Any]) -> None:
    depth, guide, valid = maps(4, (12, 11))
    valid[..., :8, :8] = False
    result = network(4, **options)(depth, guide, valid)
    assert result.valid[F.interpolate(valid.float(), scale_factor=4) > 0].all()
    assert not result.valid.all() and not result.depth[~result.valid].any()
    if options.get("kernel_size", 3) == 3:
        assert not result.valid[around(depth, valid, 4)[0].isinf()].any()


def test_larger_filters_stay_within_the_map() -> None:
    """They reach further than the 5x5."""
    depth, guide, valid = maps(8, (9, 8))
    result = network(8, kernel_size=5)(depth, guide, valid)
    for sample, output, mask, known in zip(depth, result.depth, valid, result.valid, strict=True):
        assert sample[mask].min() - 1e-5 <= output[known].min() and output[known].max() <= sample[mask].max() + 1e-5


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5}, {"norm": "filter"}])
def test_a_constant_stays(options: dict[str, Any]) -> None:
    _, guide, valid = maps(4)
    result = network(4, **options)(torch.full(valid.shape, 1234.567), guide, valid)
    assert (result.depth[result.valid] == torch.tensor(1234.567)).all()


@every_way
def test_scaled_and_shifted_with_its_input(options: dict[str, Any]) -> None:
    model = network(4, **options)
    depth, guide, valid = maps(4)
    result, other = model(depth, guide, valid), model(depth * 1000 + 500, guide, valid)
    expected = result.depth * 1000 + 500
    torch.testing.assert_close(other.depth[other.valid], expected[result.valid], rtol=0, atol=0.05)


@every_way
def test_no_valid_depth_at_all(options: dict[str, Any]) -> None:
    model = network(4, **options)
    depth, guide, valid = maps(4)
    alone, empty = model(depth[:1], guide[:1], valid[:1]), valid.clone()
    empty[1] = False
    result = model(depth, guide, empty)
    assert not result.valid[1].any() and not result.depth[1].any()
    torch.testing.assert_close(result.depth[:1], alone.depth)  # the other map of the batch is as it was
    result.depth.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# --- what is not valid ------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("junk", JUNK)
def test_what_an_invalid_sample_holds_does_not_matter(options: dict[str, Any], junk: float) -> None:
    """Neither for the result nor for what a training makes of it, to the bit."""
    depth, guide, valid = maps(4)

    def run(held: float) -> tuple[Level, dict[str, Tensor | None]]:
        model = network(4, **options)
        levels = model.levels(torch.where(valid, depth, held), guide, valid)
        return levels[-1], gradients(model, levels)

    (expected, expected_gradients), (result, result_gradients) = run(0.0), run(junk)
    assert torch.equal(result.depth, expected.depth) and torch.equal(result.valid, expected.valid)
    for name, gradient in expected_gradients.items():
        other = result_gradients[name]
        assert gradient is not None and other is not None and torch.equal(other, gradient), name


def test_an_invalid_sample_has_no_gradient() -> None:
    depth, guide, valid = maps(4)
    depth.requires_grad_()
    network(4)(depth, guide, valid).depth.square().sum().backward()
    assert depth.grad is not None and depth.grad.isfinite().all()
    assert not depth.grad[~valid].any() and depth.grad[valid].any()


# --- gradients --------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("holes", [False, True])
def test_gradients_reach_every_parameter(options: dict[str, Any], holes: bool) -> None:
    model = network(8, **options)
    depth, guide, valid = maps(8)
    check_gradients(gradients(model, model.levels(depth, guide, valid if holes else None)))


def test_gradients_reach_every_parameter_of_the_stages_used() -> None:
    model = network(8)
    depth, guide, valid = maps(4)
    given = gradients(model, model.levels(depth, guide, valid, scale_factor=4))
    unused = {name: gradient for name, gradient in given.items() if name.startswith(("stages.2", "guidance.2"))}
    assert unused and all(gradient is None for gradient in unused.values())
    check_gradients({name: gradient for name, gradient in given.items() if name not in unused})


@pytest.mark.parametrize("sharp", [1e2, 1e4, 1e6])
def test_gradients_of_very_sharp_filters_are_finite(sharp: float) -> None:
    """A filter may choose a sample that is not valid, by more than float32 can tell from 1.

    What is left of a softmax for the valid ones is then 0 or next to it, and scaling that up has no finite gradient.
    """
    model = network(8, sharp=sharp)
    depth, guide, valid = maps(8)
    levels = model.levels(depth, guide, valid)
    assert all(level.depth.isfinite().all() for level in levels)
    for name, gradient in gradients(model, levels).items():
        assert gradient is not None and gradient.isfinite().all(), name


@pytest.mark.parametrize(
    ("filters", "combine", "norm"), list(itertools.product(FILTERS, ("mul", "add"), NORMS)), ids="-".join
)
@pytest.mark.parametrize("carry", [True, False])
def test_filters_combinations_and_norms(filters: str, combine: str, norm: str, carry: bool) -> None:
    model = network(4, filters=filters, combine=combine, norm=norm, carry=carry)
    depth, guide, valid = maps(4)
    levels = model.levels(depth, guide, valid)
    assert levels[-1].depth.isfinite().all()
    check_gradients(gradients(model, levels))
    model.train()(depth, guide, valid).depth.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if carry:
        low, high = around(depth, valid, 4)
        depth, known = levels[-1]
        assert (depth >= low - 1e-5)[known].all() and (depth <= high + 1e-5)[known].all()


@pytest.mark.parametrize(("filters", "combine"), [("both", "add"), ("spatial", "mul"), ("channel", "mul")])
def test_filters_and_combine_make_a_difference(filters: str, combine: str) -> None:
    given = maps(4)
    usual = network(4, filters="both", combine="mul")(*given).depth
    assert not torch.allclose(network(4, filters=filters, combine=combine)(*given).depth, usual, atol=1e-4)


# --- the paper's form and the plain network ------------------------------------------------------------------


def test_in_the_papers_form_the_head_alone_brings_the_guide_to_the_depth() -> None:
    model = network(4, carry=False)
    depth, guide, valid = maps(4)
    other = torch.rand_like(guide)
    assert not torch.allclose(model(depth, guide, valid).depth, model(depth, other, valid).depth, atol=1e-3)
    assert all(stage.logits is None for stage in model.stages)

    assert model.heads is not None
    torch.nn.init.zeros_(model.heads[0].weight)
    assert torch.equal(model(depth, guide, valid).depth, model(depth, other, valid).depth)


def test_in_the_papers_form_the_head_counts_in_how_far_the_depths_nearby_reach() -> None:
    model = network(4, carry=False)
    _, guide, _ = maps(4)
    depth = torch.full((1, 1, guide.shape[2] // 4, guide.shape[3] // 4), 3.0)
    depth[..., -1] = 7.0
    flat, edge = slice(0, -4 * 5), slice(-4 * 2, None)
    first, second = (model(depth, given[:1]).depth for given in (guide, torch.rand_like(guide)))
    assert torch.equal(first[..., flat], torch.full_like(first[..., flat], 3.0))
    assert not torch.allclose(first[..., edge], second[..., edge], atol=1e-2)


def test_without_its_correction_the_plain_network_is_bilinear() -> None:
    torch.manual_seed(0)
    model = GuidedUpsampler(4, channels=8, guide_channels=8, upsampler="bilinear")  # the correction starts at 0
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    depth = (y + 2 * x)[None, None]
    result = model(depth, torch.rand(1, 3, 48, 40)).depth
    expected = F.interpolate(F.interpolate(depth, scale_factor=2, mode="bilinear"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    other = model(depth, torch.rand(1, 3, 48, 40)).depth
    assert torch.equal(result, other)


def test_what_is_not_finite_is_not_valid_whatever_the_mask_says() -> None:
    model, (depth, guide, valid) = network(4), maps(4)
    expected = model(depth, guide, valid)
    for value in (math.nan, math.inf, -math.inf):
        wrong = depth.masked_fill(~valid, value)
        result = model(wrong, guide)
        assert torch.equal(result.depth, expected.depth) and torch.equal(result.valid, expected.valid)


def test_the_plain_network_has_no_dynamic_filter_but_reads_the_guide() -> None:
    model = network(4, upsampler="bilinear")
    depth, guide, valid = maps(4)
    assert all(stage.logits is None for stage in model.stages) and model.heads is None
    assert not any("channel" in name or "spatial" in name for name, _ in model.named_parameters())
    other = model(depth, torch.rand_like(guide), valid).depth
    assert not torch.allclose(model(depth, guide, valid).depth, other, atol=1e-3)


@pytest.mark.parametrize("scale_factor", [4, 8, 16])
@pytest.mark.parametrize(
    ("ours", "plains"),
    [
        ({"channels": 32}, {"channels": 35}),
        ({"channels": 48, "guide_channels": 48}, {"channels": 53, "guide_channels": 48}),
    ],
)
def test_the_plain_network_is_as_large(scale_factor: int, ours: dict[str, int], plains: dict[str, int]) -> None:
    def size(**options: Any) -> int:
        return sum(parameter.numel() for parameter in GuidedUpsampler(scale_factor, **options).parameters())

    assert size(**plains, upsampler="bilinear") == pytest.approx(size(**ours), rel=0.05)


# --- receptive radius ---------------------------------------------------------------------------------------

REACHES = [
    {},
    {"kernel_size": 5},
    {"blocks": 2},
    {"coarse_blocks": 3},
    {"carry": False},
    {"upsampler": "bilinear"},
]


def columns(array: Tensor, samples: int) -> Tensor:
    """Group the columns of (N, C, H, W) by the sample that they belong to: (samples, all others)."""
    return array.unflatten(3, (samples, -1)).movedim(3, 0).flatten(1)


@pytest.mark.parametrize("options", REACHES, ids=str)
@pytest.mark.parametrize("scale_factor", [2, 4, 8])
@torch.no_grad()
def test_receptive_radius(options: dict[str, Any], scale_factor: int) -> None:
    """A nan spreads to whatever reads it, so it shows what a change too small for float32 would not."""
    model = network(scale_factor, **options)
    radius = model.receptive_radius
    at = radius + 3
    samples = 2 * at + 1
    scaled, guide = torch.rand(1, 1, 3, samples), torch.rand(1, 3, 3 * scale_factor, samples * scale_factor)
    known = torch.ones_like(scaled)
    context = model.context(scaled, known)

    def farthest(depth: Tensor, image: Tensor) -> int:
        *_, result = model.scaled_levels(depth, known, image, context, scale_factor)
        changed = columns(result.depth, samples).isnan().any(1).nonzero().flatten()
        return int((changed - at).abs().max())

    broken = scaled.clone()
    broken[..., at] = float("nan")
    assert radius - 4 < farthest(broken, guide) <= radius
    broken = guide.clone()
    broken[..., at * scale_factor : (at + 1) * scale_factor] = float("nan")
    assert 0 < farthest(scaled, broken) <= radius


@pytest.mark.parametrize("options", REACHES, ids=str)
@torch.no_grad()
def test_beyond_the_receptive_radius_nothing_changes_a_bit(options: dict[str, Any]) -> None:
    model = network(4, **options)
    radius = model.receptive_radius
    at = radius + 3
    samples = 2 * at + 1
    scaled, guide = torch.rand(1, 1, 4, samples), torch.rand(1, 3, 16, samples * 4)
    known = (torch.rand_like(scaled) < 0.7).float()
    context = model.context(scaled, known)

    def run(within: int) -> Tensor:
        """Return the outputs of the sample in the middle, with all inputs replaced that are further away."""
        away = (torch.arange(samples) - at).abs() > within
        depth = torch.where(away, torch.rand_like(scaled), scaled)
        there = torch.where(away, torch.ones_like(known), known)
        image = torch.where(away.repeat_interleave(4), torch.rand_like(guide), guide)
        *_, result = model.scaled_levels(depth * there, there, image, context, 4)
        return columns(result.depth, samples)[at]

    expected = run(samples)
    assert torch.equal(run(radius), expected)
    assert not torch.equal(run(2), expected)


@torch.no_grad()
@pytest.mark.parametrize("way", SAMPLES)
@pytest.mark.parametrize("options", REACHES, ids=str)
@torch.no_grad()
def test_a_window_has_what_the_whole_map_has(options: dict[str, Any], way: str) -> None:
    """Wherever it lies: each stage computes what the window needs, and no more."""
    model, factor, size = network(8, **options), 8, (40, 36)
    scaled, guide = torch.rand(1, 1, *size), torch.rand(1, 3, *(factor * length for length in size))
    known = (torch.rand_like(scaled) < 0.9).float()
    maps = scaled * known, known, guide, model.context(scaled * known, known), factor
    whole = model.scaled_pixels(*maps, way)
    pixels = []
    for stage in model.stages:
        stage.entry.register_forward_hook(lambda *call: pixels.append(call[-1][0, 0].numel()))
    for rows, columns in ((slice(0, 5), slice(30, 36)), (slice(20, 22), slice(17, 20)), (slice(0, 40), slice(0, 36))):
        found = model.scaled_pixels(*maps, way, (rows, columns))
        inner = (..., slice(rows.start * 8, rows.stop * 8), slice(columns.start * 8, columns.stop * 8))
        assert torch.equal(found.valid, whole.valid[inner])
        torch.testing.assert_close(found.depth, whole.depth[inner], rtol=1e-5, atol=1e-5)
        if whole.slope is not None:
            assert found.slope is not None
            torch.testing.assert_close(found.slope, whole.slope[inner], rtol=1e-5, atol=1e-5)
    if way == "point":
        assert pixels[5] < 0.2 * pixels[-1], "the finest stage sees a part of the map for a part"


@torch.no_grad()
def test_points_are_upsampled_on_their_planes() -> None:
    """Each point on its pixel of the block, which is not its middle."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    truth = (2 * x + 3 * y + 1)[None, None]
    model, inside = network(8), (..., slice(16, -16), slice(16, -16))
    low, guide = truth[..., 3::8, 3::8], torch.rand(1, 3, 64, 80)
    torch.testing.assert_close(model.upsample(low, guide).depth[inside], truth[inside], rtol=1e-5, atol=1e-3)
    averages = torch.nn.functional.avg_pool2d(truth, 8)
    found = model.upsample(averages, guide, samples="average").depth
    torch.testing.assert_close(found[inside], truth[inside], rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_a_network_of_more_coarse_blocks_begins_with_the_weights_of_one_of_fewer() -> None:
    trained, own = network(8), network(8, coarse_blocks=3, seed=1)
    own.begin_with(trained)
    maps = torch.rand(1, 1, 12, 12), torch.rand(1, 3, 96, 96)
    near, far = trained(*maps).depth, network(8, coarse_blocks=3)(*maps).depth
    assert (own(*maps).depth - near).square().mean() < (far - near).square().mean() / 4
    maps = maps[0], maps[1][..., :24, :24]
    assert torch.equal(own(*maps, scale_factor=2).depth, trained(*maps, scale_factor=2).depth), "the last stage alone"
    with pytest.raises(ValueError, match="must have the options of its weights, coarse_blocks = 3$"):
        trained.begin_with(own)


def test_target_receptive_radius() -> None:
    model = network(4)
    radius, at = model.target_receptive_radius, 10
    scaled, known = torch.rand(1, 1, 3, 21), torch.ones(1, 1, 3, 21)
    expected = model.features(scaled, known)
    for name in ("depth", "validity"):
        depth, there = scaled.clone(), known.clone()
        depth[..., at] = 0
        there[..., at] = float(name == "depth")
        changed = (model.features(depth, there) != expected).any(1).any(1)[0]
        away = (torch.arange(21) - at).abs()
        assert not changed[away > radius].any()
        assert changed[away == radius].any()


# --- numbers ----------------------------------------------------------------------------------------------


def test_under_autocast_the_depth_stays_float32() -> None:
    """bfloat16 would hold none of these depths: next to 1000 it has every fourth number."""
    depth, guide, valid = maps(8, (8, 12))
    depth = 1000 + depth * 0.1
    depth[..., 6:] += 1
    model = network(8)
    with torch.autocast("cpu", torch.bfloat16):
        levels = model.levels(depth, guide, valid)
    for level, factor in zip(levels, (2, 4, 8), strict=True):
        assert level.depth.dtype == torch.float32
        low, high = around(depth, valid, factor)
        known = level.valid
        assert (level.depth >= low - 1e-3)[known].all() and (level.depth <= high + 1e-3)[known].all()
    assert not levels[-1].depth[~levels[-1].valid].any()
    check_gradients(gradients(model, levels))


@pytest.mark.parametrize("options", [{}, {"carry": False}, {"upsampler": "bilinear"}])
def test_under_autocast_the_result_is_close(options: dict[str, Any]) -> None:
    model = network(4, sharp=2.0, **options)  # sharper filters choose another sample for the rounding of a feature
    depth, guide, valid = maps(4)
    expected = model(depth, guide, valid)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(depth, guide, valid)
    assert torch.equal(result.valid, expected.valid) and result.depth.dtype == torch.float32
    torch.testing.assert_close(result.depth, expected.depth, rtol=0, atol=0.1)


@every_way
@torch.no_grad()
def test_the_same_bits_for_any_threads(options: dict[str, Any]) -> None:
    model, given = network(8, **options), maps(8, (24, 31))
    check_threads(lambda: model(*given).depth)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_factor": 3}, "scale_factor must be a power of two from 2 on, got 3"),
        ({"scale_factor": 1}, "scale_factor must be a power of two from 2 on, got 1"),
        ({"scale_factor": 0}, "scale_factor must be a power of two from 2 on, got 0"),
        ({"scale_factor": -4}, "scale_factor must be a power of two from 2 on, got -4"),
        ({"scale_factor": 4.0}, "scale_factor must be a power of two from 2 on, got 4.0"),
        ({"scale_factor": "4"}, "scale_factor must be a power of two from 2 on, got '4'"),
        ({"kernel_size": 4}, "kernel_size must be odd and at least 3, got 4"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3, got 1"),
        ({"filters": "none"}, "filters must be 'both', 'spatial' or 'channel', got 'none'"),
        ({"combine": "max"}, "combine must be 'mul' or 'add', got 'max'"),
        ({"norm": "layer"}, "norm must be 'filter', 'batch', 'sigmoid', 'softmax' or 'none', got 'layer'"),
        ({"upsampler": "nearest"}, "upsampler must be 'ddf' or 'bilinear', got 'nearest'"),
        (
            {"filters": "channel", "norm": "fliter"},
            "norm must be 'filter', 'batch', 'sigmoid', 'softmax' or 'none', got 'fliter'",
        ),
        ({"channels": 1}, "channels must be at least 2, got 1"),
        ({"guide_channels": 0}, "guide_channels must be at least 2, got 0"),
        ({"blocks": -1}, "blocks must not be negative, got -1"),
        ({"coarse_blocks": -2}, "coarse_blocks must not be negative, got -2"),
        (
            {"upsampler": "bilinear", "combine": "add"},
            "upsampler='bilinear' has no filters: leave filters, combine, norm and carry as they are, got "
            "filters='both', combine='add', norm='softmax', carry=True",
        ),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        GuidedUpsampler(**{"channels": 8, "guide_channels": 8, **options})
    assert str(raised.value) == message


DEPTH, GUIDE = torch.ones(2, 1, 4, 5), torch.ones(2, 3, 16, 20)
ERRORS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([[1.0]], GUIDE), {}, TypeError, "depth must be a torch.Tensor, got list"),
    ((DEPTH, None), {}, TypeError, "guide must be a torch.Tensor, got NoneType"),
    ((DEPTH.int(), GUIDE), {}, TypeError, "depth must be floating, got torch.int32; convert it, as in depth.float()"),
    ((DEPTH, GUIDE.byte()), {}, TypeError, "guide must be floating, got torch.uint8; convert it, as in guide.float()"),
    (
        (DEPTH[0], GUIDE),
        {},
        ValueError,
        "depth must be (N, C, H, W) with C = 1, got (1, 4, 5); add a batch dimension with unsqueeze(0)",
    ),
    ((GUIDE, GUIDE), {}, ValueError, "depth must be (N, C, H, W) with C = 1, got (2, 3, 16, 20)"),
    ((DEPTH, DEPTH), {}, ValueError, "guide must be (N, C, H, W) with C = 3, got (2, 1, 4, 5)"),
    (
        (DEPTH, GUIDE[..., 1:]),
        {},
        ValueError,
        "guide must be (N, 3, s*h, s*w) with s = 4 for depth (2, 1, 4, 5), got (2, 3, 16, 19); "
        "ddfnet.upsample_depth takes any sizes",
    ),
    (
        (DEPTH[:1], GUIDE),
        {"scale_factor": 2},
        ValueError,
        "guide must be (N, 3, s*h, s*w) with s = 2 for depth (1, 1, 4, 5), got (2, 3, 16, 20); "
        "ddfnet.upsample_depth takes any sizes",
    ),
    (
        (DEPTH[:, :, :0], GUIDE[:, :, :0]),
        {},
        ValueError,
        "guide must be (N, 3, s*h, s*w) with s = 4 for depth (2, 1, 0, 5), got (2, 3, 0, 20); "
        "ddfnet.upsample_depth takes any sizes",
    ),
    (
        (DEPTH, GUIDE, DEPTH),
        {},
        ValueError,
        "valid must be bool and of depth's shape (2, 1, 4, 5), got torch.float32 (2, 1, 4, 5)",
    ),
    (
        (DEPTH, GUIDE, DEPTH[:1] > 0),
        {},
        ValueError,
        "valid must be bool and of depth's shape (2, 1, 4, 5), got torch.bool (1, 1, 4, 5)",
    ),
    *(
        (
            (DEPTH, GUIDE),
            {"scale_factor": wrong},
            ValueError,
            f"scale_factor must be a power of two from 2 to this network's 4, got {wrong}",
        )
        for wrong in (8, 3, 1, 2.0)
    ),
]


@pytest.mark.parametrize(("given", "options", "error", "message"), ERRORS)
def test_wrong_maps_are_refused(
    given: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        network(4)(*given, **options)
    assert str(raised.value) == message


# --- torch alone ------------------------------------------------------------------------------------------

BARE = """
import sys
sys.modules.update(dict.fromkeys(["timm", "numpy", "torchvision", "lightning", "safetensors", "scipy"]))
import torch
import ddfnet
from ddfnet.models import GuidedUpsampler
from ddfnet.depth.network import GuidedUpsampler as same
assert GuidedUpsampler is same
network = GuidedUpsampler(4, channels=8, guide_channels=8)
assert network(torch.rand(1, 1, 3, 4), torch.rand(1, 3, 12, 16)).depth.shape == (1, 1, 12, 16)
guide = torch.randint(256, (13, 17, 3), dtype=torch.uint8)
print(tuple(ddfnet.upsample_depth(1 + torch.rand(3, 4), guide, model=network).shape))
"""


def test_torch_alone_is_enough() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(13, 17)\n"


@every_way
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_memory_from_the_meta_device_gets_the_constructors_values(options: dict[str, Any], combine: str) -> None:
    own = {} if "upsampler" in options else {"combine": combine}
    check_reset_statistics(lambda: GuidedUpsampler(4, channels=16, guide_channels=16, **own, **options))
