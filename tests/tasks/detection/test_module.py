"""Detection task: its loss, its batches, its learning, and COCO's own scores."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torchvision")
pytest.importorskip("timm")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("defusedxml")

import lightning
import torch
from torch import Tensor

from ddfnet.errors import DataError
from ddfnet.models.faster_rcnn import Detector
from ddfnet.tasks.detection.data import DetectionData, collate
from ddfnet.tasks.detection.module import METRICS, Detection, average_precision, precision_metric
from tests.detection_folders import CLASSES, truncate, voc

Found = list[dict[str, Tensor]]


def detector(**options: Any) -> Detector:
    torch.manual_seed(0)
    small = {
        "backbone": "resnet10t",
        "backbone_options": {"channels": [8, 16, 16, 16]},
        "width": 16,
        "head_width": 32,
        "min_size": 48,
        "max_size": 64,
        "anchor_scale": 4.0,
        "rcnn": {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50},
    }
    return Detector(CLASSES, **{**small, **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return voc(tmp_path / "squares", {"train": 4, "val": 3})


def data(root: Path, **options: Any) -> DetectionData:
    return DetectionData(str(root), CLASSES, **{"batch_size": 2, "workers": 0, **options})


def trainer(steps: int, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **options,
    )


def test_it_learns(root: Path) -> None:
    losses = []

    class Losses(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
            losses.append(outputs["loss"].item())

    task = Detection(detector(), "adamw", learning_rate=5e-3, warmup_steps=2)
    trainer(14, callbacks=[Losses()]).fit(task, data(root))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_the_loss_is_the_sum_of_four_and_repeats(root: Path) -> None:
    batch = collate([items(root)[0], items(root)[1]])
    task = Detection(detector())
    logged: dict[str, Any] = {}
    task.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    task.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    task.optimizers = lambda: SimpleNamespace(param_groups=[{"lr": 0.1}])  # type: ignore[method-assign]
    first = task.training_step(batch, 3)
    torch.testing.assert_close(first, sum(value for name, value in logged.items() if name.startswith("loss_")))
    task.network.load_state_dict(detector().state_dict())  # the batch norms have counted
    torch.rand(7)
    assert torch.equal(task.training_step(batch, 3), first), "the boxes that it is of are drawn by seed and step"


def items(root: Path) -> Any:
    from ddfnet.data.detection import layouts
    from ddfnet.data.detection.dataset import DetectionDataset

    return DetectionDataset(layouts.load(root, "train", CLASSES))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_steps": 4, "milestones": [6, 8]}, [0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({"warmup_steps": 0}, [0.5 + 0.5 * torch.tensor(step / 10 * torch.pi).cos().item() for step in range(10)]),
    ],
)
def test_the_learning_rate(options: dict[str, Any], expected: list[float]) -> None:
    task = Detection(detector(), learning_rate=2.0, **options)
    task._trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    made = task.configure_optimizers()
    rates = []
    for _ in range(10):
        rates.append(made["optimizer"].param_groups[0]["lr"] / 2)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx(expected)


def test_what_is_frozen_is_not_trained() -> None:
    task = Detection(detector(frozen_stages=1))
    task._trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    [group] = task.configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == sum(parameter.requires_grad for parameter in task.parameters())
    assert all(parameter.requires_grad for parameter in group["params"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be finite and not negative, got -1.0"),
        ({"momentum": 1.0}, "momentum must be from 0 to below 1, got 1.0"),
        ({"milestones": [8, 6]}, r"milestones must be steps from 1 on, each later than the one before, got \[8, 6\]"),
    ],
)
def test_a_wrong_option_of_the_task(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detection(detector(), **options)


# --- the data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"vertical_flip": 2.0}, "vertical_flip must be from 0 to 1, got 2.0"),
        ({"train_part": "test"}, "no such part; the folder has train, val"),
        ({"on_bad_box": "perhaps"}, "on_bad_box must be 'stop' or 'skip', got 'perhaps'"),
        ({"classes": ["red"]}, "the class 'blue' is none of red"),
    ],
)
def test_a_wrong_option_of_the_data(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionData(**{"root": str(root), "classes": CLASSES, **options})


def test_ranks_share_the_images(root: Path) -> None:
    seen = []
    for rank in range(2):
        part = data(root)
        part.trainer = SimpleNamespace(global_rank=rank, world_size=2, accumulate_grad_batches=1)  # type: ignore[assignment]
        seen += [target["boxes"][0, 0].item() for _, targets in part.val_dataloader() for target in targets]
    whole = [target["boxes"][0, 0].item() for _, targets in data(root).val_dataloader() for target in targets]
    assert sorted(seen) == sorted(whole) and len(whole) == 3


def test_skipped_images_leave_the_batch(root: Path) -> None:
    for name in ("val0", "val1"):  # all of the first batch
        truncate(root / "JPEGImages" / f"{name}.jpg")
    loaded = list(data(root, on_bad_image="skip").val_dataloader())
    assert [len(images) for images, _ in loaded] == [0, 1]
    Detection(detector()).validation_step(loaded[0], 0)
    with pytest.raises(DataError, match="val0.jpg is a broken image"):
        list(data(root).val_dataloader())


# --- the figures --------------------------------------------------------------------------------------------------


def coco_eval(targets: Found, found: Found) -> list[float]:
    """Return AP, AP50, AP75, S, M, L, by faster-coco-eval's own reading of COCO's files."""
    from faster_coco_eval import COCO, COCOeval_faster

    def box(corners: Tensor) -> list[float]:
        x0, y0, x1, y1 = corners.tolist()
        return [x0, y0, x1 - x0, y1 - y0]

    annotations = [
        {
            "image_id": image,
            "category_id": int(target["labels"][i]),
            "bbox": box(target["boxes"][i]),
            "area": float(target["area"][i]),
            "iscrowd": int(target["iscrowd"][i]),
        }
        for image, target in enumerate(targets)
        for i in range(len(target["labels"]))
    ]
    truth = COCO(
        {
            "images": [{"id": image, "height": 400, "width": 400} for image in range(len(targets))],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [{"id": number + 1, **each} for number, each in enumerate(annotations)],
        }
    )
    results = truth.loadRes(
        [
            {
                "image_id": image,
                "category_id": int(each["labels"][i]),
                "bbox": box(each["boxes"][i]),
                "score": float(each["scores"][i]),
            }
            for image, each in enumerate(found)
            for i in range(len(each["labels"]))
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval_faster(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def scene(generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Make objects of all sizes, some of them crowds, and the detections of a poor detector."""
    sides = 10 + 140 * torch.rand(12, 1, generator=generator)
    corners = 250 * torch.rand(12, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], 1)
    target = {
        "boxes": boxes,
        "labels": torch.randint(1, 3, (12,), generator=generator),
        "iscrowd": (torch.rand(12, generator=generator) < 0.15).long(),
        "area": sides[:, 0] ** 2 * 0.8,  # a mask's
    }
    found = {
        "boxes": boxes + 0.08 * sides * torch.randn(12, 4, generator=generator),
        "labels": target["labels"].where(torch.rand(12, generator=generator) < 0.8, 1),
        "scores": torch.rand(12, generator=generator),
    }
    return target, found


def test_the_figures_are_coco_s() -> None:
    generator = torch.Generator().manual_seed(0)
    targets, found = map(list, zip(*(scene(generator) for _ in range(6)), strict=True))
    metric = precision_metric()
    for target, each in zip(targets, found, strict=True):
        metric.update([each], [target])
    values = average_precision(metric)
    assert list(values) == list(METRICS)
    assert list(values.values()) == pytest.approx(coco_eval(targets, found), abs=1e-4)
    assert 0.1 < values["AP"] < 0.9


def test_sizes_that_no_object_has_are_left_out() -> None:
    metric = precision_metric()
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([1])}
    metric.update([{**target, "scores": torch.tensor([0.9])}], [target])
    assert average_precision(metric) == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "AP_S": 1.0}


def test_nothing_found_is_zero() -> None:
    metric = precision_metric()
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    metric.update([nothing], [target])
    assert average_precision(metric)["AP"] == 0
