"""`ddfnet train classification`: a run from end to end, killed and resumed, in two processes, and used wrongly."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")
pytest.importorskip("tensorboard")
pytest.importorskip("safetensors")
pytest.importorskip("timm")
pytest.importorskip("webdataset")

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ddfnet.cli.main import main
from ddfnet.models.classifier import create_classifier
from ddfnet.pretrained import header_of, save
from tests import killing
from tests.torchrun import torchrun
from tests.training_runs import command, logged, losses, same, threads  # noqa: F401  (threads is a fixture)

Fails = Callable[..., str]

SMALL = {
    "model.network": "small_resnet23",
    "model.network_options": "{layers: [1,1,1], channels: [8,8,8], drop_rate: 0.1, drop_path_rate: 0.1}",
    "model.num_classes": 2,
    "model.learning_rate": 0.05,
    "model.warmup_epochs": 0.5,
    "model.label_smoothing": 0.1,
    "data.size": 16,
    "data.batch_size": 8,
    "data.workers": 0,
    "data.auto_augment": "rand-m7-mstd0.5-inc1",
    "data.random_erase": 0.4,
    "data.mixup": 0.2,
    "ema.decay": 0.9,
    "checkpoint.every_n_train_steps": 2,
    "trainer.max_epochs": 3,
    "trainer.log_every_n_steps": 1,
    "threads": 1,
}


def write(folder: Path, count: int) -> None:
    """Make noise that is brighter in red (class a) or in blue (class b)."""
    rng = np.random.default_rng(count)
    for channel, name in ((0, "a"), (2, "b")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (18, 20, 3)).astype(np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=95)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 26 images for training, three steps per epoch, and 10 for validation."""
    folder = tmp_path_factory.mktemp("images")
    write(folder / "train", 13)
    write(folder / "val", 5)
    return folder


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    write(tmp_path / "images" / "train", 6)
    write(tmp_path / "images" / "val", 3)
    return tmp_path / "images"


def arguments(output: Path, path: Path, **others: Any) -> list[str]:
    return command("classification", SMALL | {"output": output, "data.path": path}, **others)


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(arguments(output, images)) == 0
    return output


