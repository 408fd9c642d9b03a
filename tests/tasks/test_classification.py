"""The data module and the Lightning module of classification."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("torchvision")

import lightning

from ddfnet.data import Splits
from ddfnet.data.splits import Labelled
from ddfnet.tasks.classification import ClassificationData, Classifier


def halves(count: int = 96, size: int = 8) -> Splits:
    """Noise that is brighter in its upper half (label 0) or in its lower one (label 1)."""
    labels = torch.arange(count) % 2
    images = torch.randint(60, (count, 1, size, size))
    images[labels == 0, :, : size // 2] += 150
    images[labels == 1, :, size // 2 :] += 150
    part = Labelled(images.to(torch.uint8), labels)
    return Splits("halves", part, part, ("upper", "lower"), "Noise.", flip=True)


def trainer(**options: object) -> object:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
def test_it_learns() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    classifier, data = Classifier(network, 2), ClassificationData(halves(), 16)
    [before] = trainer().test(classifier, data, verbose=False)
    run = trainer(max_epochs=6)
    run.fit(classifier, data)
    [after] = run.test(classifier, data, verbose=False)
    assert before["test_accuracy"] < 0.9
    assert after["test_accuracy"] == 1
    [schedule] = run.lr_scheduler_configs
    assert schedule.scheduler.total_steps == 36
    assert schedule.scheduler.last_epoch == 36
    assert run.optimizers[0].param_groups[0]["lr"] < 0.01 * classifier.learning_rate, "the cycle ends with training"


@pytest.mark.filterwarnings("ignore")
def test_accuracy_is_the_share_that_is_right() -> None:
    class Upper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(x), 2) + self.weight

    splits = halves(60)
    part = splits.test[torch.tensor([*range(0, 60, 2), 1, 3])]  # 30 of the one, 2 of the other
    splits = Splits("halves", splits.train, part, splits.classes, "")
    [result] = trainer().test(Classifier(Upper(), 2), ClassificationData(splits, 4), verbose=False)
    assert result["test_accuracy"] == pytest.approx(30 / 32)


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        splits = halves()
        numbered = Labelled(splits.train.images, torch.arange(len(splits.train)))
        data = ClassificationData(Splits("n", numbered, numbered, ("a",), ""), 16, seed)
        return [int(label) for _, labels in data.train_dataloader() for label in labels]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == list(range(96))


def test_batches_are_normalised_and_only_training_ones_changed() -> None:
    data = ClassificationData(halves(), 96)
    [(images, labels)] = data.test_dataloader()
    seen, _ = data.on_after_batch_transfer((images, labels), 0)
    assert seen.mean().abs() < 1e-5
    assert seen.std(correction=0) == pytest.approx(1, abs=1e-5)
    again, _ = data.on_after_batch_transfer((images, labels), 0)
    assert torch.equal(seen, again)

    data.trainer = type("Training", (), {"training": True})()
    changed, _ = data.on_after_batch_transfer((images, labels), 0)
    assert changed.shape == seen.shape
    assert not torch.equal(changed, seen)
