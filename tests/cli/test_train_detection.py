"""`ddfnet train detection`: a run from end to end, an interrupted and resumed one, and broken data."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")
pytest.importorskip("tensorboard")
pytest.importorskip("safetensors")
pytest.importorskip("cv2")
pytest.importorskip("skimage")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("defusedxml")

import torch
from safetensors.torch import load_file

from ddfnet.cli.main import main
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import load
from ddfnet.tasks.detection import evaluation
from tests import killing
from tests.detection_folders import coco, truncate, voc, voc_xml
from tests.torchrun import torchrun
from tests.training_runs import command, losses, same, threads  # noqa: F401  (threads is a fixture)

Fails = Callable[..., str]

SMALL = {
    "model.network.classes": "[red,blue]",
    "model.network.backbone": "resnet10t",
    "model.network.backbone_options": '{"channels":[8,8,8,8]}',
    "model.network.width": 8,
    "model.network.head_width": 16,
    "model.network.min_size": 48,
    "model.network.max_size": 64,
    "model.warmup_steps": 1,
    "data.batch_size": 2,
    "data.workers": 0,
    "data.vertical_flip": 0.5,
    "trainer.max_steps": 4,
    "trainer.val_check_interval": 2,
    "trainer.log_every_n_steps": 1,
    "checkpoint.every_n_train_steps": 2,
    "threads": 1,
}


def arguments(output: Path, root: Path, **others: Any) -> list[str]:
    return command("detection", SMALL | {"output": output, "data.root": root}, **others)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc(tmp_path_factory.mktemp("data") / "squares", {"train": 5, "val": 2})


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Copy the data for a test that breaks it."""
    return voc(tmp_path / "squares", {"train": 3, "val": 2})


