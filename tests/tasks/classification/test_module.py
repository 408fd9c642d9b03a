"""Lightning module and data module of classification."""

from __future__ import annotations

import io
import lzma
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("webdataset")

import lightning
import numpy as np
from PIL import Image
from torch import nn

from ddfnet.data.classification.splits import Split, Splits
from ddfnet.errors import DataError
from ddfnet.nn.branches import ChannelBranch, SpatialBranch
from ddfnet.tasks.classification.comparison import batches
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier
from ddfnet.training.callbacks import MovingAverage


def halves(count: int = 96, size: int = 8) -> Splits:
    """Make noise that is brighter in its upper half (label 0) or in its lower one (label 1)."""
    labels = torch.arange(count) % 2
    images = torch.randint(60, (count, 1, size, size))
    images[labels == 0, :, : size // 2] += 150
    images[labels == 1, :, size // 2 :] += 150
    part = Split(images.to(torch.uint8), labels)
    return Splits("halves", part, part, ("upper", "lower"), "Noise.", flip=True)


def trainer(**options: Any) -> lightning.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    return lightning.Trainer(**defaults | options)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def attached(data: ClassificationData, **options: Any) -> ClassificationData:
    """Attach a trainer, which the loaders need."""
    data.trainer = trainer(**options)
    return data


# --- the module -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_it_learns_along_a_cosine() -> None:
    model = Classifier(linear(), 2, learning_rate=0.1, warmup_epochs=1, warmup_lr=0.02, min_lr=0.001)
    data, run = batches(halves(), 16, 0), trainer(max_epochs=6)
    [before] = run.validate(model, data, verbose=False)
    rates: list[float] = []

    class Rates(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    run = trainer(max_epochs=6, callbacks=[Rates()])
    run.fit(model, data)
    [after] = run.validate(model, data, verbose=False)
    assert before["top1"] < 0.9
    assert after["top1"] == after["top5"] == 1 and after["val_loss"] < before["val_loss"]
    cosine = [0.001 + 0.5 * 0.099 * (1 + math.cos(math.pi * step / 36)) for step in range(36)]
    assert rates == pytest.approx([0.02 + 0.08 * step / 6 for step in range(6)] + cosine[6:])


@pytest.mark.filterwarnings("ignore")
def test_accuracy_is_the_share_that_is_right_and_every_image_counts_once() -> None:
    class Upper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(x), 2) + self.weight

    splits = halves(60)
    part = splits.test[torch.tensor([*range(0, 60, 2), 1, 3])]  # 30 of the one, 2 of the other
    splits = Splits("halves", splits.train, part, splits.classes, "")
    model = Classifier(Upper(), 2)
    [result] = trainer().validate(model, batches(splits, 5, 0), verbose=False)
    assert result["top1"] == pytest.approx(30 / 32)
    assert result["val_loss"] == pytest.approx((30 * math.log(1 + math.e**-1) + 2 * math.log(1 + math.e)) / 32)
    assert model.measured.compute() == 32


def test_the_branches_that_predict_filters_learn_at_a_rate_of_their_own() -> None:
    options = {"layers": [1, 1, 1], "channels": [4, 4, 8]}
    model = Classifier(
        "small_resnet23",
        2,
        options,
        weight_decay=0.1,
        decay_norm_and_bias=False,
        filter_lr_scale=0.5,
        filter_decay=0.02,
    )
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in model._groups()
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    branches = tuple(n for n, m in model.network.named_modules() if isinstance(m, SpatialBranch | ChannelBranch))
    for name, parameter in model.network.named_parameters():
        own = name.startswith(branches)
        decay = 0.0 if parameter.dim() == 1 else 0.02 if own else 0.1
        assert found[name] == (0.5 if own else 1.0, decay)
    assert {group["weight_decay"] for group in Classifier("small_resnet23", 2, options)._groups()} == {1e-4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1}, "label_smoothing must be from 0 to below 1, got 1"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"weight_decay": math.nan}, "weight_decay must be finite and not negative, got nan"),
        ({"filter_decay": -1.0}, "filter_decay must be finite and not negative, got -1.0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(linear(), **{"num_classes": 2} | options)


# --- the average ----------------------------------------------------------------------------------------------------


class Weights(lightning.Callback):
    """Callback that records the weights after each step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.seen.append(pl_module.network[1].weight.detach().clone())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_what_a_run_ends_with(decay: float) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2))
    model, weights = Classifier(network, 2), Weights()
    trainer(max_epochs=2, callbacks=[weights, MovingAverage(decay, buffers=True)]).fit(model, batches(halves(), 16, 0))
    assert len(weights.seen) == 12
    assert torch.equal(model.network[1].weight, weights.seen[-1]) == (decay == 0)
    assert model.network[2].num_batches_tracked == 12


# --- the images ---------------------------------------------------------------------------------------------------


def numbered(count: int = 96, batch: int = 16, seed: int = 0, **options: Any) -> ClassificationData:
    """Make images that are classes of their own."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 8, 8)
    part = Split(images, torch.arange(count))
    data = batches(Splits("n", part, part, tuple(map(str, range(count))), ""), batch, seed)
    return attached(data, **options)


def order(data: ClassificationData) -> list[int]:
    return [int(label) for batch in data.train_dataloader() for label in batch["label"]]


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    first = order(numbered())
    assert first == order(numbered()) != order(numbered(seed=1))
    assert sorted(first) == list(range(96))
    assert len(order(numbered(100))) == 96, "the rest of an epoch is left out"
    later = numbered()
    later.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 6
    assert later.trainer.global_step == 6
    assert sorted(order(later)) == list(range(96))
    assert order(later) != first


def test_accumulated_batches_share_a_batch() -> None:
    assert order(numbered(accumulate_grad_batches=4)) == order(numbered())
    assert [len(batch["label"]) for batch in numbered(accumulate_grad_batches=4).train_dataloader()] == 24 * [4]


def test_batches_are_normalised_and_only_training_ones_changed() -> None:
    data = attached(batches(halves(), 96, 0))
    [batch] = data.val_dataloader()
    seen = data.on_after_batch_transfer(batch, 0)["image"]
    assert seen.shape == (96, 1, 8, 8)
    assert seen.mean().abs() < 1e-5
    assert seen.std(correction=0) == pytest.approx(1, abs=1e-5)
    [again] = data.val_dataloader()
    assert torch.equal(seen, data.on_after_batch_transfer(again, 0)["image"])
    [changed] = data.train_dataloader()
    assert not torch.equal(changed["image"].sort(0).values, batch["image"].sort(0).values)


def test_erasing_and_mixing_are_by_the_position() -> None:
    data = attached(ClassificationData(num_classes=3, random_erase=1.0, mixup=1.0, seed=4))
    data.trainer.state.fn, data.trainer.training = "fit", True
    batch = {
        "image": torch.full((4, 3, 8, 8), 100, dtype=torch.uint8),
        "label": torch.tensor([0, 1, 2, 0]),
        "position": torch.arange(4),
    }
    one, same = data.on_after_batch_transfer(batch, 0), data.on_after_batch_transfer(batch, 0)
    assert torch.equal(one["image"], same["image"]) and torch.equal(one["label"], same["label"])
    assert one["label"].shape == (4, 3)
    torch.testing.assert_close(one["label"].sum(1), torch.ones(4))
    other = data.on_after_batch_transfer(batch | {"position": torch.arange(4, 8)}, 0)
    assert not torch.equal(one["image"], other["image"])
    plain = attached(ClassificationData(num_classes=3)).on_after_batch_transfer(batch, 0)
    assert (plain["image"] == one["image"]).float().mean() < 0.999, "some of it is erased"


def test_transforms() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    for options in (
        {},
        {"auto_augment": "rand-m7-mstd0.5-inc1", "interpolation": "random"},
        {"color_jitter": 0.4},
        {"padding": 4},
    ):
        data = ClassificationData(size=32, **options)
        assert data.augment(image).shape == (3, 32, 32) or "padding" in options
        assert data.prepare(image).shape == (3, 32, 32)
        assert data.prepare(image).dtype == torch.uint8


# --- sources --------------------------------------------------------------------------------------------------------


def jpeg(value: int, size: int = 12) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(stream, "jpeg")
    return stream.getvalue()


def write_shards(folder: Path, prefix: str, shards: int, samples: int) -> None:
    """Sample i of all is grey of value i, and of class i modulo 3."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{prefix}-{shard:03}.tar", "w") as archive:
            for sample in range(shard * samples, (shard + 1) * samples):
                for name, content in (
                    (f"{sample:05}.jpg", jpeg(sample)),
                    (f"{sample:05}.cls", str(sample % 3).encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def shards(path: Path, **options: Any) -> ClassificationData:
    defaults = {"samples": 60, "num_classes": 3, "batch_size": 6, "size": 12, "flip": 0, "workers": 0}
    return ClassificationData(str(path), "shards", **defaults | {"scale": (1.0, 1.0)} | options)


def values(loader: Any) -> list[int]:
    return [round(float(v)) for batch in loader for v in batch["image"].float().mean((1, 2, 3))[batch["label"] >= 0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_give_every_sample(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, "train", 5, 12)
    write_shards(tmp_path, "val", 3, 7)
    data = attached(shards(tmp_path, workers=workers))
    assert sorted(values(data.val_dataloader())) == list(range(21))
    read = values(data.train_dataloader())
    assert len(read) == 60
    assert len(set(read)) == 60 or workers, "two workers have a share of the shards each"
    assert read != sorted(read)
    assert read == values(attached(shards(tmp_path, workers=workers)).train_dataloader())
    assert read != values(attached(shards(tmp_path, workers=workers, seed=1)).train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_finds_its_place_in_the_shards(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, "train", 5, 12)
    whole = [values([batch]) for batch in attached(shards(tmp_path, workers=workers)).train_dataloader()]
    data = attached(shards(tmp_path, workers=workers))
    data.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 3
    rest = [values([batch]) for batch in data.train_dataloader()]
    assert rest[:7] == whole[3:]


def test_shards_are_dealt_to_the_processes(tmp_path: Path) -> None:
    from ddfnet.data.classification.webdataset import EveryShard, ShardBatches, urls

    write_shards(tmp_path, "train", 4, 6)
    found = urls(str(tmp_path), None, True)

    def keys(samples: Any) -> list[str]:
        return [sample.sample["__key__"] for sample in samples]

    parts = [keys(EveryShard(found, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted([*parts[0], *parts[1]]) == sorted(keys(EveryShard(found))) and not {*parts[0]} & {*parts[1]}
    epochs = []
    for rank in range(2):
        batches = ShardBatches(found, batch_size=3, num_batches=4, streams=2, seed=0, rank=rank, world_size=2)
        positions = [[(t * 2 + rank) * 3 + i for i in range(3)] for t in range(4)]
        epochs.append([key for own in positions for key in keys(batches(own))])
    assert sorted([*epochs[0], *epochs[1]]) == sorted(keys(EveryShard(found))), (
        "one pass, shared by two processes of two streams"
    )


def test_bad_shards(tmp_path: Path) -> None:
    def raised(data: ClassificationData) -> str:
        with pytest.raises(DataError) as error:
            values(attached(data).train_dataloader())
        return str(error.value)

    assert raised(shards(tmp_path)) == f"{tmp_path} has no shards train-*.tar"
    missing = tmp_path / "a-{0..1}.tar"
    assert raised(shards(missing)) == f"{tmp_path / 'a-0.tar'}: no such shard"
    write_shards(tmp_path, "train", 1, 6)
    assert raised(shards(tmp_path, samples=None)) == (
        "shards do not say how many images they hold; give --data.samples"
    )
    file = tmp_path / "train-000.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[:1500])
    assert raised(shards(tmp_path)).startswith(f"{file} is no tar archive, or a damaged one: ")
    file.write_bytes(b"no shard" * 100)
    assert raised(shards(tmp_path)).startswith(f"{file} is no tar archive, or a damaged one: ")
    file.write_bytes(whole.replace(jpeg(2), jpeg(2)[:-100] + bytes(100)))
    assert f"{file}/00002.jpg is a broken image: " in raised(shards(tmp_path)).replace(".jpg/", "/")
    write_shards(tmp_path, "train", 1, 0)
    assert raised(shards(tmp_path)) == f"{file}: no sample in it"


def archive(file: Path, *, size: int = 32, parts: tuple[str, ...] = ("train", "test")) -> Path:
    with tarfile.open(file, "w:xz") as written:
        for part in parts:
            for label, name in ((1, "b"), (0, "a")):
                for number in range(3):
                    content = jpeg(40 * label + 10 * number, size)
                    member = tarfile.TarInfo(f"{part}/{name}/{number}.jpg")
                    member.size = len(content)
                    written.addfile(member, io.BytesIO(content))
    return file


def test_an_archive_of_cifar10(tmp_path: Path) -> None:
    data = ClassificationData(str(archive(tmp_path / "c.tar.xz")), "cifar10", num_classes=2, batch_size=2, size=32)
    found = data.images(False)
    assert [found[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1] and found.classes == ("a", "b")
    assert [np.asarray(found[i][0]).mean().round() for i in range(6)] == [0, 10, 20, 40, 50, 60]
    assert len(data.images(True)) == 6


def test_broken_images_of_an_archive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = archive(tmp_path / "c.tar.xz")
    whole = lzma.decompress(file.read_bytes())
    middle = jpeg(50, 32)
    file.write_bytes(lzma.compress(whole.replace(middle, middle[:-200] + bytes(200))))
    options: dict[str, Any] = {"num_classes": 2, "batch_size": 2, "size": 32}
    with pytest.raises(DataError, match=r"train/b/1\.jpg is a broken image"):
        ClassificationData(str(file), "cifar10", **options).images(True)
    data = ClassificationData(str(file), "cifar10", on_bad_image="skip", **options)
    assert len(data.images(True)) == len(data.images(False)) == 5
    assert "test/b/1.jpg is a broken image" in caplog.text


def test_archives_that_are_none(tmp_path: Path) -> None:
    def raised(file: Path) -> str:
        with pytest.raises(DataError) as error:
            ClassificationData(str(file), "cifar10", num_classes=2).images(True)
        return str(error.value)

    other = archive(tmp_path / "a.tar.xz", size=28)
    assert raised(other) == f"{other}/train/b/0.jpg must have 32x32 pixels, got 28x28"
    half = archive(tmp_path / "b.tar.xz", parts=("train",))
    assert raised(half) == (
        f"{half} is no archive of CIFAR-10: train/CLASS and test/CLASS with images of 32x32 pixels are required"
    )
    whole = archive(tmp_path / "c.tar.xz").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        file = tmp_path / "d.tar.xz"
        file.write_bytes(content)
        assert raised(file).startswith(f"{file} is no tar archive, or a damaged one: ")


def test_a_set_of_torchvision(tmp_path: Path) -> None:
    inside = tmp_path / "dtd" / "dtd"  # the layout of the Describable Textures Dataset
    (inside / "labels").mkdir(parents=True)
    for part, numbers in (("train", (0, 1, 2)), ("val", (3, 4)), ("test", (5,))):
        names = [f"{label}/{label}_{number}.jpg" for number in numbers for label in ("banded", "woven")]
        (inside / "labels" / f"{part}1.txt").write_text("\n".join(names))
        for name in names:
            (inside / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (inside / "images" / name).write_bytes(jpeg(10 * int(name[-5])))
    data = ClassificationData(str(tmp_path), "DTD", num_classes=2)
    assert len(data.images(True)) == 6 and len(data.images(False)) == 4
    assert list(data.images(True).classes) == ["banded", "woven"]
    assert [data.images(False)[i][1] for i in range(4)] == [0, 1, 0, 1]
    assert len(ClassificationData(str(tmp_path), "DTD", "test", num_classes=2).images(False)) == 2
    with pytest.raises(DataError, match="DTD: Unknown value 'dev' for argument split"):
        ClassificationData(str(tmp_path), "DTD", "dev", num_classes=2).images(False)
    (inside / "images" / "banded" / "banded_0.jpg").write_bytes(jpeg(0)[:-100])
    with pytest.raises(DataError, match=r"image 0 of DTD: .*banded_0\.jpg is a broken image: "):
        data.images(True)[0]


def test_sets_of_torchvision_that_a_root_does_not_open(tmp_path: Path) -> None:
    for name in ("Kinetics", "HMDB51", "UCF101", "PhotoTour", "EMNIST", "LSUN"):
        with pytest.raises(DataError, match=f"source must be folder, .*, got '{name}'"):
            ClassificationData(str(tmp_path), name, num_classes=2).images(True)


def test_every_set_of_torchvision_that_is_not_there_gives_a_line(tmp_path: Path) -> None:
    from torchvision import datasets

    for name in datasets.__all__:
        for training in (True, False):
            with pytest.raises(DataError) as error:
                ClassificationData(str(tmp_path), name, num_classes=2).images(training)
            assert "\n" not in str(error.value)


def test_a_set_of_torchvision_without_a_label_per_image(tmp_path: Path) -> None:
    folder = tmp_path / "Kitti" / "raw" / "training"  # its targets are lists of objects
    for part in ("image_2", "label_2"):
        (folder / part).mkdir(parents=True)
    (folder / "image_2" / "0.png").write_bytes(jpeg(0))
    (folder / "label_2" / "0.txt").write_text("Car 0 0 0 1 1 2 2 1 1 1 0 0 0 0\n")
    with pytest.raises(DataError) as error:
        ClassificationData(str(tmp_path), "Kitti", num_classes=2).images(True)
    assert str(error.value) == (
        "Kitti: pairs of an image and the number of its class are required, got JpegImageFile, list"
    )


def test_a_set_of_torchvision_that_is_not_there(tmp_path: Path) -> None:
    for name in ("CIFAR100", "Flowers102"):
        with pytest.raises(DataError, match=f"{name}: .*not found"):
            ClassificationData(str(tmp_path), name, num_classes=100).images(True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"crop_pct": 0}, "crop_pct must be from above 0 to 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"on_bad_image": "perhaps"}, "on_bad_image must be 'stop' or 'skip', got 'perhaps'"),
        ({"mixup": -1.0}, "mixup must be finite and not negative, got -1.0"),
        ({"std": (1.0, 0.0, 1.0)}, "mean and std must have one value per channel, std above 0, got "),
    ],
)
def test_wrong_options_of_the_data(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationData(**options)
