"""Weights in half and in double precision, in all tasks: trained, resumed, and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("tensorboard")
pytest.importorskip("timm")
pytest.importorskip("webdataset")
pytest.importorskip("faster_coco_eval")

import lightning
import torch
from safetensors.torch import load_file
from torch import nn

from ddfnet.cli import lightning_cli
from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import load
from ddfnet.tasks import TASKS
from ddfnet.training.callbacks import MovingAverage
from ddfnet.training.precision import TRUE_PRECISIONS, at_least_float32, has_bfloat16, set_precision, weights_dtype
from tests.cli import test_train as depth
from tests.cli import test_train_classification as classification
from tests.cli import test_train_detection as detection
from tests.detection_folders import voc
from tests.training_runs import losses, same, threads  # noqa: F401  (threads is a fixture)

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    classification.write(folder / "train", 13)
    classification.write(folder / "val", 5)
    return folder


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voc(tmp_path_factory.mktemp("boxes") / "squares", {"train": 5, "val": 2})


@pytest.fixture(params=["classification", "detection", "depth"])
def task(request: pytest.FixtureRequest, images: Path, boxes: Path) -> tuple[str, Arguments]:
    """Return a task and the function of an output folder and options that makes its command line."""
    commands: dict[str, Arguments] = {
        "classification": lambda output, **others: classification.arguments(output, images, **others),
        "detection": lambda output, **others: detection.arguments(output, boxes, **others),
        "depth": depth.arguments,
    }
    return request.param, commands[request.param]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Arguments], list[float]]:
    """Return a function from a task to the losses of its run in float32."""
    known: dict[str, list[float]] = {}

    def losses_by_task(name: str, arguments: Arguments) -> list[float]:
        if name not in known:
            output = tmp_path_factory.mktemp("plain") / name
            assert main(arguments(output, trainer__precision="32-true", trainer__accelerator="cpu")) == 0
            known[name] = losses(output)
        return known[name]

    return losses_by_task


@pytest.mark.parametrize("precision", TRUE_PRECISIONS)
def test_a_run_a_resumed_one_and_their_evaluation(
    task: tuple[str, Arguments],
    plain: Callable[[str, Arguments], list[float]],
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: Path,
    boxes: Path,
) -> None:
    name, arguments = task
    options: dict[str, Any] = {"trainer__precision": precision, "trainer__accelerator": "cpu", "ema__decay": 0.9}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert main(arguments(whole, **options)) == 0
    expected = plain(name, arguments)
    assert losses(whole)[0] == pytest.approx(expected[0], rel=0.05)
    assert losses(whole) == pytest.approx(expected, rel=0.3)

    model = TASKS[name].training().module
    step: Any = model.training_step

    def broken(self: Any, batch: Any, index: int) -> Any:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(model, "training_step", broken)
        assert main(arguments(resumed, **options)) == 130
    assert main(["train", name, "--config", str(resumed / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(resumed / "model.safetensors", whole / "model.safetensors")

    weights = load_file(whole / "model.safetensors")
    assert TRUE_PRECISIONS[precision] in {value.dtype for value in weights.values()}
    saved = torch.load(whole / "checkpoints" / "last.ckpt")["state_dict"]
    averages = {value.dtype for value in saved.values() if value.is_floating_point()}
    assert not averages & {torch.float16, torch.bfloat16}, "the average is not in half precision"
    assert (precision == "64-true") == (torch.float64 in averages)

    files = [whole / "model.safetensors", whole / "checkpoints" / "last.ckpt"]
    if name == "depth":
        for file in files:
            result, _ = load(file, GuidedUpsampler)(torch.rand(1, 1, 8, 8), torch.rand(1, 3, 32, 32))
            assert result.dtype == torch.float32 and result.isfinite().all()
        return
    results = tmp_path / "results.json"
    data = ["--data", str(images)] if name == "classification" else ["--data", str(boxes), "--part", "val"]
    assert main(["evaluate", name, "--checkpoint", *map(str, files), *data, "--json", str(results)]) == 0
    first, _ = json.loads(results.read_text())["rows"]
    metrics = json.loads((whole / "model.json").read_text())["metrics"]
    if name == "classification":
        assert first["loss"] == pytest.approx(metrics["val_loss"], rel=0.02)
    else:
        assert first["precision"]["AP50"] == pytest.approx(metrics["AP50"], abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"carry": False, "norm": "filter"}, {"upsampler": "bilinear"}])
def test_the_depth_network_in_another_type(dtype: torch.dtype, options: dict[str, Any]) -> None:
    network = GuidedUpsampler(4, channels=8, guide_channels=8, **options)
    depth, guide = torch.rand(1, 1, 12, 12) + 5, torch.rand(1, 3, 48, 48)
    expected, _ = network(depth, guide)
    found, _ = network.to(dtype)(depth, guide)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.02)


@pytest.mark.parametrize(
    ("precision", "dtype", "left"),
    [
        (64, torch.float64, "32-true"),
        ("64", torch.float64, "32-true"),
        ("bf16-true", torch.bfloat16, "32-true"),
        ("bf16-mixed", torch.float32, "bf16-mixed"),
        (16, torch.float32, 16),
        (None, torch.float32, None),
    ],
)
def test_the_precision_that_is_left_to_lightning(precision: Any, dtype: torch.dtype, left: Any) -> None:
    holder = Holder(torch.float32)
    assert set_precision(holder, precision) == left and weights_dtype(holder.network) == dtype


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bw": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True, "avx512_bw": True}, True),
        ({"architecture": "x86_64", "avx2": True, "avx_ne_convert": True}, True),
        ({"architecture": "aarch64"}, True),
        ({}, True),
    ],
)
def test_which_cpus_have_bfloat16(capabilities: dict[str, Any], fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(torch.device("cpu")) is fast
    assert has_bfloat16(torch.device("meta")), "another device is not asked"


@pytest.mark.parametrize(("precision", "fast"), [("bf16-mixed", False), ("bf16-mixed", True), ("32-true", False)])
def test_a_cpu_without_bfloat16_is_named(
    precision: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lightning_cli, "has_bfloat16", lambda device: fast)
    assert main(depth.arguments(tmp_path / "run", trainer__precision=precision, trainer__max_steps=1)) == 0
    noted = "this CPU has no fast bfloat16; --trainer.precision 32-true" in capsys.readouterr().err
    assert noted is (precision == "bf16-mixed" and not fast)


class Holder(lightning.LightningModule):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = nn.Linear(3, 2, dtype=dtype)


@pytest.mark.parametrize("dtype", TRUE_PRECISIONS.values())
def test_an_average_moves_by_less_than_a_half_type_can_show(dtype: torch.dtype) -> None:
    """Average weights that jump from 1 to 1.01 for a thousand steps: one step moves it by 0.002 of that."""

    class Run:
        strategy, global_step = None, 0

    holder, run, average = Holder(dtype), Run(), MovingAverage(0.998)
    nn.init.ones_(holder.network.weight)
    average.setup(run, holder, "fit")
    nn.init.constant_(holder.network.weight, 1.01)
    target = holder.network.weight[0, 0].double()
    expected = torch.tensor(1.0, dtype=torch.float64)
    for number in range(1, 1001):
        run.global_step = number
        average.on_train_batch_end(run, holder, None, None, 0)
        keep = min(0.998, (1 + number - 1) / (10 + number - 1)) if number > 1 else 0.0
        expected = keep * expected + (1 - keep) * target
    assert average._average_model is not None
    found = average._average_model.module.network.weight
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    before = found.clone()
    average.on_validation_epoch_start(run, holder)
    torch.testing.assert_close(holder.network.weight, before.to(dtype))
    average.on_validation_epoch_end(run, holder)
    assert torch.equal(average._average_model.module.network.weight, before)
    torch.testing.assert_close(
        at_least_float32(holder.network.weight), torch.full((2, 3), float(target)).to(found.dtype)
    )