def test_what_a_run_leaves(unbroken: Path, images: Path) -> None:
    names = {path.name for path in unbroken.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {"checkpoints", "config.yaml", "csv", "hparams.yaml", "model.json", "model.safetensors"}
    assert {path.name for path in (unbroken / "checkpoints").iterdir()} == {"step=8.ckpt", "last.ckpt"}
    card = json.loads((unbroken / "model.json").read_text())
    assert (card["steps"], card["epochs"], card["seed"]) == (9, 3, 0)
    assert card["network"]["name"] == "small_resnet23" and card["network"]["num_classes"] == 2
    assert card["data"] == {"path": str(images), "source": "folder"}
    assert 0 <= card["metrics"]["top1"] <= 1 and card["metrics"]["val_loss"] > 0
    assert card["config"]["model"]["momentum"] == 0.9, "what was left to its default"
    assert card["machine"]["torch"] == torch.__version__ and "commit" in card["machine"]
    assert len(losses(unbroken)) == len(logged(unbroken, "step_seconds")) == 9
    assert min(logged(unbroken, "step_seconds")) > 0


def test_what_it_leaves_is_measured_as_it_was(
    unbroken: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [unbroken / "model.safetensors", unbroken / "checkpoints" / "last.ckpt"]
    results = tmp_path / "results.json"
    options = ["--data", images, "--batch-size", 4, "--json", results]
    assert main(["evaluate", "classification", "--checkpoint", *map(str, files), *map(str, options)]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    first, second = json.loads(results.read_text())["rows"]
    metrics = json.loads((unbroken / "model.json").read_text())["metrics"]
    assert first["images"] == second["images"] == 10
    assert first["top1"] == pytest.approx(metrics["top1"], abs=1e-5)
    assert first["loss"] == pytest.approx(metrics["val_loss"], abs=1e-5)


def test_processes_that_read_change_nothing(unbroken: Path, images: Path, tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", images, data__workers=2)) == 0
    assert same(tmp_path / "run" / "model.safetensors", unbroken / "model.safetensors")


def test_accumulated_batches_have_the_same_images(images: Path, tmp_path: Path) -> None:
    plain = {
        "model__network_options": "{layers: [1,1,1], channels: [8,8,8], norm_layer: groupnorm1}",
        "data__mixup": 0,
        "data__random_erase": 0,
        "trainer__max_epochs": 2,
    }
    assert main(arguments(tmp_path / "whole", images, **plain)) == 0
    assert main(arguments(tmp_path / "parts", images, **plain, trainer__accumulate_grad_batches=2)) == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_another_seed_gives_other_weights(unbroken: Path, images: Path, tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", images, seed_everything=1)) == 0
    assert not same(tmp_path / "run" / "model.safetensors", unbroken / "model.safetensors")


# --- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number", "left"),
    [
        (killing.at_step, 3, 2),  # at the beginning of an epoch
        (killing.at_step, 5, 4),
        (killing.at_step, 6, 6),  # at the beginning of one, with the checkpoint of the end of the one before
        (killing.at_validation, 1, 6),
        (killing.at_save, 3, 2),
        (killing.at_save, 4, 2),
        (killing.at_save, 7, 6),
    ],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    unbroken: Path, images: Path, tmp_path: Path, moment: killing.Moment, number: int, left: int
) -> None:
    output = tmp_path / "run"
    assert killing.run(arguments(output, images), moment, number) == -signal.SIGKILL
    assert not (output / "model.safetensors").exists()
    last = output / "checkpoints" / "last.ckpt"
    assert torch.load(last)["global_step"] == left
    assert main(["train", "classification", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken / "model.safetensors")
    card, whole = (json.loads((each / "model.json").read_text()) for each in (output, unbroken))
    assert (card["steps"], card["epochs"], card["metrics"]) == (whole["steps"], whole["epochs"], whole["metrics"])


@pytest.mark.parametrize(
    "kills", [((killing.at_step, 4), (killing.at_save, 3)), ((killing.at_save, 5), (killing.at_step, 7))]
)
def test_killed_twice(
    unbroken: Path, images: Path, tmp_path: Path, kills: tuple[tuple[killing.Moment, int], ...]
) -> None:
    output = tmp_path / "run"
    words = arguments(output, images)
    for moment, number in kills:
        assert killing.run(words, moment, number) == -signal.SIGKILL
        words = ["train", "classification", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]
    assert main(words) == 0
    assert same(output / "model.safetensors", unbroken / "model.safetensors")


# --- in two processes -------------------------------------------------------------------------------------------------


def test_two_processes_give_the_losses_of_one(images: Path, tmp_path: Path) -> None:
    """Run the command under torchrun: its processes share each batch, and gloo sums their gradients."""
    options = {
        # Batch norms would see half the batch each, and what is drawn for a whole batch would be drawn twice.
        "model__network_options": "{layers: [1,1,1], channels: [8,8,8], norm_layer: groupnorm1}",
        "data__mixup": 0,
        "data__random_erase": 0,
        "trainer__max_epochs": 7,
        "trainer__max_steps": 20,
        "trainer__accelerator": "cpu",
    }
    assert main(arguments(tmp_path / "one", images, **options)) == 0
    torchrun(arguments(tmp_path / "two", images, **options))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 20
    assert two == pytest.approx(one, abs=1e-4)
    assert max(one) - min(one) > 0.1, "the losses say something"
    measured = [json.loads((tmp_path / name / "model.json").read_text())["metrics"] for name in ("one", "two")]
    assert measured[1] == pytest.approx(measured[0], abs=1e-3)


def test_shares_of_the_weights_change_nothing(images: Path, tmp_path: Path) -> None:
    """Compare losses, weights and checkpoints of FSDP and of one process; either resumes the other's.

    Two groups of weight decay, whose order is not the network's; clipping by the norm of all gradients; the average.
    """
    options = {
        "model__network_options": "{layers: [1,1,1], channels: [8,8,8], norm_layer: groupnorm1}",
        "model__decay_norm_and_bias": False,
        "model__weight_decay": 0.01,
        "data__mixup": 0,
        "data__random_erase": 0,
        "checkpoint__every_n_train_steps": 7,
        "trainer__gradient_clip_val": 0.3,
        "trainer__max_epochs": 4,
        "trainer__accelerator": "cpu",
    }
    shared = options | {"trainer__strategy": "fsdp"}
    one, two, one_goes_on, two_go_on = (tmp_path / name for name in ("one", "two", "one-goes-on", "two-go-on"))
    assert main(arguments(one, images, **options)) == 0
    torchrun(arguments(two, images, **shared))
    assert len(losses(one)) == 12 and losses(two) == pytest.approx(losses(one), abs=1e-4)
    last, sharded = (each / "checkpoints" / "last.ckpt" for each in (one, two))
    assert_alike(torch.load(sharded), torch.load(last))
    assert main(arguments(one_goes_on, images, **options, ckpt_path=sharded)) == 0
    torchrun(arguments(two_go_on, images, **shared, ckpt_path=last))
    weights = load_file(one / "model.safetensors")
    for output in (two, one_goes_on, two_go_on):
        assert_alike(load_file(output / "model.safetensors"), weights)


def assert_alike(found: Any, expected: Any) -> None:
    """Compare nested tensors: equal names and shapes, and equal values but for rounding."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {"segments", "callbacks"}:  # the time taken, and where the files are
            assert_alike(found[key], expected[key])
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair)
    else:
        assert found == expected


def test_two_processes_measure_each_image_of_uneven_shards_once(images: Path, tmp_path: Path) -> None:
    import webdataset

    for prefix, part in (("train", "train"), ("val", "val")):
        for number, name in enumerate("abb"):  # three shards for two processes
            with webdataset.TarWriter(str(tmp_path / f"{prefix}-{number}.tar")) as shard:
                for file in sorted((images / part / name).iterdir())[number:]:
                    label = {"__key__": f"{name}{file.stem}", "jpg": file.read_bytes(), "cls": "ab".index(name)}
                    shard.write(label)
    output, results = tmp_path / "run", tmp_path / "results.json"
    options = {"data__source": "shards", "data__samples": 26, "trainer__accelerator": "cpu"}
    torchrun(arguments(output, tmp_path, **options))
    words = ["--checkpoint", output / "model.safetensors", "--data", tmp_path, "--source", "shards", "--json", results]
    assert main(["evaluate", "classification", *map(str, words)]) == 0
    [row] = json.loads(results.read_text())["rows"]
    metrics = json.loads((output / "model.json").read_text())["metrics"]
    assert row["images"] == 5 + 4 + 3
    assert row["top1"] == pytest.approx(metrics["top1"], abs=1e-5)
    assert row["loss"] == pytest.approx(metrics["val_loss"], abs=1e-4)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_and_names_the_step(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.tasks.classification.module import Classifier

    step = Classifier.training_step

    def broken(self: Classifier, batch: Any, index: int) -> Any:
        return step(self, batch, index) * (torch.nan if self.global_step == 5 else 1)

    monkeypatch.setattr(Classifier, "training_step", broken)
    output = tmp_path / "run"
    assert main(arguments(output, images)) == 1
    [line] = capsys.readouterr().err.splitlines()
    last = output / "checkpoints" / "last.ckpt"
    assert line.startswith(f"ddfnet: error: the loss of step 5 is nan; the last good checkpoint is {last}")
    assert torch.load(last)["global_step"] == 4


def test_weights_that_are_not_numbers_take_no_good_checkpoints_place(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.tasks.classification.module import Classifier

    step = Classifier.training_step

    def broken(self: Classifier, batch: Any, index: int) -> Any:
        loss = step(self, batch, index)
        if self.global_step == 5:  # a checkpoint is due after it
            loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    monkeypatch.setattr(Classifier, "training_step", broken)
    output = tmp_path / "run"
    assert main(arguments(output, images)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ddfnet: error: the weights are nan or inf after step 6; the last good checkpoint is ")
    assert torch.load(output / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_a_full_disk_leaves_the_checkpoint_before(images: Path, tmp_path: Path, full_disk: None, fails: Fails) -> None:
    folder = tmp_path / "run" / "checkpoints"
    assert fails(1, *arguments(tmp_path / "run", images)) == (
        f"ddfnet: error: cannot write {folder / 'step=4.ckpt'}: No space left on device; "
        f"the last good checkpoint is {folder / 'last.ckpt'}"
    )
    assert torch.load(folder / "last.ckpt")["global_step"] == 2
    assert {path.name for path in folder.iterdir()} == {"step=2.ckpt", "last.ckpt"}, "nothing half"


def test_a_checkpoint_of_another_network(unbroken: Path, images: Path, tmp_path: Path, fails: Fails) -> None:
    file = unbroken / "checkpoints" / "last.ckpt"
    line = fails(1, *arguments(tmp_path / "run", images, ckpt_path=file, model__network="ddf_mul_resnet18"))
    assert line.startswith(f"ddfnet: error: {file} is a checkpoint of another model; ")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_and_is_named(own_images: Path, tmp_path: Path, fails: Fails, workers: int) -> None:
    broken = own_images / "train" / "b" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    line = fails(1, *arguments(tmp_path / "run", own_images, data__workers=workers))
    assert line.startswith(f"ddfnet: error: {broken} is a broken image: image file is truncated")


def test_a_broken_image_is_skipped_and_named(
    own_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [own_images / "train" / "b" / "3.jpg", own_images / "val" / "a" / "0.jpg"]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-200])
    output, results = tmp_path / "run", tmp_path / "results.json"
    assert main(arguments(output, own_images, data__on_bad_image="skip")) == 0
    lines = [record.getMessage() for record in caplog.records]
    for file in broken:
        assert any(line.startswith(f"{file} is a broken image: ") and line.endswith("; skipped") for line in lines)
    options = ["--data", own_images, "--on-bad-image", "skip", "--json", results]
    checkpoint = str(output / "model.safetensors")
    assert main(["evaluate", "classification", "--checkpoint", checkpoint, *map(str, options)]) == 0
    [row] = json.loads(results.read_text())["rows"]
    assert row["images"] == 5, "of six"


def test_missing_and_empty_folders(own_images: Path, tmp_path: Path, fails: Fails) -> None:
    def line(path: Path) -> str:
        return fails(1, *arguments(tmp_path / "run", path)).removeprefix("ddfnet: error: ")

    missing, empty = tmp_path / "nowhere", tmp_path / "empty"
    assert line(missing) == f"{missing}: no such folder"
    empty.mkdir()
    assert line(empty) == f"{empty} has no folder train"
    (empty / "train").mkdir()
    assert line(empty) == f"{empty / 'train'} is empty; it must have a folder of images for each class"
    (own_images / "train" / "c").mkdir()
    assert line(own_images) == (
        f"{own_images / 'train'}: no images of the class c; put some in, or remove its folder, from the parts for "
        "validation too"
    )
    (own_images / "train" / "c").rmdir()
    (own_images / "val" / "c").mkdir()
    train, val = own_images / "train", own_images / "val"
    assert line(own_images) == (
        f"the class c is in {val}, and not in {train}; put its images for training there, or remove it from {val}"
    )


@pytest.mark.parametrize("folder", [True, False], ids=["an empty folder", "no folder"])
def test_a_class_without_validation_images(
    own_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: bool
) -> None:
    """Leave out a, whose place b must not take."""
    for file in (own_images / "val" / "a").iterdir():
        file.unlink()
    if not folder:
        (own_images / "val" / "a").rmdir()
    output, results = tmp_path / "run", tmp_path / "results.json"
    assert main(arguments(output, own_images)) == 0
    assert caplog.messages.count(f"{own_images / 'val'}: no images of the class a, which is not measured") == 1
    metrics = json.loads((output / "model.json").read_text())["metrics"]
    words = ["--checkpoint", output / "model.safetensors", "--json", results, "--data"]
    assert main(["evaluate", "classification", *map(str, words), str(own_images)]) == 0
    [row] = json.loads(results.read_text())["rows"]
    assert row["images"] == 3 and row["loss"] == pytest.approx(metrics["val_loss"], abs=1e-5)
    alone = tmp_path / "alone"  # the names of the classes are in the model card too
    alone.mkdir()
    (own_images / "val").rename(alone / "val")
    assert main(["evaluate", "classification", *map(str, words), str(alone)]) == 0
    [row] = json.loads(results.read_text())["rows"]
    assert row["images"] == 3
    assert row["loss"] == pytest.approx(metrics["val_loss"], abs=1e-5)


def test_folders_that_systems_leave_change_nothing(unbroken: Path, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    for part in ("train", "val"):
        for name in (".ipynb_checkpoints", "__MACOSX", "a/.ipynb_checkpoints", "b/@eaDir"):
            (copy / part / name).mkdir()
            shutil.copy(copy / part / "a" / "0.jpg", copy / part / name / "0.jpg")
        (copy / part / "a" / "._0.jpg").write_bytes(b"Mac OS X")
    assert main(arguments(tmp_path / "run", copy)) == 0
    assert same(tmp_path / "run" / "model.safetensors", unbroken / "model.safetensors")


# --- shards that run commands ---------------------------------------------------------------------------------------


def test_no_file_allows_a_command(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails, unbroken: Path
) -> None:
    shards, ran = tmp_path / "shards", tmp_path / "ran"
    command_ = f"pipe:touch {ran} #"
    asked = f"{command_}: a shard must be a file or an address of http(s), since webdataset runs commands for others"
    options = {"data__source": "shards", "data__samples": 26, "data__part": command_}
    assert fails(1, *arguments(shards, Path(command_), **options)).startswith(f"ddfnet: error: {asked}")
    file = tmp_path / "own.yaml"
    file.write_text(f"data:\n  path: '{command_}'\n  part: '{command_}'\n  source: shards\n  samples: 26\n")
    start = ["train", "classification", "--config", str(file), f"--output={shards}", "--model.num_classes=2"]
    assert fails(1, *start).startswith(f"ddfnet: error: {asked}")
    allowed = (
        "ddfnet: error: data.allow_pipe must be turned on by the command line itself, got it from a file or the "
        "environment; leave it out there, or give --data.allow_pipe true if you trust what it allows"
    )
    file.write_text(file.read_text() + "  allow_pipe: true\n")
    assert fails(1, *start) == allowed
    assert fails(1, *start, '--data={"allow_pipe": true}') == allowed
    other = tmp_path / "data.yaml"
    other.write_text("allow_pipe: true\n")
    assert fails(1, *start, f"--data={other}") == allowed
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("DDFNET_TRAIN_CLASSIFICATION_DATA__ALLOW_PIPE", "true")
    file.write_text(file.read_text().replace("  allow_pipe: true\n", ""))
    assert fails(1, *start).startswith((allowed, f"ddfnet: error: {asked}"))
    monkeypatch.delenv("JSONARGPARSE_DEFAULT_ENV")
    words = ["--checkpoint", str(unbroken / "model.safetensors"), "--source", "shards", "--data", str(images)]
    assert fails(1, "evaluate", "classification", *words, "--part", command_).startswith(f"ddfnet: error: {asked}")
    assert not ran.exists()


def test_a_command_that_the_command_line_allows(images: Path, tmp_path: Path, unbroken: Path) -> None:
    import webdataset

    for part in ("train", "val"):
        with webdataset.TarWriter(str(tmp_path / f"{part}.tar")) as shard:
            for file in sorted((images / part).glob("*/*.jpg")):
                label = "ab".index(file.parent.name)
                shard.write({"__key__": f"{label}{file.stem}", "jpg": file.read_bytes(), "cls": label})
    options: dict[str, Any] = {"data__source": "shards", "data__samples": 26, "trainer__max_epochs": 1}
    train, val = (f"pipe:cat {tmp_path}/{part}.tar" for part in ("train", "val"))
    words = arguments(tmp_path / "run", Path(train), data__part=val, **options)
    assert main([*words, "--data.allow_pipe=true"]) == 0
    assert (
        main([*arguments(tmp_path / "other", Path(train), data__part=val, **options), "--data.allow_pipe", "true"]) == 0
    )
    checkpoint = str(unbroken / "model.safetensors")
    measure = ["evaluate", "classification", "--checkpoint", checkpoint, "--source", "shards", "--allow-pipe"]
    assert main([*measure, "--data", str(tmp_path / "train.tar"), "--part", val]) == 0


def test_a_file_of_weights_says_nothing_about_the_data(
    unbroken: Path, images: Path, tmp_path: Path, fails: Fails
) -> None:
    saved = torch.load(unbroken / "checkpoints" / "last.ckpt")
    file = tmp_path / "other.ckpt"
    for preprocessing, message in (
        ({**saved["header"]["preprocessing"], "allow_pipe": True}, "its preprocessing allow_pipe is none that"),
        ({**saved["header"]["preprocessing"], "path": "/"}, "its preprocessing path is none that a file may have"),
        ({**saved["header"]["preprocessing"], "size": "x"}, "its preprocessing size must be a whole number"),
        ([], "its preprocessing must be a dictionary, got []"),
    ):
        torch.save({**saved, "header": {**saved["header"], "preprocessing": preprocessing}}, file)
        line = fails(1, "evaluate", "classification", "--checkpoint", str(file), "--data", str(images))
        assert line.startswith(f"ddfnet: error: {file}: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model__num_classes": 3}, "{path} has 2 classes, and the network 3; train with --model.num_classes 2"),
        ({"data__batch_size": 32}, "26 images are fewer than a batch of 32; lower --data.batch_size"),
        ({"data__source": "shards"}, "{path} has no shards train-*.tar"),
        (
            {"data__source": "Nothing"},
            "source must be folder, cifar10, shards or a labelled set of torchvision.datasets, got 'Nothing'",
        ),
        (
            {"data__batch_size": 9, "trainer__accumulate_grad_batches": 2},
            "batch_size must be a multiple of 2, 1 processes times 2 accumulated batches, got 9",
        ),
        ({"data__batch_size": 9}, "mixup and cutmix need an even number of images in each process, got 9"),
        ({"model__optimizer": "magic"}, "optimizer must be one that timm.optim.list_optimizers() names, got 'magic'"),
        (
            {"trainer__strategy": "fsdp", "model__compile": True},
            "trainer.strategy fsdp must be without model.compile, got both; leave one of them out",
        ),
        (
            {"trainer__strategy": '{"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}'},
            "trainer.strategy must be fsdp to shard weights over processes, got ModelParallelStrategy",
        ),
        ({"data__scale": "[0.5,0.2]"}, "scale must be two shares above 0, the smaller first, up to 1, got (0.5, 0.2)"),
        (
            {"data__auto_augment": "magic"},
            "auto_augment must be timm's description, as 'rand-m7-mstd0.5-inc1', got 'magic'",
        ),
        (
            {"data__source": "cifar10", "data__part": "val"},
            "cifar10 has a test part of its own; leave part out, got 'val'",
        ),
        ({"trainer__max_epochs": 0}, "trainer.max_epochs or trainer.max_steps must be at least 1, got 0 and -1"),
    ],
)
def test_a_wrong_value(images: Path, tmp_path: Path, fails: Fails, options: dict[str, Any], message: str) -> None:
    line = fails(1, *arguments(tmp_path / "run", images, **options))
    assert line == f"ddfnet: error: {message.format(path=images)}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.learning_rate", -1, "Not of type NonNegativeFloat: -1 does not conform to restriction v>=0"),
        ("data.flip", 2, "Not of type ClosedUnitInterval: 2 does not conform to restriction v>=0 and v<=1"),
        ("data.erase_count", 0, "Not of type PositiveInt: 0 does not conform to restriction v>0"),
        ("threads", 0, "Not of type PositiveInt: does not conform to restriction v>0"),
    ],
)
def test_a_value_out_of_range(images: Path, tmp_path: Path, fails: Fails, key: str, value: int, message: str) -> None:
    line = fails(2, *arguments(tmp_path / "run", images), f"--{key}={value}")
    assert line.startswith(f'ddfnet train classification: error: Parser key "{key}": ') and message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"model__optimizer": "adamw"}, "optimizer"), ({"model__decay_norm_and_bias": "false"}, "decay_norm_and_bias")],
)
def test_going_on_in_another_recipe(
    unbroken: Path, images: Path, tmp_path: Path, fails: Fails, options: dict[str, Any], what: str
) -> None:
    file = unbroken / "checkpoints" / "last.ckpt"
    line = fails(1, *arguments(tmp_path / "run", images, ckpt_path=file, **options))
    assert line.startswith(
        f"ddfnet: error: {file} was trained with another {what}; resume with its own run's config.yaml"
    )


def test_a_run_that_measures_nothing_leaves_its_network(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(arguments(run, images, trainer__limit_val_batches=0, trainer__max_epochs=1)) == 0
    assert (run / "model.safetensors").exists() and json.loads((run / "model.json").read_text())["metrics"] == {}


def test_images_of_other_classes_are_not_measured(unbroken: Path, own_images: Path, fails: Fails) -> None:
    assert json.loads((unbroken / "model.json").read_text())["classes"] == ["a", "b"]
    (own_images / "val" / "a").rename(own_images / "val" / "z")
    file = unbroken / "model.safetensors"
    words = ("evaluate", "classification", "--checkpoint", str(file), "--data", str(own_images))
    assert fails(1, *words).startswith(f"ddfnet: error: the class z is in {own_images / 'val'}, and not in ")
    shutil.rmtree(own_images / "train")
    assert fails(1, *words) == (
        f"ddfnet: error: {own_images}: the class 'z' is none of those that the network is trained with, a, b; "
        "leave its images out"
    )


def test_a_network_that_is_given_twice(unbroken: Path, images: Path, fails: Fails) -> None:
    file = str(unbroken / "model.safetensors")
    line = fails(1, "evaluate", "classification", "--checkpoint", file, file, "--data", str(images))
    assert line == f"ddfnet: error: --checkpoint {file} is given twice; give it once"


def test_a_run_without_last_ckpt_goes_on_from_its_newest(
    unbroken: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    from ddfnet.tasks.classification.module import Classifier

    step = Classifier.training_step

    def broken(self: Classifier, batch: Any, index: int) -> Any:
        return step(self, batch, index) * (torch.nan if self.global_step == 5 else 1)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", broken)
        line = fails(1, *arguments(output, images, checkpoint__save_last=False, checkpoint__save_top_k=-1))
    assert f"the last good checkpoint is {output / 'checkpoints' / 'step=4.ckpt'}. " in line
    assert main(["train", "classification", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken / "model.safetensors")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("train", "classification", "--help"), ("evaluate", "classification", "--help")):
        assert main(words) == 0
    assert "--data.on_bad_image" in (text := capsys.readouterr().out) and "--on-bad-image" in text


def test_an_unknown_network(images: Path, tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *arguments(tmp_path / "run", images, model__network="ddf_resnet50"))
    assert line.startswith("ddfnet: error: network must be a name that timm knows, such as ddf_add_resnet18, ")
    line = fails(1, *arguments(tmp_path / "run", images, model__network_options="{wings: 2}"))
    assert line.startswith("ddfnet: error: network small_resnet23 with {'wings': 2}: ") and "wings" in line


@pytest.mark.parametrize("target", ["model.safetensors", "model.json", "link.json", "val.json"])
def test_an_input_is_not_replaced_by_the_scores(
    unbroken: Path, images: Path, tmp_path: Path, fails: Fails, target: str
) -> None:
    for name in ("model.safetensors", "model.json"):
        shutil.copy(unbroken / name, tmp_path / name)
    (tmp_path / "link.json").symlink_to(tmp_path / "model.safetensors")
    (tmp_path / "val.json").symlink_to(images)
    before = (tmp_path / "model.safetensors").read_bytes(), (tmp_path / "model.json").read_bytes()
    words = ("--checkpoint", str(tmp_path / "model.safetensors"), "--data", str(images))
    line = fails(1, "evaluate", "classification", *words, "--json", str(tmp_path / target))
    assert line == f"ddfnet: error: {tmp_path / target} would replace an input; write to another name"
    assert before == ((tmp_path / "model.safetensors").read_bytes(), (tmp_path / "model.json").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ({"preprocessing": {"size": "x"}}, "its preprocessing size must be a whole number from 1 to 4096, got 'x'"),
        ({"preprocessing": [1]}, "its preprocessing must be a dictionary, got [1]"),
        ({"card": [1]}, "must hold a dictionary, got list"),
        ({"card": {"classes": "ab"}}, "must have classes that are a list of names, got 'ab'"),
        ({"card": {"classes": ["a", 3]}}, "must have classes that are a list of names, got ['a', 3]"),
        ({"card": {"classes": ["a"]}}, "the class 'b' is none of those that the network is trained with, a"),
    ],
    ids=str,
)
def test_a_malformed_header_or_card_is_one_line(
    images: Path, tmp_path: Path, fails: Fails, spoil: dict[str, Any], problem: str
) -> None:
    made = create_classifier("small_resnet23", 2, {"layers": [1, 1, 1], "channels": [8, 8, 8]})
    header = header_of(made)
    header = header._replace(extra={"preprocessing": spoil.get("preprocessing", header.extra["preprocessing"])})
    save(made, tmp_path / "a.safetensors", header=header)
    (tmp_path / "a.json").write_text(json.dumps(spoil.get("card", {})))
    words = ("--checkpoint", str(tmp_path / "a.safetensors"), "--data", str(images))
    line = fails(1, "evaluate", "classification", *words)
    assert line.startswith("ddfnet: error: ") and problem in line


def test_a_network_without_preprocessing_is_measured_by_timm_s(images: Path, tmp_path: Path) -> None:
    made = create_classifier("small_resnet23", 2, {"layers": [1, 1, 1], "channels": [8, 8, 8]})
    save(made, tmp_path / "a.safetensors", header=header_of(made)._replace(extra={}))
    words = ("--checkpoint", str(tmp_path / "a.safetensors"), "--data", str(images))
    assert main(["evaluate", "classification", *words]) == 0


def test_a_checkpoint_of_timm_s_training_is_measured(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"layers": [1, 1, 1], "channels": [8, 8, 8]}
    made = create_classifier("small_resnet23", 2, options)
    save(made, tmp_path / "a.safetensors")
    given = argparse.Namespace(model="small_resnet23", num_classes=2, model_kwargs=options, lr=0.1)
    file = tmp_path / "model_best.pth.tar"
    torch.save({"arch": "small_resnet23", "args": given, "state_dict": {}, "state_dict_ema": made.state_dict()}, file)
    results = {}
    for name in ("a.safetensors", file.name):
        words = ("--checkpoint", str(tmp_path / name), "--data", str(images), "--json", str(tmp_path / "results.json"))
        assert main(["evaluate", "classification", *words]) == 0
        [row] = json.loads((tmp_path / "results.json").read_text())["rows"]
        results[name] = {key: row[key] for key in ("network", "top1", "loss", "images")}
    assert results["a.safetensors"] == results[file.name]
    assert f"{file}: the averaged weights are taken, state_dict_ema\n" in capsys.readouterr().out


def test_options_that_a_file_cannot_have_are_refused_at_the_start(images: Path, tmp_path: Path, fails: Fails) -> None:
    network = {"model__network": "mobilenetv3_small_050", "model__network_options": "{head_norm: true}"}
    line = fails(1, *arguments(tmp_path / "run", images, **network))
    assert line.startswith("ddfnet: error: its option head_norm is none that a file may have")
    assert not (tmp_path / "run").exists()
    options = "{layers: [1,1,1], channels: [8,8,8], norm_layer: {a: 1}}"
    line = fails(1, *arguments(tmp_path / "run", images, model__network_options=options))
    assert "norm_layer" in line and "AssertionError" in line


def test_evaluating_what_is_no_classifier(images: Path, tmp_path: Path, fails: Fails) -> None:
    words = ("evaluate", "classification", "--data", str(images), "--checkpoint")
    file = tmp_path / "model.safetensors"
    assert fails(1, *words, str(file)) == f"ddfnet: error: {file}: no such file"
    file.write_bytes(b"no network")
    assert fails(1, *words, str(file)).startswith(
        f"ddfnet: error: {file}: a file that `ddfnet train classification` wrote is required"
    )
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}, "network": {}}, other)
    assert "a file that `ddfnet train classification` wrote is required" in fails(1, *words, str(other))


# --- the recipes ------------------------------------------------------------------------------------------------------

NETWORKS = [f"{kind}resnet{depth}" for kind in ("ddf_mul_", "ddf_add_", "") for depth in (50, 101)]
RECIPES = {"imagenet-paper": 120, "imagenet-released": 130}  # epochs


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_imagenet_recipes(images: Path, tmp_path: Path, network: str, recipe: str) -> None:
    """Each network of each recipe, made and taken one step, at a size that a test has time for."""
    from ddfnet.cli import lightning_cli
    from ddfnet.tasks import TASKS

    options = {
        "model.network": network,
        "model.num_classes": 2,
        "data.path": images,
        "data.batch_size": 2,
        "data.size": 32,
        "data.workers": 0,
        "output": tmp_path / "run",
        "trainer.max_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
    }
    words = [f"--config={recipe}", *(f"--{key}={value}" for key, value in options.items())]
    cli = lightning_cli.build(TASKS["classification"], words)
    with torch.random.fork_rng():
        cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1
    assert cli.config["trainer"]["max_epochs"] == RECIPES[recipe]
    assert all(parameter.isfinite().all() for parameter in cli.model.parameters())
