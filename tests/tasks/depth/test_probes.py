"""Probes: they take away one input, and nothing else."""

from __future__ import annotations

import torch

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.tasks.depth import baselines, probes

LOW = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) + 1
VALID = torch.ones(6, 8, dtype=torch.bool)
GUIDE = torch.randint(256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def network() -> GuidedUpsampler:
    torch.manual_seed(0)
    return GuidedUpsampler(8, channels=8, guide_channels=8).eval()


def test_a_moved_guide_is_the_same_image_elsewhere() -> None:
    own, place = network(), {"factor": 8, "offset": 3.0}
    moved = probes.with_moved_guide(own)(LOW, VALID, GUIDE, **place)
    rolled = baselines.ddfnet(own)(LOW, VALID, GUIDE.roll((24, 32), (1, 2)), **place)
    torch.testing.assert_close(moved, rolled, rtol=0, atol=0)
    assert not torch.equal(moved, baselines.ddfnet(own)(LOW, VALID, GUIDE, **place))


def test_without_features_no_stage_hears_of_the_one_before() -> None:
    own, place = network(), {"factor": 8, "offset": 3.0}
    before = probes.without_features(own)(LOW, VALID, GUIDE, **place)
    for stage in own.stages[1:]:
        torch.nn.init.normal_(stage.mix[0].weight)
    after = probes.without_features(own)(LOW, VALID, GUIDE, **place)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert not torch.equal(after, baselines.ddfnet(own)(LOW, VALID, GUIDE, **place)), "the network itself is whole"