@pytest.fixture(scope="module")
def unbroken(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    output = tmp_path_factory.mktemp("runs") / "small"
    status = main(arguments(output, root))
    return SimpleNamespace(status=status, output=output)


def test_it_leaves_a_detector_and_its_card(unbroken: SimpleNamespace) -> None:
    assert unbroken.status == 0
    names = {path.name for path in unbroken.output.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {"checkpoints", "config.yaml", "csv", "hparams.yaml", "model.json", "model.safetensors"}
    detector = load(unbroken.output / "model.safetensors", Detector)
    assert detector.classes == ("red", "blue") and detector.init_args["width"] == 8
    averaged = load(unbroken.output / "checkpoints" / "last.ckpt", Detector).state_dict()
    assert all(torch.equal(averaged[name], value) for name, value in detector.state_dict().items())
    card = json.loads((unbroken.output / "model.json").read_text())
    assert card["network"] == detector.init_args and card["steps"] == 4 and "commit" in card["machine"]
    assert card["data"]["origin"].startswith("The part 'train' of squares")
    assert (card["data"]["images"], card["data"]["boxes_left_out"]) == (5, 0)
    assert {"AP", "AP50", "AP75", "AP_S"} <= card["metrics"].keys()
    assert card["config"]["model"]["network"]["init_args"]["upsampler"] == "ddf", "what was left to its default"


def test_the_logs_have_all_losses_and_figures(unbroken: SimpleNamespace) -> None:
    [file] = (unbroken.output / "csv").glob("*/metrics.csv")
    rows = list(csv.DictReader(file.open()))
    for name in ("loss", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "learning_rate"):
        assert sum(bool(row[name]) for row in rows) == 4
    assert sum(bool(row["AP"]) for row in rows) == 3, "two in training and the last"


def test_broken_off_and_resumed_it_ends_with_the_same_weights(
    unbroken: SimpleNamespace, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddfnet.tasks.detection.module import Detection

    step = Detection.training_step

    def broken(self: Detection, batch: Any, index: int) -> Any:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Detection, "training_step", broken)
        assert main(arguments(output, root)) == 130
    torch.rand(11)
    assert main(["train", "detection", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in (output, unbroken.output))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("moment", "number"), [(killing.at_step, 3), (killing.at_save, 3)])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    unbroken: SimpleNamespace, root: Path, tmp_path: Path, moment: killing.Moment, number: int
) -> None:
    output = tmp_path / "run"
    assert killing.run(arguments(output, root), moment, number) == -signal.SIGKILL
    assert torch.load(output / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert main(["train", "detection", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken.output / "model.safetensors")


def test_a_loss_that_is_not_a_number_stops_and_names_the_step(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    from ddfnet.models.faster_rcnn import Detector

    forward = Detector.forward

    def broken(self: Detector, images: Any, targets: Any = None) -> Any:
        losses = forward(self, images, targets)
        if self.training:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 4:
                losses["loss_box_reg"] = losses["loss_box_reg"] * torch.nan
        return losses

    monkeypatch.setattr(Detector, "forward", broken)
    output = tmp_path / "run"
    last = output / "checkpoints" / "last.ckpt"
    assert fails(1, *arguments(output, root)).startswith(
        f"ddfnet: error: the loss of step 3 is nan; the last good checkpoint is {last}"
    )
    assert torch.load(last)["global_step"] == 2


def test_coco_s_format_and_the_package_s_preset(tmp_path: Path, fails: Fails) -> None:
    """Build data and network of the paper's recipe with a small backbone; nothing is trained."""
    folder = coco(tmp_path / "coco", {"train2017": 1, "val2017": 1})
    options = [f"--data.root={folder}", f"--output={tmp_path / 'run'}", "--model.network.pretrained=false"]
    options += ["--trainer.devices=1", "--model.network.backbone=mobilenetv3_small_050", "--trainer.max_steps=0"]
    line = fails(1, "train", "detection", "--config", "detection-coco-1x", *options)
    assert line == (
        f"ddfnet: error: {folder / 'annotations' / 'instances_train2017.json'}: annotation 0: the class 'red' is none "
        "of person, bicycle, car, motorcycle and 76 more; mend it, or name it among the classes"
    )
    line = fails(1, "train", "detection", "--config=detection-coco-1x", *options, "--model.network.classes=[red,blue]")
    assert line == "ddfnet: error: trainer.max_steps must be at least 1, got 0"


EVERY_BOX = {  # counts in the losses, and as many in each image: nothing is drawn, and means of means are means
    "rpn_fg_iou_thresh": 0.5,
    "rpn_bg_iou_thresh": 0.5,
    "rpn_batch_size_per_image": 4096,
    "rpn_nms_thresh": 1.0,
    "rpn_post_nms_top_n_train": 8,
    "box_score_thresh": 0.0,
}


@pytest.mark.parametrize("start", ["torchrun", "lightning"])
def test_two_processes_share_a_batch_and_measure_all_images(tmp_path: Path, start: str) -> None:
    """Compare losses with those of one process, and scores with those of the saved detector, for three images."""
    squares = voc(tmp_path / "squares", {"train": 4, "val": 3})
    options: dict[str, Any] = {"model__network__rcnn": '{"box_score_thresh":0.0}', "trainer__accelerator": "cpu"}
    if start == "torchrun":  # its processes count, not the one device of the default configuration
        options |= {"trainer__max_steps": 10, "trainer__val_check_interval": 10, "model__network__norm": "frozen"}
        options |= {"model__network__rcnn": json.dumps(EVERY_BOX).replace(" ", "")}
        torchrun(arguments(tmp_path / "run", squares, **options))
        assert main(arguments(tmp_path / "one", squares, **options)) == 0
        one, two = (losses(tmp_path / name) for name in ("one", "run"))
        assert len(one) == 10 and two == pytest.approx(one, abs=1e-4) and max(one) - min(one) > 0.1
    else:
        options |= {"trainer__devices": 2, "trainer__strategy": "ddp", "trainer__max_steps": 2}
        command = [sys.executable, "-m", "ddfnet", *arguments(tmp_path / "run", squares, **options)]
        subprocess.run(command, check=True, capture_output=True)
    [log] = (tmp_path / "run" / "csv").iterdir()  # one run, not two
    assert log.name == "version_0"
    metrics = json.loads((tmp_path / "run" / "model.json").read_text())["metrics"]
    [row] = evaluation.evaluate([tmp_path / "run" / "model.safetensors"], str(squares), "val").rows
    assert metrics["AP50"] > 0 and metrics == pytest.approx(row.precision, rel=0.02, abs=2e-5)


# --- broken data --------------------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path: Path, fails: Fails) -> None:
    assert (
        fails(1, *arguments(tmp_path / "run", tmp_path / "no")) == f"ddfnet: error: {tmp_path / 'no'}: no such folder"
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_class(own: Path, tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *arguments(tmp_path / "run", own, model__network__classes="[red,green]"))
    assert "the class 'blue' is none of red, green" in line


def test_a_bad_box(own: Path, tmp_path: Path, fails: Fails) -> None:
    file = own / "Annotations" / "train1.xml"
    file.write_text(voc_xml("train1", [("red", (8, 9, 8, 9))]))
    assert fails(1, *arguments(tmp_path / "run", own)) == (
        f"ddfnet: error: {file}: a box of red in train1.jpg (64x48) has no area: 8, 9, 8, 9; "
        "mend it, or let on_bad_box be skip"
    )


def test_a_truncated_image(own: Path, tmp_path: Path, fails: Fails) -> None:
    file = truncate(own / "JPEGImages" / "train1.jpg")
    line = fails(1, *arguments(tmp_path / "run", own))
    assert line.startswith(f"ddfnet: error: {file} is a broken image: ")


def test_a_truncated_image_is_skipped(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truncate(own / "JPEGImages" / "train1.jpg")
    assert main(arguments(tmp_path / "run", own, data__on_bad_image="skip", trainer__max_steps=2)) == 0
    assert any("train1.jpg is a broken image" in line for line in caplog.messages)


def test_a_checkpoint_of_another_detector(unbroken: SimpleNamespace, root: Path, tmp_path: Path, fails: Fails) -> None:
    file = unbroken.output / "checkpoints" / "last.ckpt"
    line = fails(1, *arguments(tmp_path / "run", root, ckpt_path=file, model__network__upsampler="carafe"))
    assert line.startswith(f"ddfnet: error: {file} is a checkpoint of another model")


def test_a_batch_that_cannot_be_shared(root: Path, tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *arguments(tmp_path / "run", root, trainer__accumulate_grad_batches=4))
    assert line == ("ddfnet: error: batch_size must be a multiple of 4, 1 processes times 4 accumulated batches, got 2")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer__strategy", "fsdp", "trainer.strategy must be ddp for detection, got fsdp: "),
        ("model__network__upsampler", "magic", "upsampler must be one of 'nearest', 'bilinear', 'deconv', "),
        ("model__network__backbone", "magic", "backbone must be the name of a network of timm"),
        ("model__momentum", 1.0, "momentum must be from 0 to below 1, got 1.0"),
    ],
)
def test_a_wrong_value(root: Path, tmp_path: Path, fails: Fails, key: str, value: Any, message: str) -> None:
    assert fails(1, *arguments(tmp_path / "run", root, **{key: value})).startswith(f"ddfnet: error: {message}")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("train", "detection", "--help")) == 0
    text = capsys.readouterr().out
    assert "--data.on_bad_image" in text and "--model.milestones" in text
