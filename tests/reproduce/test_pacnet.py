"""PAC-Net of table 7: it corrects bilinear interpolation, reads the image, and is trained and measured as any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")
pytest.importorskip("torchmetrics")
pytest.importorskip("safetensors")

from ddfnet.depth.alignment import aligned_bilinear
from ddfnet.errors import DataError
from ddfnet.pretrained import save
from ddfnet.tasks.depth.module import GuidedDepth
from reproduce.table7 import pacnet
from reproduce.table7.pacnet import PacNet


@pytest.mark.parametrize(("samples", "offset"), [("point", 1), ("bicubic", 1.5)])
def test_without_its_head_it_is_bilinear(samples: str, offset: float) -> None:
    network = PacNet(8)
    torch.nn.init.zeros_(network.head[-1].weight)
    torch.nn.init.zeros_(network.head[-1].bias)
    depth, guide = torch.rand(2, 1, 6, 7) + 1, torch.rand(2, 3, 24, 28)
    found = network.upsample(depth, guide, scale_factor=4, samples=samples)
    for own, low in zip(found.depth[:, 0], depth[:, 0], strict=True):
        torch.testing.assert_close(own, aligned_bilinear(low, (24, 28), ratio=4, offset=offset))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_each_factor_has_its_stages_and_the_image_counts(factor: int) -> None:
    network, depth = PacNet(8), torch.rand(1, 1, 5, 6)
    guide = torch.rand(1, 3, 5 * factor, 6 * factor)
    found = network.upsample(depth, guide, scale_factor=factor).depth
    assert found.shape == (1, 1, 5 * factor, 6 * factor)
    assert not torch.equal(found, network.upsample(depth, guide.flip(3), scale_factor=factor).depth)
    found.sum().backward()
    reached = sum(p.grad is not None and bool(p.grad.any()) for p in network.stages.parameters())
    assert reached == 3 * (factor.bit_length() - 1)


def test_it_is_trained_as_any_network_and_measured_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = PacNet(4)
    module = GuidedDepth(network, (4,), ("point", "bicubic"), stage_weight=0.0)
    batch = {
        "guide": torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8),
        "depth": torch.rand(1, 1, 32, 32) + 1,
        "valid": torch.ones(1, 1, 32, 32, dtype=torch.bool),
    }
    errors, depth, _ = module.levels({**batch, "measured": batch["depth"]}, 4, "bicubic")
    assert len(errors) == 1 and depth.shape == (1, 1, 32, 32)
    with pytest.raises(DataError, match="model.initial must be null for a PacNet, got 'auto'"):
        GuidedDepth(network, (4,), initial="auto")
    save(network, tmp_path / "model.safetensors")
    monkeypatch.setenv("PACNET", str(tmp_path / "model.safetensors"))
    pacnet.trained.cache_clear()
    low, guide = np.random.default_rng(0).random((8, 9), np.float32), np.zeros((32, 36, 3), np.uint8)
    result = pacnet.pacnet(low, guide, 4, 1, low > 0)
    assert result.shape == (32, 36) and np.isfinite(result).all()
