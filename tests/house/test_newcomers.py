"""Five wishes of newcomers: each writes one file outside of the package, and the command line knows its names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")
pytest.importorskip("tensorboard")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

import torch
from PIL import Image
from safetensors import safe_open

from ddfnet.cli.main import main
from tests.detection_folders import voc

Ddfnet = Callable[..., str]


@pytest.fixture
def ddfnet(
    registries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ddfnet]:
    """Yield a function that writes the newcomer's file and runs a command with it."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(plugin: str, *words: str) -> str:
        (tmp_path / "newcomer.py").write_text(plugin)
        status = main(["--import", "newcomer.py", *words])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    yield run
    torch.set_num_threads(threads)
    sys.modules.pop("newcomer", None)


def weights(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return [*opened.keys()]


DEPTH_FORMAT = '''
"""Depth maps as rows of numbers."""

import numpy as np
from ddfnet.depth.io import DepthFormat, register_format


@register_format
class Text(DepthFormat):
    name, suffixes, dtypes, description = "text", (".txt",), ("float64",), "rows of numbers"

    def read(self, stream):
        return np.loadtxt(stream, ndmin=2)

    def write(self, stream, values):
        np.savetxt(stream, values)
'''


def test_a_depth_file_format(tmp_path: Path, ddfnet: Ddfnet) -> None:
    depth = np.linspace(1, 2, 48).reshape(6, 8)
    np.savetxt(tmp_path / "depth.txt", depth)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "guide.png")
    ddfnet(DEPTH_FORMAT, "upsample", "depth.txt", "--guide", "guide.png", "-o", "sharp.txt")
    sharp = np.loadtxt(tmp_path / "sharp.txt")
    assert sharp.shape == (24, 32) and 1 <= sharp.min() < sharp.max() <= 2
    assert "rows of numbers" in " ".join(ddfnet(DEPTH_FORMAT, "upsample", "--help").split())


UPSAMPLER = '''
"""Upsampling by a sum of neighbours, learned."""

from ddfnet.models.upsamplers import UPSAMPLERS
from torch import nn


class Spread(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weigh = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels)

    def forward(self, x):
        return self.weigh(x)


UPSAMPLERS["spread"] = Spread
'''


def test_an_upsampler_of_the_detector(tmp_path: Path, ddfnet: Ddfnet) -> None:
    pytest.importorskip("faster_coco_eval")
    voc(tmp_path / "squares", {"train": 2, "val": 1})
    options = {
        "output": "run",
        "threads": 1,
        "data.root": "squares",
        "data.batch_size": 2,
        "data.workers": 0,
        "model.network.classes": "[red,blue]",
        "model.network.backbone": "resnet10t",
        "model.network.backbone_options": '{"channels":[8,8,8,8]}',
        "model.network.upsampler": "spread",
        "model.network.width": 8,
        "model.network.head_width": 16,
        "model.network.min_size": 48,
        "model.network.max_size": 64,
        "trainer.max_steps": 1,
        "trainer.val_check_interval": 1,
    }
    ddfnet(UPSAMPLER, "train", "detection", *(f"--{key}={value}" for key, value in options.items()))
    assert any(name.endswith(".weigh.weight") for name in weights(tmp_path / "run" / "model.safetensors"))


NETWORK = '''
"""A network of three layers."""

from timm.models import build_model_with_cfg, register_model
from torch import nn

from ddfnet.nn import DDF2d


class Tiny(nn.Module):
    def __init__(self, num_classes=10, in_chans=3, **options):
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(nn.Conv2d(in_chans, 8, 3, 2, 1), DDF2d(8), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@register_model
def tiny_ddf(pretrained=False, **options):
    return build_model_with_cfg(Tiny, "tiny_ddf", pretrained, **options)
'''
CLASSIFICATION = (
    "--output=run",
    "--threads=1",
    "--model.num_classes=2",
    "--data.size=16",
    "--data.batch_size=4",
    "--data.workers=0",
    "--trainer.max_epochs=1",
)


def test_a_network(tmp_path: Path, ddfnet: Ddfnet) -> None:
    rng = np.random.default_rng(0)
    for number in range(16):
        folder = tmp_path / "images" / ("train", "val")[number % 2] / ("cat", "dog")[number // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    ddfnet(NETWORK, "train", "classification", "--model.network=tiny_ddf", "--data.path=images", *CLASSIFICATION)
    assert "head.weight" in weights(tmp_path / "run" / "model.safetensors")
    text = ddfnet(NETWORK, "evaluate", "classification", "--checkpoint=run/model.safetensors", "--data=images")
    assert "top-1" in text
    pytest.importorskip("onnxruntime")
    ddfnet(NETWORK, "export", "run/model.safetensors", "--check", "--output=tiny.onnx")
    assert (tmp_path / "tiny.onnx").exists()


DATA_SET = '''
"""Images that are black or white."""

from ddfnet.data.classification.sources import register_source
from PIL import Image


class Shades:
    classes = ("black", "white")

    def __len__(self):
        return 8

    def __getitem__(self, index):
        label = index % 2
        return Image.new("RGB", (16, 16), (255 * label,) * 3), label


@register_source("shades")
def open_shades(path, part, training, *, skip_broken):
    return Shades()
'''


def test_a_data_set(tmp_path: Path, ddfnet: Ddfnet) -> None:
    ddfnet(
        DATA_SET,
        "train",
        "classification",
        "--data.source=shades",
        "--data.path=.",
        "--model.network=resnet10t",
        *CLASSIFICATION,
    )
    assert "fc.weight" in weights(tmp_path / "run" / "model.safetensors")
    command = "evaluate", "classification", "--checkpoint=run/model.safetensors", "--data=.", "--source=shades"
    assert "top-1" in ddfnet(DATA_SET, *command)


TASK = '''
"""Denoising of random images by one DDF layer."""

import lightning
import torch
from torch import nn
from torch.nn import functional as F

from ddfnet.nn import DDF2d
from ddfnet.pretrained import register_kind
from ddfnet.tasks import TaskSpec, Training, register_task


@register_kind("denoiser")
class Denoiser(nn.Module):
    def __init__(self, channels: int = 3):
        super().__init__()
        self.filter = DDF2d(channels)

    def forward(self, x):
        return self.filter(x)


class Denoising(lightning.LightningModule):
    """Denoising.

    Args:
        learning_rate: learning rate of SGD.
        seed: seed of the initial weights.
    """

    def __init__(self, learning_rate: float = 0.1, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.learning_rate = learning_rate
        self.network = Denoiser()

    def training_step(self, batch, index):
        return F.mse_loss(self.network(batch + 0.1 * torch.randn_like(batch)), batch)

    def validation_step(self, batch, index):
        self.log("error", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.learning_rate)


class Noise(lightning.LightningDataModule):
    """Random images.

    Args:
        count: number of images.
        seed: seed of the images.
    """

    def __init__(self, count: int = 4, seed: int = 0):
        super().__init__()
        self.images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.images, batch_size=2)

    val_dataloader = train_dataloader


register_task(TaskSpec("denoise", "denoising of random images", lambda: Training(Denoising, Noise)))
'''


def test_a_task(tmp_path: Path, ddfnet: Ddfnet) -> None:
    assert "denoise" in ddfnet(TASK, "train", "--help")
    ddfnet(TASK, "train", "denoise", "--output=run", "--trainer.max_epochs=2", "--data.count=6")
    assert "filter.spatial.conv.weight" in weights(tmp_path / "run" / "model.safetensors")
