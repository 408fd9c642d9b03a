"""Parts of DDF-Up-Net: the position of a sample, the inputs of each part, and that none is idle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.depth.stage import _DDFUp
from tests.guided_networks import network

PAPER: dict[str, Any] = {"carry": False}
PLAIN: dict[str, Any] = {"upsampler": "bilinear"}


def maps(factor: int, size: tuple[int, int] = (6, 7), batch: int = 2, valid: float = 1.0) -> tuple[Tensor, ...]:
    """Draw depth from 1 to 2, a guide, and a mask."""
    depth = torch.rand(batch, 1, *size) + 1
    guide = torch.rand(batch, 3, size[0] * factor, size[1] * factor)
    return depth, guide, torch.rand(depth.shape) <= valid


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_where_a_sample_lies(factor: int) -> None:
    """Untrained filters show a high sample around its pixel, i*s + (s - 1)//2, to 0.5 pixels."""
    model = network(factor, sharp=0.0)
    depth = torch.ones(1, 1, 9, 9)
    depth[..., 4, 4] = 2
    out = model(depth, torch.zeros(1, 3, 9 * factor, 9 * factor)).depth[0, 0] - 1
    for axis in (0, 1):
        weights = out.sum(1 - axis)
        centre = (weights * torch.arange(9 * factor)).sum() / weights.sum()
        assert abs(centre - (4 * factor + (factor - 1) // 2)) <= 0.5 + 1e-3


def test_each_map_of_a_batch_has_a_range_and_a_context_of_its_own() -> None:
    model, (depth, guide, valid) = network(8), maps(8, batch=3, valid=0.7)
    depth[1] = 100 * depth[1] + 7
    together = model(depth, guide, valid)
    for i in range(3):
        alone = model(depth[i : i + 1], guide[i : i + 1], valid[i : i + 1])
        torch.testing.assert_close(together.depth[i : i + 1], alone.depth, rtol=1e-5, atol=1e-5)
        assert torch.equal(together.valid[i : i + 1], alone.valid)


def test_options_make_the_same_network_again() -> None:
    options = {"channels": 6, "guide_channels": 5, "kernel_size": 5, "blocks": 2, "filters": "spatial"}
    options["coarse_blocks"] = 3
    options |= {"combine": "add", "norm": "filter", "carry": False, "upsampler": "ddf"}
    model = network(4, **options)
    assert model.init_args == {"scale_factor": 4, **options}
    again = GuidedUpsampler(**model.init_args).eval()
    again.load_state_dict(model.state_dict())
    inputs = maps(4)
    assert torch.equal(again(*inputs).depth, model(*inputs).depth)


@pytest.mark.parametrize("blocks", [0, 3])
def test_trunks_of_any_length(blocks: int) -> None:
    model, inputs = network(4, blocks=blocks), maps(4)
    assert all(len(stage.blocks) == blocks for stage in model.stages)
    assert model(*inputs).depth.isfinite().all()


@pytest.mark.parametrize("options", [{}, PAPER, PLAIN], ids=str)
def test_in_channels_last(options: dict[str, Any]) -> None:
    model, inputs = network(4, **options), maps(4)
    expected = model(*inputs).depth
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(*inputs).depth, expected)


def test_a_factor_of_0_is_not_the_default() -> None:
    with pytest.raises(ValueError, match="from 2 to this network's 4, got 0"):
        network(4)(*maps(4), scale_factor=0)


def test_a_mask_must_be_a_tensor() -> None:
    depth, guide, valid = maps(4)
    with pytest.raises(TypeError, match="valid must be a torch.Tensor, got list"):
        network(4)(depth, guide, valid.tolist())


# --- what is used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"norm": "filter"}, {"combine": "add"}, {"filters": "channel"}, PAPER], ids=str
)
def test_the_output_rests_on_ddf_up(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = network(8, **options), maps(8)
    expected = model(*inputs).depth
    ups = [module for module in model.modules() if isinstance(module, _DDFUp)]
    assert len(ups) == (3 if options == PAPER else 2)
    run = _DDFUp.forward
    monkeypatch.setattr(_DDFUp, "forward", lambda self, *given: torch.zeros_like(run(self, *given)))
    assert (model(*inputs).depth - expected).abs().max() > 0.01


@pytest.mark.parametrize("options", [{}, PAPER, PLAIN], ids=str)
def test_guide_depth_and_validity_are_read(options: dict[str, Any]) -> None:
    model, (depth, guide, valid) = network(8, **options), maps(8, valid=0.8)
    expected = model(depth, guide, valid).depth
    assert (model(depth, guide.flip(3), valid).depth - expected).abs().max() > 0.01
    assert (model(depth.flip(3), guide, valid).depth - expected).abs().max() > 0.1
    assert (model(depth, guide).depth - expected).abs().max() > 0.1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_of_the_guidance_is_read(level: int) -> None:
    """A branch feeds its own stage and, through the branches after it, those before: all of them from the coarsest."""
    model, inputs = network(8), maps(8)
    expected = model.levels(*inputs)
    with torch.no_grad():
        model.guidance[level][0].bias += 1
    for ours, before in zip(model.levels(*inputs), expected, strict=True):
        assert not torch.allclose(ours.depth, before.depth, atol=1e-4)


def test_context_is_the_average_of_the_features_and_chooses_the_channel_filters() -> None:
    model, (depth, guide, valid) = network(8), maps(8, valid=0.8)
    known = valid.float()
    scaled = torch.where(valid, depth - 1, 0)
    context = model.context(scaled, known)
    assert context.shape == (2, 8, 1, 1)
    torch.testing.assert_close(context, model.features(scaled, known).mean((2, 3), keepdim=True))
    own, other = ([*model.scaled_levels(scaled, known, guide, each, 8)] for each in (context, context + 1))
    assert torch.equal(own[0].depth, other[0].depth)  # the first depth is there before any features are enlarged
    assert not torch.allclose(own[-1].depth, other[-1].depth, atol=1e-3)


@pytest.mark.parametrize("change", ["depth", "valid", "guide"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "norm": "filter"}, {"filters": "channel"}, PLAIN], ids=str)
@torch.no_grad()
def test_one_sample_changes_nothing_further_than_reach(options: dict[str, Any], change: str) -> None:
    """Along both axes, in a map with holes; the context is kept, as it is where a map is cut into tiles."""
    factor, (y, x) = 4, (30, 27)
    model = network(factor, channels=4, guide_channels=4, **options)
    depth, guide, valid = maps(factor, (60, 60), batch=1, valid=0.9)
    valid[..., y, x] = True
    known = valid.float()
    scaled = (depth - 1) * known
    context = model.context(scaled, known)
    before = [*model.scaled_levels(scaled, known, guide, context, factor)][-1]
    if change == "depth":
        scaled[..., y, x] += 0.5
    elif change == "valid":
        scaled[..., y, x] = known[..., y, x] = 0
    else:
        guide[..., y * factor : (y + 1) * factor, x * factor : (x + 1) * factor] += 3
    after = [*model.scaled_levels(scaled, known, guide, context, factor)][-1]
    rows, columns = ((before.depth != after.depth) | (before.valid != after.valid))[0, 0].nonzero(as_tuple=True)
    for changed, at in ((rows, y), (columns, x)):
        assert 2 <= (changed // factor - at).abs().max() <= model.receptive_radius


# --- mixed precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, PAPER, PLAIN, {"norm": "filter"}], ids=str)
def test_autocast_rounds_no_depth(options: dict[str, Any]) -> None:
    """bfloat16 would leave eight bits of each."""
    model, (depth, guide, valid) = network(8, sharp=1.0, **options), maps(8, valid=0.8)
    known = valid.float()
    scaled = (depth - 1) * known
    with torch.autocast("cpu", torch.bfloat16):
        levels = [*model.scaled_levels(scaled, known, guide, model.context(scaled, known), 8)]
    for level in levels:
        assert level.depth.dtype == torch.float32
        kept = level.depth[level.valid]
        assert (kept != kept.bfloat16()).float().mean() > 0.9
    sum(level.depth.sum() for level in levels).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_autocast_keeps_a_constant() -> None:
    depth, guide, valid = maps(8, valid=0.8)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(8)(torch.full_like(depth, 1.2345678), guide, valid)
    assert (out.depth[out.valid] == torch.tensor(1.2345678)).all()


def test_sharper_filters_are_the_power_of_the_filters() -> None:
    model, (depth, guide, valid) = network(2), maps(2, valid=0.7)  # one stage: the next one has other inputs
    stage, sharp = model.stages[0], model.sharpened(3).stages[0]
    trunk, mask = torch.rand(2, 8, *depth.shape[2:]), valid.float()
    with torch.no_grad():
        taps, found = (own._taps(trunk, mask).unflatten(1, (4, 9)) for own in (stage, sharp))
    power = taps.double() ** 3
    expected = torch.where(power > 0, power / power.sum(2, keepdim=True), 0)
    some = power.sum(2, keepdim=True) > 0  # a window without a valid sample has 0 everywhere, or a ninth
    torch.testing.assert_close(torch.where(some, found.double(), 0), expected, rtol=1e-5, atol=1e-5)
    before = model(depth, guide, valid).depth
    assert model.sharpened(1)(depth, guide, valid).depth.equal(before), "1 is the network as it was trained"
    assert model(depth, guide, valid).depth.equal(before), "the network itself stays"
    assert not model.sharpened(3)(depth, guide, valid).depth.equal(before)


@pytest.mark.parametrize(("options", "named"), [(PAPER, "carry=False"), (PLAIN, "upsampler='bilinear'")])
def test_only_filters_that_carry_the_depth_can_be_sharper(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="sharpness needs a network whose filters carry the depth.*" + named):
        network(4, **options).sharpened(2)
