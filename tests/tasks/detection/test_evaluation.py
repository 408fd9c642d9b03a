"""Scores of a detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torchvision")
pytest.importorskip("timm")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("defusedxml")

import torch
from torch import Tensor

from ddfnet.errors import DataError
from ddfnet.models.faster_rcnn import Detector
from ddfnet.tasks.detection import evaluation
from ddfnet.tasks.detection.data import DetectionData
from tests.detection_folders import CLASSES, truncate, voc


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return voc(tmp_path / "squares", {"test": 3})


def data(root: Path, **options: Any) -> DetectionData:
    return DetectionData(str(root), CLASSES, None, "test", batch_size=1, workers=0, **options)


class Knowing(Detector):
    """Finds each red square by its colour, and no blue one."""

    def forward(self, images: list[Tensor], targets: object = None) -> list[dict[str, Tensor]]:  # type: ignore[override]
        [image] = images
        found = (image[0] > 0.6) & (image[2] < 0.4)
        rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return [
            {
                "boxes": torch.stack(corners).float()[None],
                "labels": torch.tensor([1]),
                "scores": torch.tensor([0.9]),
            }
        ]


def detector(upsampler: str = "ddf") -> Detector:
    return Knowing(
        CLASSES, "mobilenetv3_small_050", upsampler, width=16, head_width=32, min_size=64, max_size=64
    ).eval()


def test_scores(root: Path) -> None:
    found = detector()
    row = evaluation.score("mine", found, data(root))
    assert row.classes["red"] > 0.8 and row.classes["blue"] == 0
    assert row.precision["AP"] == pytest.approx((row.classes["red"] + row.classes["blue"]) / 2, abs=1e-6)
    assert row.precision["AP50"] == pytest.approx(0.5) and set(row.precision) == {"AP", "AP50", "AP75", "AP_S"}
    assert (row.name, row.upsampler, row.images, row.skipped) == ("mine", "ddf", 3, 0)
    assert row.parameters == sum(p.numel() for p in found.parameters())
    assert row.upsampler_parameters == sum(p.numel() for p in found.backbone.fpn.upsamplers.parameters())
    assert row.upsampler_macs == evaluation.upsampler_macs("ddf", 16, 64, 64)
    assert row.seconds > 0


def test_the_table_has_a_line_per_row_and_a_dash_for_missing_sizes(root: Path) -> None:
    row = evaluation.score("mine", detector(), data(root))
    table = evaluation.as_table([row])
    head, _, line = table.text.splitlines()
    assert head.split()[:4] == ["detector", "upsampler", "AP", "AP50"] and "red" in head and "blue" in head
    assert line.split()[:2] == ["mine", "ddf"] and line.split()[3] == "50.0" and line.split()[6] == "-"
    assert table.as_dict()["rows"][0]["name"] == "mine"
    many = replace(row, classes={f"class {number}": 0.5 for number in range(9)})
    assert "class" not in evaluation.as_table([many]).text, "80 columns are too many to read"


def test_images_that_cannot_be_read(root: Path) -> None:
    truncate(root / "JPEGImages" / "test1.jpg")
    row = evaluation.score("mine", detector(), data(root, on_bad_image="skip"))
    assert (row.images, row.skipped) == (2, 1)
    with pytest.raises(DataError, match="test1.jpg is a broken image"):
        evaluation.score("mine", detector(), data(root))
    for number in (0, 2):
        truncate(root / "JPEGImages" / f"test{number}.jpg")
    with pytest.raises(DataError, match="squares: none of its images can be read"):
        evaluation.score("mine", detector(), data(root, on_bad_image="skip"))


def test_classes_must_agree(root: Path) -> None:
    other = DetectionData(str(root), ("blue", "red"), None, "test", batch_size=1, workers=0)
    with pytest.raises(ValueError, match="classes of the detector are required"):
        evaluation.score("mine", detector(), other)


def test_the_size_inside_the_network() -> None:
    assert evaluation.network_size(detector(), 48, 64) == (64, 64)
    wide = Detector(CLASSES, "mobilenetv3_small_050", width=16, min_size=192, max_size=320)
    assert evaluation.network_size(wide, 480, 640) == (192, 256)
    assert evaluation.network_size(wide, 100, 400) == (96, 320)
