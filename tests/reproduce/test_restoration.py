"""Study of restoration: its degradations, its networks at equal costs, and its scores."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("torchmetrics")

from reproduce.restoration import collect, images, networks, train


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_has_its_deviation() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    noise = images.gaussian(grey, generator()) - grey
    assert noise.std().item() * 255 == pytest.approx(25, rel=0.02)
    assert abs(noise.mean().item()) * 255 < 0.5


def test_a_cameras_noise_grows_with_the_light() -> None:
    values = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1).expand(2, 3, 64, 64)
    darker, lighter = (images.camera(each.expand(64, 3, 32, 32), generator()) ** 2.2 for each in values[:, :, :1, :1])
    assert darker.var() > 0 and lighter.var() > darker.var()
    assert darker.min() >= 0 and lighter.max() <= 1


def test_a_reduction_is_of_eight_bits() -> None:
    small = images.reduced(torch.rand(1, 3, 32, 48), generator())
    assert small.shape == (1, 3, 8, 12)
    torch.testing.assert_close((small * 255).round() / 255, small)


@pytest.mark.parametrize("name", images.TASKS)
def test_batches_are_windows_and_the_same_for_a_seed(name: str) -> None:
    task, photos = images.TASKS[name], [torch.randint(256, (3, 100, 120), dtype=torch.uint8)]
    first, again = (next(images.batches(photos, task, 2, seed=3)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[1].shape == (2, 3, task.window, task.window)
    assert first[0].shape == (2, 3, task.window // task.factor, task.window // task.factor)


@pytest.mark.parametrize("equal", ["macs", "parameters"])
@pytest.mark.parametrize("mixer", ["convolution", "depthwise"])
def test_costs_are_equal(mixer: str, equal: str) -> None:
    goal = networks.costs("ddf", networks.WIDTH, 1)[equal]
    assert networks.costs(mixer, networks.width(mixer, 1, equal), 1)[equal] == pytest.approx(goal, rel=0.06)


@pytest.mark.parametrize("mixer", networks.MIXERS)
@pytest.mark.parametrize("factor", [1, 4])
def test_networks_begin_near_the_image_and_train(mixer: str, factor: int) -> None:
    torch.manual_seed(0)
    network, x = networks.Restorer(mixer, 8, factor), torch.rand(1, 3, 9, 10)
    result = network(x)
    assert result.shape == (1, 3, 9 * factor, 10 * factor)
    result.square().sum().backward()
    assert network.head.weight.grad.any() and network.blocks[0].last.weight.grad.any()


def test_images_that_choose_are_none_that_train(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for number in range(30):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "PNG")
            member = tarfile.TarInfo(f"imagenette/train/class/{number:02}.png")
            member.size = stream.tell()
            archive.addfile(member, io.BytesIO(stream.getvalue()))
    path = str(tmp_path / "images.tar")
    trained, others = images.imagenette(path, "train", 12), images.imagenette(path, "train", 5, beside=12)
    numbers, other = ({int(image[0, 0, 0]) for image in each} for each in (trained, others))
    assert (len(numbers), len(other)) == (12, 5) and not numbers & other
    assert min(numbers) < 3 and max(numbers) > 26, "the last classes train too"


def test_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "HERE", tmp_path)
    (tmp_path / "runs").mkdir()
    for mixer, seed, psnr in (("ddf", 0, 28.0), ("ddf", 1, 28.2), ("depthwise", 0, 27.5), ("depthwise", 1, 27.9)):
        scores = {"psnr": psnr, "ssim": 0.8}
        facts = {"task": "noise-25", "mixer": mixer, "equal": "macs", "seed": seed, "steps": 9, "channels": 48}
        facts |= {"parameters": 50000, "macs": 70000000, "seconds": 3, "loss": [0.1], "validate": False, "machine": {}}
        facts |= {"imagenette": scores, "photographs": scores}
        (tmp_path / "runs" / f"{mixer}-{seed}.json").write_text(json.dumps(facts))
    collect.main(str(tmp_path / "runs"))
    text = (tmp_path / "table.md").read_text()
    assert "## Noise of deviation 25, equal multiply-accumulates" in text
    assert "| depthwise convolution | 48 | 50.0 | 70.0 | 2 | 27.70 ± 0.28 | 0.8000 | +0.40 ± 0.10 |" in text


def test_scores_of_an_image_that_is_not_degraded() -> None:
    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 10 / 255

    task = images.Task(lambda clean, _: clean, 1, 32)
    photo = torch.randint(200, (3, 40, 44), dtype=torch.uint8)
    found = train.measure(Same(), [photo], task)  # type: ignore[arg-type]
    assert found["psnr"] == pytest.approx(20 * torch.tensor(25.5).log10().item(), abs=1e-3)
    assert 0.9 < found["ssim"] < 1
