"""Depth task: its loss, its batches, and that it learns."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("cv2")
pytest.importorskip("skimage")

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.depth.samples import SAMPLES, reduce_maps
from ddfnet.errors import DataError
from ddfnet.pretrained import save
from ddfnet.tasks.depth import metrics
from ddfnet.tasks.depth.data import GuidedDepthData
from ddfnet.tasks.depth.metrics import Errors, bilinear, every
from ddfnet.tasks.depth.module import GuidedDepth
from ddfnet.tasks.depth.probes import DeadUnits
from ddfnet.training.callbacks import MovingAverage
from ddfnet.training.samplers import ResumableBatchSampler

SMALL: dict[str, Any] = {"size": 32, "batch_size": 2, "workers": 0, "validation_scenes": 2}


def network(scale_factor: int = 4) -> GuidedUpsampler:
    torch.manual_seed(0)
    return GuidedUpsampler(scale_factor, channels=8, guide_channels=8)


def maps(factor: int = 4, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a truth, its bilinear reconstruction, and a mask with holes."""
    truth = torch.rand(3, 1, size, size) + 0.5
    valid = torch.rand(3, 1, size, size) > 0.1
    return truth, bilinear(every(truth, factor), every(valid, factor), factor), valid


# --- errors and the loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_samples_stay_where_they_lie(factor: int) -> None:
    low = torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(every(bilinear(low, torch.ones_like(low, dtype=torch.bool), factor), factor), low)


def test_bilinear_scores_one_and_the_truth_scores_nothing() -> None:
    truth, baseline, valid = maps()
    ratio = Errors.measure(baseline, baseline, truth, valid).ratio()
    torch.testing.assert_close(ratio, torch.ones(3), atol=1e-4, rtol=0)
    perfect = Errors.measure(truth, baseline, truth, valid)
    assert perfect.ratio().max() == 0
    torch.testing.assert_close(perfect.loss(0.5), torch.full((3,), 1e-3))  # the root of 1e-6
    at_baseline = Errors.measure(baseline, baseline, truth, valid)
    torch.testing.assert_close(at_baseline.loss(0.5), torch.full((3,), 1.5), atol=5e-3, rtol=0)


def test_the_loss_is_the_formula() -> None:
    truth, baseline, valid = maps()
    depth = truth + 0.1 * torch.randn_like(truth)
    for index, loss in enumerate(Errors.measure(depth, baseline, truth, valid).loss(0.5)):
        t, b, d = (x[index][valid[index]] for x in (truth, baseline, depth))
        span = t.max() - t.min()
        squared = (d - t).square().mean() / ((b - t).square().mean() + 1e-6 * span**2)
        absolute = (d - t).abs().mean() / ((b - t).abs().mean() + 1e-3 * span)
        torch.testing.assert_close(loss, (squared + 1e-6).sqrt() + 0.5 * absolute)


def test_the_unit_does_not_matter() -> None:
    truth, baseline, valid = maps()
    depth = truth + 0.1 * torch.randn_like(truth)
    loss = Errors.measure(depth, baseline, truth, valid).loss(0.5)
    for scale in (1e-3, 1e4):
        scaled = Errors.measure(depth * scale, baseline * scale, truth * scale, valid)
        torch.testing.assert_close(scaled.loss(0.5), loss)


def test_what_is_not_valid_does_not_matter() -> None:
    truth, baseline, valid = maps()
    depth = truth + 0.1
    expected = Errors.measure(depth, baseline, truth, valid).loss(0.5)
    broken = torch.where(valid, truth, torch.nan)
    torch.testing.assert_close(Errors.measure(depth, baseline, broken, valid).loss(0.5), expected)


def test_pixels_that_are_not_known_do_not_count_but_knowing_nothing_is_no_success() -> None:
    truth, baseline, valid = maps()
    known = torch.rand_like(truth) > 0.5
    known[1] = False
    valid[2] = False
    depth = torch.where(known, truth + 0.1, 99)
    ratio = Errors.measure(depth, baseline, truth, valid, known).ratio()
    expected = Errors.measure(depth, baseline, truth, valid & known).ratio()
    assert ratio[0] == expected[0] > 0
    assert ratio[1].isnan()
    assert ratio[2] == 0


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_map_and_one_without_valid_pixels_are_finite(value: float) -> None:
    truth = torch.full((2, 1, 16, 16), value)
    depth = (truth + 1e-7 * value).requires_grad_()
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[1] = False
    loss = Errors.measure(depth, truth, truth, valid).loss(0.5)
    loss.sum().backward()
    assert loss.max() < 0.2  # rounding, no more
    assert torch.isfinite(depth.grad).all()


