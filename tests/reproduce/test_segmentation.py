"""Study of segmentation: its scores on maps that are known, its windows, and a decoder for each upsampler."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("timm")
pytest.importorskip("torchmetrics")

from reproduce.segmentation import collect, networks, train
from reproduce.segmentation.metrics import TOLERANCE, Scores


def halves(edge: int) -> torch.Tensor:
    """Return labels 1 left of a column and 2 from it on."""
    labels = torch.ones(1, 40, 60, dtype=torch.long)
    labels[:, :, edge:] = 2
    return labels


def test_a_perfect_prediction_has_all_of_both_scores() -> None:
    scores = Scores(3)
    scores.add(halves(30), halves(30))
    assert scores.result() == pytest.approx(dict.fromkeys(("miou", "boundary", "boundary_fine", "accuracy"), 100))


def test_a_boundary_counts_within_the_tolerance_alone() -> None:
    for moved, expected in ((TOLERANCE, 100), (TOLERANCE + 1, 0)):
        scores = Scores(3)
        scores.add(halves(30 + moved), halves(30))
        result = scores.result()
        assert result["boundary"] == pytest.approx(expected) and result["boundary_fine"] == 0
        left, right = 30 / (30 + moved), (30 - moved) / 30
        assert result["miou"] == pytest.approx(50 * (left + right))


def test_what_is_not_labelled_does_not_count() -> None:
    truth = halves(30)
    truth[:, :, :10] = 0
    found = halves(30)
    found[:, :, :10] = 3
    scores = Scores(3)
    scores.add(found, truth)
    assert scores.result()["accuracy"] == 100 and scores.result()["miou"] == 100


def test_a_band_that_is_not_labelled_is_closed_for_boundaries() -> None:
    truth = halves(30)
    truth[:, :, 28:32] = 0
    for moved, expected in ((TOLERANCE, 100), (TOLERANCE + 1, 0)):
        scores = Scores(3)
        scores.add(halves(30 + moved), truth)
        assert scores.result()["boundary"] == pytest.approx(expected)


def test_labels_of_the_archive() -> None:
    assert train.classes(np.array([[0, 1, 38, 39]], np.uint8)).tolist() == [[1, 2, 39, 0]]


def test_tables_of_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "HERE", tmp_path)
    (tmp_path / "runs").mkdir()
    for encoder, plus in (("frozen", 0), ("trained", 5)):
        for number, (name, seed, miou) in enumerate(
            (("bilinear", 0, 20.0), ("bilinear", 1, 21.0), ("guided", 0, 22.0), ("guided", 1, 24.0))
        ):
            facts = {"upsampler": name, "seed": seed, "encoder": encoder, "steps": 9, "parameters": 50000}
            facts |= {
                "seconds": 3,
                "loss": [0.1],
                "validate": False,
                "machine": {},
                **dict.fromkeys(collect.SCORES, miou + plus),
            }
            (tmp_path / "runs" / f"{encoder}-{number}.json").write_text(json.dumps(facts))
    collect.main(str(tmp_path / "runs"))
    frozen, trained = (tmp_path / "table.md").read_text().split(collect.ENCODERS["trained"])
    assert "| bilinear | 50 k | 2 | 20.50 ± 0.71 |" in frozen and "| 2 | 28.00 ± 1.41 |" in trained
    assert frozen.count("+2.50 ± 0.50") == trained.count("+2.50 ± 0.50") == 3


def test_a_class_that_is_not_found_has_no_boundary() -> None:
    scores = Scores(3)
    scores.add(torch.ones(1, 40, 60, dtype=torch.long), halves(30))
    assert scores.result()["boundary"] == 0


def test_the_border_of_what_is_not_labelled_is_no_boundary() -> None:
    truth = halves(30)
    truth[:, 10:30, 40:60] = 0  # wider than what is closed
    scores = Scores(3)
    scores.add(halves(10), truth)
    assert scores.result()["boundary"] == 0
    nothing = Scores(3)
    nothing.add(halves(30), truth * 0)
    nothing.add(halves(30), halves(30))
    assert nothing.result()["boundary"] == 100


def test_windows_of_maps_and_images_are_of_one_place() -> None:
    height, width = train.SIZE
    columns = torch.arange(width, dtype=torch.uint8).expand(3, height, width)
    scene = train.Scene(columns, columns[0])
    for mirrored in (False, True):
        image = columns.flip(2) if mirrored else columns
        scene.maps.append([image[:, ::stride, ::stride].half() for stride in (4, 8, 16, 32)])
    for flip in (0, 1):
        maps, images, labels = train.collate([(scene, flip, 2)], train.WINDOW)
        assert labels.shape[2] == train.WINDOW
        torch.testing.assert_close(images[0, 0] * 128 + 127, labels[0].float())
        for each, stride in zip(maps, (4, 8, 16, 32), strict=True):
            torch.testing.assert_close(each[0, 0], labels[0, ::stride, ::stride].float())


def test_the_encoder_learns_too_and_keeps_its_statistics() -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 4, 1), torch.nn.BatchNorm2d(4))
    before = copy.deepcopy(body.state_dict())

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Conv2d(4, networks.CLASSES, 1)

        def forward(self, maps: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(self.logits(maps), image.shape[2:])

    image = torch.randint(256, (3, *train.SIZE), dtype=torch.uint8)
    scene = train.Scene(image, torch.ones(train.SIZE, dtype=torch.uint8))
    scene.maps = [[torch.zeros(4, 8, 10).half()]] * 2
    scenes = [scene] * train.BATCH
    facts = train.run_through(body, Decoder(), "bilinear", 0, 2, (scenes, scenes[:1]))  # type: ignore[arg-type]
    assert facts["steps"] == 2 and len(facts["loss"]) == 1 and facts["accuracy"] >= 0
    for name, value in before.items():
        assert torch.equal(body.state_dict()[name], value)  # a copy was trained


@pytest.mark.parametrize("name", networks.UPSAMPLERS)
def test_each_decoder_enlarges_to_the_image_and_trains(name: str) -> None:
    decoder = networks.Decoder(name, (4, 6, 8, 8))
    maps = [torch.randn(1, c, -(-72 // s), 64 // s) for c, s in ((4, 4), (6, 8), (8, 16), (8, 32))]
    logits = decoder(maps, torch.randn(1, 3, 72, 64))
    assert logits.shape == (1, networks.CLASSES, 72, 64)
    logits.logsumexp(1).mean().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("name", ["ddf", "guided"])
def test_it_begins_near_bilinear_interpolation(name: str) -> None:
    torch.manual_seed(0)
    x, guide = torch.rand(1, 8, 6, 5), torch.rand(1, networks.GUIDE, 12, 10)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(networks.UPSAMPLERS[name](8)(x, guide), expected, rtol=0, atol=0.05)
