"""Lightning's StochasticWeightAveraging in a run, resumed anywhere, and where it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("tensorboard")
pytest.importorskip("timm")
pytest.importorskip("webdataset")

from ddfnet.cli.main import main
from tests.cli import test_train as depth
from tests.cli.conftest import fails  # noqa: F401  (a fixture)
from tests.cli.test_train_classification import arguments, images  # noqa: F401  (images is a fixture)
from tests.training_runs import same, threads  # noqa: F401  (threads is a fixture)

SWA = (
    '[{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging", '
    '"init_args": {"swa_lrs": 0.01, "swa_epoch_start": 2}}]'
)
OPTIONS: dict[str, Any] = {"ema__decay": 0, "trainer__callbacks": SWA, "checkpoint__every_n_train_steps": 1}


@pytest.fixture(scope="module")
def averaged(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Train three epochs of three steps, and a pass for the statistics of the batch norms."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments(output, images, **OPTIONS)) == 0
    return output


@pytest.mark.parametrize("step", [2, 3, 4, 6, 8, 9])  # 9 is in the pass for the statistics
def test_a_resumed_run_ends_with_the_same_weights(
    averaged: Path,
    images: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    from ddfnet.tasks.classification.module import Classifier

    training_step = Classifier.training_step

    def broken(self: Classifier, batch: Any, index: int) -> Any:
        if self.global_step == step:
            raise KeyboardInterrupt
        return training_step(self, batch, index)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", broken)
        assert main(arguments(output, images, **OPTIONS)) == 130
    assert main(["train", "classification", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", averaged / "model.safetensors")


def test_a_run_that_has_ended_is_resumed(averaged: Path) -> None:
    before = averaged.parent / "before.safetensors"
    shutil.copy(averaged / "model.safetensors", before)
    assert main(["train", "classification", "--config", str(averaged / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(averaged / "model.safetensors", before)


def test_it_is_another_network_than_without(averaged: Path, images: Path, tmp_path: Path) -> None:  # noqa: F811
    plain = tmp_path / "plain"
    assert main(arguments(plain, images, **OPTIONS | {"trainer__callbacks": "null"})) == 0
    assert not same(plain / "model.safetensors", averaged / "model.safetensors")


def test_it_is_measured(averaged: Path, images: Path) -> None:  # noqa: F811
    files = [str(averaged / "model.safetensors"), str(averaged / "checkpoints" / "last.ckpt")]
    assert main(["evaluate", "classification", "--checkpoint", *files, "--data", str(images)]) == 0


def test_two_averages(images: Path, tmp_path: Path, fails: Callable[..., str]) -> None:  # noqa: F811
    assert fails(1, *arguments(tmp_path / "run", images, **OPTIONS | {"ema__decay": 0.9})) == (
        "ddfnet: error: the weights must be averaged in one way, got StochasticWeightAveraging and --ema.decay; give "
        "--ema.decay 0"
    )


def test_a_run_that_is_counted_in_steps(tmp_path: Path, fails: Callable[..., str]) -> None:  # noqa: F811
    assert fails(1, *depth.arguments(tmp_path / "run", **OPTIONS)) == (
        "ddfnet: error: trainer.callbacks must be without StochasticWeightAveraging, which averages once per epoch: "
        "here a run is one epoch, counted in steps; average by --ema.decay instead"
    )