def test_stages_before_the_last_count_by_their_weight() -> None:
    module, data = GuidedDepth(network(), factors=(4,)), GuidedDepthData(**SMALL)
    batch = next(iter(data.val_dataloader()))
    errors, depth, baseline = module.levels(batch, 4)
    assert len(errors) == 2
    assert depth.shape == baseline.shape == batch["depth"].shape
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.optimizers = lambda: SimpleNamespace(param_groups=[{"lr": 0.0}])  # type: ignore[method-assign, assignment]
    half, full = (e.loss(0.5).mean() for e in errors)
    torch.testing.assert_close(module.training_step(batch, 0), full + 0.15 * half)


# --- which batches, which factor ----------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_with_the_next_batch() -> None:
    whole = ResumableBatchSampler(3, 5)
    assert len(whole) == 5 and torch.tensor(list(whole)).flatten().tolist() == list(range(15))
    rest = ResumableBatchSampler(3, 5, first_batch=2)
    assert len(rest) == 5, "Lightning counts those that were seen before"
    assert list(rest) == list(whole)[2:]


def test_ranks_share_a_batch() -> None:
    parts = [list(ResumableBatchSampler(2, 3, rank=rank, world_size=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == list(ResumableBatchSampler(4, 3))


@pytest.mark.parametrize(("ranks", "accumulated"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_processes_and_accumulated_batches_share_a_step(ranks: int, accumulated: int) -> None:
    """Step t has the scenes 8t to 8t + 7, however it is shared out; a run that goes on, the steps that are left."""

    def run(rank: int, step: int) -> Any:
        return SimpleNamespace(
            max_steps=3,
            accumulate_grad_batches=accumulated,
            world_size=ranks,
            global_rank=rank,
            global_step=step,
        )

    orders = [ResumableBatchSampler.from_trainer(run(rank, 1), 8) for rank in range(ranks)]
    steps = torch.tensor([list(order) for order in orders]).view(ranks, 2, -1).transpose(0, 1).flatten(1)
    assert steps.sort().values.tolist() == [list(range(8, 16)), list(range(16, 24))]
    assert orders[0].num_items == 24
    with pytest.raises(DataError, match="batch_size must be a multiple of 3, 3 processes times 1 accumulated batches"):
        ResumableBatchSampler.from_trainer(SimpleNamespace(world_size=3, accumulate_grad_batches=1), 8)


def test_factors_are_drawn_by_seed_and_step() -> None:
    modules = [GuidedDepth(network(16), seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([module.draw(step)[0] for step in range(300)] for module in modules)
    assert first == again != other
    assert all(70 < first.count(factor) < 130 for factor in (4, 8, 16))


def test_batches_depend_on_the_seed_and_the_step_alone() -> None:
    def batches(workers: int, step: int, seed: int = 0) -> list[Tensor]:
        data = GuidedDepthData(**{**SMALL, "workers": workers}, seed=seed)
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            max_steps=3, accumulate_grad_batches=1, world_size=1, global_rank=0, global_step=step
        )
        data.setup("fit")
        return [batch["guide"] for batch in data.train_dataloader()]

    whole = batches(0, 0)
    assert len(whole) == 3
    for rest in (batches(0, 1), batches(2, 1)):
        assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))
    assert not torch.equal(whole[0], batches(0, 0, seed=1)[0])
    validation = next(iter(GuidedDepthData(**SMALL).val_dataloader()))["guide"]
    assert not any(torch.equal(validation, batch) for batch in whole)


def test_rooms_and_composed_scenes_are_mixed(tmp_path: Path) -> None:
    for name, pixels in (("rgb", np.full((40, 50, 3), 77, np.uint8)), ("depth", np.full((40, 50), 2500, np.uint16))):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")

    def guides(composed: float) -> list[bool]:
        """Return for each sample of a run whether it is of the room, which is grey."""
        data = GuidedDepthData(**SMALL, rooms=str(tmp_path), composed=composed)
        assert (f"{composed:.0%} scenes composed" in data.description) is (composed > 0)
        assert f"the scenes of the folder {tmp_path.name}" in data.description
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            max_steps=8, accumulate_grad_batches=1, world_size=1, global_rank=0, global_step=0
        )
        data.setup("fit")
        assert not (next(iter(data.val_dataloader()))["guide"] == 77).all()
        return [bool((guide == 77).all()) for batch in data.train_dataloader() for guide in batch["guide"]]

    assert all(guides(0.0)) and not any(guides(1.0))
    assert 3 < sum(guides(0.5)) < 13
    assert "folder" not in GuidedDepthData(**SMALL).description
    with pytest.raises(DataError, match="this folder is required beside depth/"):
        GuidedDepthData(**SMALL, rooms=str(tmp_path / "none"))


def test_workers_are_forked_where_opencv_has_had_threads() -> None:
    code = f"""
import cv2, numpy
from ddfnet.tasks.depth.data import GuidedDepthData
cv2.setNumThreads(4)
cv2.GaussianBlur(numpy.zeros((2000, 2000, 3), numpy.float32), (0, 0), 3)  # starts OpenCV's threads
next(iter(GuidedDepthData(**{ {**SMALL, "workers": 1}!r}).val_dataloader()))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)  # it would wait for ever


# --- training -----------------------------------------------------------------------------------------------------


def trainer(folder: Path, steps: int, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        val_check_interval=steps,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )


class Recorder(lightning.Callback):
    """Keeps rates, losses and weights."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.weights: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        self.rates.append(float(trainer.callback_metrics["learning_rate"]))
        self.losses.append(float(outputs["loss"]))
        self.weights.append(module.network.target[0].weight.detach().clone())


def test_the_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    seen = Recorder()
    module = GuidedDepth(network(), factors=(4,), learning_rate=1e-3, warmup_steps=4)
    trainer(tmp_path, 10, seen).fit(module, GuidedDepthData(**SMALL))
    expected = [1e-3 * min(1, (t + 1) / 4) * (0.5 + 0.5 * math.cos(math.pi * t / 10)) for t in range(10)]
    assert seen.rates == pytest.approx(expected)


def test_the_average_is_the_formula(tmp_path: Path) -> None:
    seen = Recorder()
    module = GuidedDepth(network(), factors=(4,), learning_rate=1e-2, warmup_steps=0)
    trainer(tmp_path, 8, MovingAverage(0.5), seen).fit(module, GuidedDepthData(**SMALL))
    average = seen.weights[0].double()  # the first weights are the first average
    for step, weights in enumerate(seen.weights[1:], start=1):
        keep = min(0.5, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * weights
    torch.testing.assert_close(module.network.target[0].weight.detach(), average.float())
    assert not torch.equal(seen.weights[-1], average.float())


def test_it_learns_a_batch_by_heart(tmp_path: Path) -> None:
    module = GuidedDepth(network(), factors=(4,), learning_rate=1e-2, warmup_steps=5)
    batch = next(iter(GuidedDepthData(**SMALL).val_dataloader()))
    run = trainer(tmp_path, 120)
    again, once = (DataLoader([batch] * times, batch_size=None) for times in (120, 1))  # type: ignore[arg-type]
    [before] = run.validate(module, once, verbose=False)
    run.fit(module, again, once)
    [after] = run.validate(module, once, verbose=False)
    assert after["ratio_x4"] < 0.8 * before["ratio_x4"]


def test_the_log_image_shows_each_map_and_marks_the_range() -> None:
    data = GuidedDepthData(**SMALL)
    batch = next(iter(data.val_dataloader()))
    shown = metrics.sample_grid(batch, batch["depth"], batch["depth"], 4, 2)
    assert shown.shape == (3, 2 * 32, 5 * 32)
    torch.testing.assert_close(shown[:, :32, :32], batch["guide"][0] / 255)
    truth = shown[:, :32, -32:]
    assert truth.min() == 0 and truth.max() == 1
    torch.testing.assert_close(shown[:, :32, 32 + 1], truth[:, 1::4, 1].repeat_interleave(4, 1))  # low, its own samples


def test_dead_units_are_counted() -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.LeakyReLU(0.1))
    with torch.no_grad():
        layer[0].bias[0] = -100  # never positive
        layer[0].weight[1], layer[0].bias[1] = 0, 5.0  # always the same
    with DeadUnits(layer) as units:
        layer(torch.randn(2, 3, 16, 16))
    assert units.dead == {"1": (2, 4)}
    assert units.share() == 0.5 and units.layers() == {"1": 0.5}
    assert not layer[1]._forward_hooks


# --- wrong options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": ()}, "factors must be powers of two from 2 on, got []"),
        ({"factors": (3,)}, "factors must be powers of two from 2 on, got [3]"),
        ({"factors": (8,)}, "factors must be at most the network's scale_factor, 4, got [8]"),
        ({"factors": (4,), "learning_rate": -1.0}, "learning_rate must be finite and not negative, got -1.0"),
        ({"factors": (4,), "warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"factors": (4,), "weight_decay": -1.0}, "weight_decay must be finite and not negative, got -1.0"),
        ({"factors": (4,), "stage_weight": math.nan}, "stage_weight must be finite and not negative, got nan"),
        ({"factors": (4,), "absolute_weight": math.inf}, "absolute_weight must be finite and not negative, got inf"),
        ({"factors": (4,), "betas": (0.9, 1.0)}, "betas must be from 0 to below 1, got 1.0"),
        ({"factors": (4,), "seed": -1}, "seed must be from 0 to 4294967295, got -1"),
    ],
)
def test_wrong_options_of_the_module(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        GuidedDepth(network(), **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"size": 40}, "size must be a multiple of the largest factor, 16, got 40"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
        ({"validation_seed": -1}, "validation_seed must be from 0 to 4294967295, got -1"),
        ({"composed": 1.5}, "composed must be from 0 to 1, got 1.5"),
        ({"holes": math.nan}, "holes must be a share from 0 to below 1, got nan"),
        (
            {"seed": 7, "validation_seed": 7},
            "validation_seed must differ from seed, or training would see its scenes, got 7",
        ),
    ],
)
def test_wrong_options_of_the_data(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        GuidedDepthData(**{**SMALL, **options})
    assert str(error.value) == message


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_wrong_decay(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be from 0 to below 1"):
        MovingAverage(decay)


# --- ways of sampling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", SAMPLES)
def test_samples_are_taken_as_they_are_in_use(way: str) -> None:
    truth = torch.rand(2, 1, 32, 48) + 0.5
    low, valid = metrics.take(truth, torch.ones_like(truth, dtype=torch.bool), 4, way)
    expected = every(truth, 4) if way == "point" else reduce_maps(truth, 4, way)
    torch.testing.assert_close(low, expected)
    assert valid.all()


def test_an_average_is_that_of_the_valid_pixels_of_its_block() -> None:
    truth, valid = torch.rand(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    valid[..., :2, :4] = False  # half of the first block
    valid[..., :3, 4:] = False  # more than that of the second
    low, known = metrics.take(torch.where(valid, truth, torch.nan), valid, 4, "average")
    assert known.flatten().tolist() == [True, False, True, True]
    torch.testing.assert_close(low[0, 0, 0, 0], truth[0, 0, 2:4, :4].mean())


@pytest.mark.parametrize("way", SAMPLES[1:])
def test_bilinear_of_averages_puts_them_in_the_middle_of_their_blocks(way: str) -> None:
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    low, valid = metrics.take(ramp, torch.ones_like(ramp, dtype=torch.bool), 8, way)
    inside = slice(24, 40)
    result = bilinear(low, valid, 8, way)
    torch.testing.assert_close(result[..., inside, inside], ramp[..., inside, inside])


def test_each_step_draws_a_way() -> None:
    module = GuidedDepth(network(), (2, 4), SAMPLES)
    drawn = [module.draw(step) for step in range(300)]
    assert {way for _, way in drawn} == set(SAMPLES)
    assert [factor for factor, _ in drawn] == [GuidedDepth(network(), (2, 4)).draw(step)[0] for step in range(300)]


@pytest.mark.parametrize("way", SAMPLES[1:])
def test_it_learns_averages_by_heart(way: str) -> None:
    """Through the back-projection, whose errors are those of what the tool makes."""
    module = GuidedDepth(network(), (4,), (way,), learning_rate=1e-2)
    batch = next(iter(GuidedDepthData(**SMALL).val_dataloader()))
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        errors, depth, _ = module.levels(batch, 4, way)
        assert len(errors) == 1 and depth.shape == batch["depth"].shape
        losses.append(errors[-1].loss(0.5).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_a_training_begins_with_given_weights(tmp_path: Path) -> None:
    trained = network()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    save(trained, tmp_path / "a.safetensors")
    own = network()
    GuidedDepth(own, (4,), initial=str(tmp_path / "a.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), trained.parameters(), strict=True))
    with pytest.raises(DataError, match="must have the options of its weights, scale_factor = 4"):
        GuidedDepth(network(8), (4,), initial=str(tmp_path / "a.safetensors"))


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"samples must be some of point, average, bicubic, got \['mean'\]"):
        GuidedDepth(network(), (4,), ("mean",))
