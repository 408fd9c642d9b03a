"""Filters that DDF layers predict, recorded and shown as colours."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("timm")

import timm
import torch

import ddfnet.models  # noqa: F401  (registers the network with timm)
from ddfnet.demo import filters


def test_recorded_filters_are_those_of_the_layer() -> None:
    network = timm.create_model("small_resnet23", in_chans=1, stem_stride=1, layers=(1, 1, 1)).eval()
    image = torch.randn(1, 12, 16)
    recorded = filters.record(network, image)
    assert [own.spatial.shape[1:] for own in recorded] == [(12, 16), (6, 8), (3, 4)]
    block = network.layer1[0]
    stem = network.act1(network.bn1(network.conv1(image[None])))
    x = block.act1(block.bn1(block.conv1(stem)))
    torch.testing.assert_close(recorded[0].spatial, block.conv2.spatial(x)[0])
    torch.testing.assert_close(recorded[0].channel, block.conv2.channel(x)[0])
    assert recorded[0].channel.shape == (16, 3, 3)
    assert not block.conv2.spatial._forward_hooks, "hooks are taken away again"


def test_components_find_the_directions_that_differ() -> None:
    directions = torch.linalg.qr(torch.randn(9, 9)).Q.T[:3]
    mean = torch.randn(9)
    values = torch.randn(3, 20, 30) * torch.tensor([9.0, 4.0, 1.0])[:, None, None]
    spatial = mean[:, None, None] + torch.einsum("dk,dhw->khw", directions, values)
    components = filters.Components.fit([spatial])
    assert components.share == pytest.approx(1, abs=1e-4)
    overlap = components.directions @ directions.T
    assert (overlap.diagonal().abs() > 0.95).all()
    colours = components.colours(spatial)
    assert colours.shape == (20, 30, 3)
    assert colours.min() == 0 and colours.max() == 1
    distances = (spatial - components.mean[:, None, None]).norm(dim=0) / components.mean.norm()
    torch.testing.assert_close(components.departure(spatial), distances)


def test_typical_points_stand_for_each_group() -> None:
    spatial = torch.zeros(9, 64, 64)
    spatial[0, :32, :32] = spatial[1, :32, 32:] = spatial[2, 32:, :32] = spatial[3, 32:, 32:] = 1
    points = filters.typical_points(spatial, 4)
    assert {(y < 32, x < 32) for y, x in points} == {(a, b) for a in (True, False) for b in (True, False)}
    assert all(4 <= value < 60 for point in points for value in point), "away from the edge"
