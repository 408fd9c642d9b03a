"""Feature pyramid beside torchvision's, and with each upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("timm")

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ddfnet.models.fpn import UpsamplingPyramid
from ddfnet.models.upsamplers import UPSAMPLERS
from tests.inductor import kernels_that_do_nothing


def maps(sizes: Sequence[tuple[int, int]] = ((25, 37), (13, 19), (7, 10))) -> dict[str, Tensor]:
    return {str(level): torch.randn(2, 4 << level, *size) for level, size in enumerate(sizes)}


@pytest.mark.parametrize("extra", [None, LastLevelMaxPool()])
def test_with_nearest_it_is_torchvisions(extra: Any) -> None:
    theirs, ours = FeaturePyramidNetwork([4, 8, 16], 6, extra), UpsamplingPyramid([4, 8, 16], 6, "nearest", extra)
    ours.load_state_dict(theirs.state_dict())
    x = maps()
    expected, result = theirs(x), ours(x)
    assert list(result) == list(expected)
    for name, level in expected.items():
        torch.testing.assert_close(result[name], level)


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_each_level_has_an_upsampler_of_its_own_that_is_used(upsampler: str) -> None:
    pyramid, x = UpsamplingPyramid([4, 8, 16], 8, upsampler), maps()
    levels = pyramid(x)
    assert [tuple(level.shape[2:]) for level in levels.values()] == [(25, 37), (13, 19), (7, 10)]
    levels["0"].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in pyramid.upsamplers.parameters())
    first = {id(parameter) for parameter in pyramid.upsamplers[0].parameters()}
    assert not first & {id(parameter) for parameter in pyramid.upsamplers[1].parameters()}
    x["2"] = torch.randn_like(x["2"])
    assert not torch.equal(pyramid(x)["0"], levels["0"]), "the coarsest map reaches the finest level"


@pytest.mark.parametrize("sizes", [((8, 8), (3, 4)), ((8, 8), (8, 8)), ((8, 8), (4, 5))])
def test_maps_that_do_not_halve(sizes: Sequence[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="each map must be half as large as the one before, rounded up, got 8x8 and"):
        UpsamplingPyramid([4, 8], 6, "ddf")(maps(sizes))


def test_compiled_training_serves_other_sizes() -> None:
    """With a check of sizes by `in` it raised at the third size, see findings/torch-compile-size-in-tuple.sh."""
    torch._dynamo.reset()
    first, second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
    pyramid = UpsamplingPyramid([4, 8], 16, "nearest")

    @torch.compile
    def levels(x: Tensor) -> list[Tensor]:
        fine = first(x)
        return list(pyramid({"fine": fine, "coarse": second(fine)}).values())

    with kernels_that_do_nothing():
        for size in (16, 24, 32):
            loss = torch.stack([level.square().mean() for level in levels(torch.randn(2, 3, size, size + 4))]).sum()
            torch.autograd.grad(loss, list(pyramid.parameters()))
    torch._dynamo.reset()
