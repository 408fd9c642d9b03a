"""`ddfnet train`: a run from end to end, an interrupted and resumed one, and every wrong use."""

from __future__ import annotations

import csv
import json
import os
import platform
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

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from safetensors.torch import load_file

from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import load
from tests import killing
from tests.stderr import lines
from tests.torchrun import torchrun
from tests.training_runs import command, losses, same, threads  # noqa: F401  (threads is a fixture)

Fails = Callable[..., str]

SMALL = {
    "model.network.scale_factor": 4,
    "model.network.channels": 8,
    "model.network.guide_channels": 8,
    "model.factors": "[2,4]",
    "model.warmup_steps": 1,
    "data.size": 32,
    "data.batch_size": 2,
    "data.validation_scenes": 2,
    "trainer.max_steps": 6,
    "trainer.val_check_interval": 2,
    "trainer.log_every_n_steps": 1,
    "checkpoint.every_n_train_steps": 3,
    "threads": 1,
}


def arguments(output: Path, **others: Any) -> list[str]:
    return command("depth", SMALL | {"output": output}, **others)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("work")
    before, here = set(folder.iterdir()), Path.cwd()
    os.chdir(folder)
    try:
        status = main(arguments(Path("runs/small")))
    finally:
        os.chdir(here)
    output = folder / "runs" / "small"
    left = {path.name for path in set(folder.iterdir()) - before}
    return SimpleNamespace(
        status=status, output=output, left=left, card=json.loads((output / "model.json").read_text())
    )


def test_it_ends_well_and_leaves_one_folder(unbroken: SimpleNamespace) -> None:
    assert unbroken.status == 0
    assert unbroken.left == {"runs"}, "such as lightning_logs"
    names = {path.name for path in unbroken.output.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {"checkpoints", "config.yaml", "csv", "hparams.yaml", "model.json", "model.safetensors"}
    assert {path.name for path in (unbroken.output / "checkpoints").iterdir()} == {"step=6.ckpt", "last.ckpt"}


def test_the_network_is_read_back(unbroken: SimpleNamespace) -> None:
    network = load(unbroken.output / "model.safetensors", GuidedUpsampler)
    assert network.scale_factor == 4 and network.init_args["channels"] == 8
    averaged = load(unbroken.output / "checkpoints" / "last.ckpt", GuidedUpsampler).state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(averaged[name], value, rtol=0, atol=0)
    current = torch.load(unbroken.output / "checkpoints" / "last.ckpt")["current_model_state"]
    assert any(not torch.equal(current["network." + name], value) for name, value in network.state_dict().items())


def test_the_card_says_what_made_it(unbroken: SimpleNamespace) -> None:
    card = unbroken.card
    assert (card["steps"], card["seed"], card["factors"]) == (6, 0, [2, 4])
    assert card["command"].startswith("ddfnet train depth --model.network.scale_factor=4")
    assert card["machine"]["torch"] == torch.__version__ and "commit" in card["machine"]
    assert 0 < card["metrics"]["ratio_x2"] < 2 and 0 < card["metrics"]["ratio_x4"] < 2
    assert 0 <= card["metrics"]["dead_units"] < 1
    assert card["config"]["model"]["learning_rate"] == 1e-3, "what was left to its default"
    [segment] = card["segments"]
    assert (segment["first_step"], segment["last_step"], segment["seed"]) == (0, 6, 0)
    assert card["seconds"] == segment["seconds"] > 0
    assert card["parameters"] == sum(p.numel() for p in load_file(unbroken.output / "model.safetensors").values())


def test_the_logs_have_losses_ratios_and_images(unbroken: SimpleNamespace) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [file] = (unbroken.output / "csv").glob("*/metrics.csv")
    rows = list(csv.DictReader(file.open()))
    assert sum(bool(row["loss"]) for row in rows) == 6
    assert sum(bool(row["ratio_x4"]) for row in rows) == 4  # three in training and the last
    events = EventAccumulator(str(unbroken.output), {"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"loss", "ratio_x2", "ratio_x4", "dead_units", "learning_rate"} <= set(tags["scalars"])
    images = events.Images("x4: guide, low, bilinear, network, truth")
    assert (images[0].width, images[0].height) == (5 * 32, 2 * 32)


def test_broken_off_and_resumed_it_ends_with_the_same_weights(
    unbroken: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.tasks.depth.module import GuidedDepth

    step = GuidedDepth.training_step

    def broken(self: GuidedDepth, batch: Any, index: int) -> Any:
        if self.global_step == 4:
            raise KeyboardInterrupt
        return step(self, batch, index)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(GuidedDepth, "training_step", broken)
        assert main(arguments(output)) == 130
    assert not (output / "model.safetensors").exists()
    assert {path.name for path in (output / "checkpoints").iterdir()} == {"step=3.ckpt", "last.ckpt"}
    [kept] = torch.load(output / "checkpoints" / "last.ckpt")["segments"]
    assert main(["train", "depth", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken.output / "model.safetensors")
    assert "Traceback" not in capsys.readouterr().err
    card = json.loads((output / "model.json").read_text())
    first, second = card["segments"]
    assert first == kept and (first["first_step"], first["last_step"]) == (0, 3)
    assert (second["first_step"], second["last_step"]) == (3, 6)
    assert card["seconds"] == pytest.approx(first["seconds"] + second["seconds"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, strategy: str) -> None:
    """Compare full and sharded weights."""
    options = {"data__workers": 0, "trainer__precision": "32-true", "trainer__accelerator": "cpu"}
    assert main(arguments(tmp_path / "one", **options)) == 0
    torchrun(arguments(tmp_path / "two", **options, trainer__strategy=strategy))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 6 and two == pytest.approx(one, abs=1e-4) and max(one) - min(one) > 0.01
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-4)


def strategy_of(tmp_path: Path, **options: object) -> Any:
    from ddfnet.cli import lightning_cli
    from ddfnet.tasks import TASKS

    _, task, *words = arguments(tmp_path / "run", trainer__accelerator="cpu", **options)
    return lightning_cli.build(TASKS[task], words).trainer.strategy


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_ddp_looks_for_what_a_step_leaves_out(tmp_path: Path, strategy: str) -> None:
    made = strategy_of(tmp_path, trainer__devices=2, trainer__strategy=strategy)
    assert made._ddp_kwargs["find_unused_parameters"]


def test_so_it_does_with_one_process_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (said | {"GROUP_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    assert strategy_of(tmp_path)._ddp_kwargs["find_unused_parameters"]


def test_one_process_is_no_ddp(tmp_path: Path) -> None:
    assert isinstance(strategy_of(tmp_path, trainer__devices=1), SingleDeviceStrategy)


def test_another_seed_gives_other_weights(unbroken: SimpleNamespace, tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", seed_everything=1)) == 0
    assert not same(tmp_path / "run" / "model.safetensors", unbroken.output / "model.safetensors")


OTHERWISE = (
    "The same batches would lead to the same end: resume with another --seed_everything, or start again with a lower "
    "--model.learning_rate"
)


@pytest.mark.parametrize(("moment", "number"), [(killing.at_step, 4), (killing.at_save, 3)])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    unbroken: SimpleNamespace, tmp_path: Path, moment: killing.Moment, number: int
) -> None:
    output = tmp_path / "run"
    assert killing.run(arguments(output, data__workers=0), moment, number) == -signal.SIGKILL
    assert torch.load(output / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert main(["train", "depth", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken.output / "model.safetensors")
    assert not list(output.rglob(".*.part"))


def test_sigterm_ends_it_after_the_step_with_143(unbroken: SimpleNamespace, tmp_path: Path) -> None:
    """By Lightning's own handler, so that its callbacks are told and nothing is half done."""
    output = tmp_path / "run"
    assert killing.run(arguments(output, data__workers=0), killing.terminate_at_step, 4) == 143
    assert torch.load(output / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert not list(output.rglob(".*.part"))
    assert main(["train", "depth", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert same(output / "model.safetensors", unbroken.output / "model.safetensors")


def test_a_loss_that_is_not_a_number_stops_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.tasks.depth.module import GuidedDepth

    levels = GuidedDepth.levels

    def broken(self: GuidedDepth, batch: Any, *others: Any) -> Any:
        if self.trainer.training and self.global_step == 4 and self.seed == 0:
            with torch.no_grad():
                self.network.target[0].weight.fill_(torch.nan)
        return levels(self, batch, *others)

    monkeypatch.setattr(GuidedDepth, "levels", broken)
    output = tmp_path / "run"
    last = output / "checkpoints" / "last.ckpt"
    again = ["train", "depth", "--config", str(output / "config.yaml"), "--ckpt_path", "last"]
    for words in (arguments(output), again):  # a run that is resumed unchanged ends in the same way
        assert main(words) == 1
        [line] = lines(capsys.readouterr().err)
        assert line == f"ddfnet: error: the loss of step 4 is nan; the last good checkpoint is {last}. {OTHERWISE}"
        assert load(last, GuidedUpsampler)
    assert main([*again, "--seed_everything=1"]) == 0
    card = json.loads((output / "model.json").read_text())
    assert [(own["last_step"], own["seed"]) for own in card["segments"]] == [(3, 0), (6, 1)]


def test_weights_that_are_not_numbers_take_no_good_checkpoints_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.tasks.depth.module import GuidedDepth

    step = GuidedDepth.training_step

    def broken(self: GuidedDepth, batch: Any, index: int) -> Any:
        loss = step(self, batch, index)
        if self.global_step == 5:  # a checkpoint is due after it
            loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    monkeypatch.setattr(GuidedDepth, "training_step", broken)
    output = tmp_path / "run"
    assert main(arguments(output)) == 1
    [line] = lines(capsys.readouterr().err)
    last = output / "checkpoints" / "last.ckpt"
    good = f"the last good checkpoint is {last}"
    assert line == f"ddfnet: error: the weights are nan or inf after step 6; {good}. {OTHERWISE}"
    saved = torch.load(last)
    assert saved["global_step"] == 3
    assert all(value.isfinite().all() for value in saved["current_model_state"].values())
    assert main(arguments(tmp_path / "other", checkpoint__every_n_train_steps=100)) == 1  # nor do they make a network
    assert capsys.readouterr().err.endswith(f"after step 6; there was no checkpoint yet. {OTHERWISE}\n")
    assert main(arguments(tmp_path / "weights", checkpoint__save_weights_only=True)) == 1  # no callback is asked
    last = tmp_path / "weights" / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err.endswith(f"the last good checkpoint is {last}. {OTHERWISE}\n")
    assert all(value.isfinite().all() for value in torch.load(last)["state_dict"].values())
    assert not list(tmp_path.glob("*/model.safetensors"))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, full_disk: None, fails: Fails) -> None:
    folder = tmp_path / "run" / "checkpoints"
    assert fails(1, *arguments(tmp_path / "run")) == (
        f"ddfnet: error: cannot write {folder / 'step=6.ckpt'}: No space left on device; "
        f"the last good checkpoint is {folder / 'last.ckpt'}"
    )
    assert load(folder / "last.ckpt", GuidedUpsampler)
    assert torch.load(folder / "last.ckpt")["global_step"] == 3
    assert {path.name for path in folder.iterdir()} == {"step=3.ckpt", "last.ckpt"}, "nothing half"


def test_a_full_disk_at_the_end_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    from ddfnet import files

    atomic_open = files.atomic_open

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    def full_for_networks(path: Path) -> Any:
        if path.suffix == ".safetensors":
            monkeypatch.setattr("ddfnet.files.os.fsync", full)
        return atomic_open(path)

    monkeypatch.setattr(files, "atomic_open", full_for_networks)
    output = tmp_path / "run"
    last = output / "checkpoints" / "last.ckpt"
    assert fails(1, *arguments(output)) == (
        f"ddfnet: error: cannot write {output / 'model.safetensors'}: No space left on device; "
        f"the last good checkpoint is {last}"
    )
    assert not (output / "model.safetensors").exists()


@pytest.mark.parametrize("room", [0, 1000, 10_000])  # bytes; at 10 kB a few steps are logged
def test_a_full_disk_under_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], room: int
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, left = RecordWriter.write, [room]

    def limited(self: RecordWriter, data: bytes) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", limited)
    output = tmp_path / "run"
    assert main(arguments(output, checkpoint__every_n_train_steps=100)) == 1
    line = f"ddfnet: error: {output}: No space left on device; there was no checkpoint yet"
    assert [text for text in lines(capfd.readouterr().err) if "arn" not in text] == [line]


# --- wrong use ----------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run(unbroken: SimpleNamespace, fails: Fails) -> None:
    output = unbroken.output
    assert fails(1, *arguments(output)) == (
        f"ddfnet: error: {output} holds a run already; choose another --output, or continue it: --config "
        f"{output / 'config.yaml'} --ckpt_path last"
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--nothing=3", "unrecognized arguments: --nothing=3"),
        (
            "--model.learning_rate=fast",
            'Parser key "model.learning_rate": Not of type NonNegativeFloat: '
            "could not convert string to float: 'fast'",
        ),
        (
            "--model.weight_decay=-1",
            'Parser key "model.weight_decay": Not of type NonNegativeFloat: -1 does not conform to restriction v>=0',
        ),
        ("--config=/nowhere.yaml", "Parser key \"config\": File does not exist: '/nowhere.yaml'"),
        ("--trainer.max_steps=many", "Parser key \"trainer.max_steps\": Expected a <class 'int'>. Got value: many"),
    ],
)
def test_a_wrong_key_or_type(tmp_path: Path, fails: Fails, extra: str, message: str) -> None:
    line = fails(2, *arguments(tmp_path / "run"), extra)
    assert line == f"ddfnet train depth: error: {message} (see ddfnet train depth --help)"
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_in_the_file(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model:\n  learnin_rate: 0.1\n")
    line = fails(2, *arguments(tmp_path / "run"), f"--config={file}")
    assert line.startswith("ddfnet train depth: error: ") and "learnin_rate" in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model__factors", "[3]", "factors must be powers of two from 2 on, got [3]"),
        ("model__factors", "[8]", "factors must be at most the network's scale_factor, 4, got [8]"),
        ("data__size", 34, "size must be a multiple of the largest factor, 4, got 34"),
        ("data__size", 16, "length must be at least 1 and size at least 32, got length=2 and size=16"),
        ("trainer__max_steps", -1, "trainer.max_steps must be at least 1, got -1"),
        ("ema__decay", 1, "decay must be from 0 to below 1, got 1.0"),
        ("data__misalignment", ".nan", "misalignment must be pixels from 0 to the size, 32, got nan"),
        ("data__photographs", "[/nowhere]", "/nowhere: no such photograph or folder of photographs"),
        ("model__network__upsampler", "magic", "upsampler must be 'ddf' or 'bilinear', got 'magic'"),
    ],
)
def test_a_wrong_value(tmp_path: Path, fails: Fails, key: str, value: Any, message: str) -> None:
    assert fails(1, *arguments(tmp_path / "run", **{key: value})) == f"ddfnet: error: {message}"
    assert not list(tmp_path.iterdir())


def test_epochs_where_a_run_is_counted_in_steps(tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *arguments(tmp_path / "run", trainer__max_steps=-1, trainer__max_epochs=3))
    assert line == "ddfnet: error: trainer.max_steps must be at least 1, got -1"


def test_another_network(tmp_path: Path, fails: Fails) -> None:
    line = fails(2, *arguments(tmp_path / "run"), "--model.network=torch.nn.Identity")
    assert line.startswith('ddfnet train depth: error: Parser key "model.network"')
    assert not list(tmp_path.iterdir())


def test_no_output_folder(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "run"
    assert fails(1, *arguments(output)) == f"ddfnet: error: cannot write to the folder {output}: Not a directory"


def test_no_checkpoint_to_go_on_from(tmp_path: Path, fails: Fails) -> None:
    missing = tmp_path / "run" / "checkpoints" / "last.ckpt"
    line = fails(1, *arguments(tmp_path / "run", ckpt_path="last"))
    assert line == f"ddfnet: error: {missing}: no such checkpoint"


def test_a_broken_checkpoint(unbroken: SimpleNamespace, tmp_path: Path, fails: Fails) -> None:
    whole = (unbroken.output / "checkpoints" / "last.ckpt").read_bytes()
    broken = tmp_path / "broken.ckpt"
    for content in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        broken.write_bytes(content)
        line = fails(1, *arguments(tmp_path / "run", ckpt_path=broken))
        assert line.startswith(f"ddfnet: error: {broken} is no checkpoint, or a broken one")
    for held in ([1, 2], {}, {"state_dict": [1, 2]}, {"state_dict": {"network.a": 1}}):
        torch.save(held, broken)
        line = fails(1, *arguments(tmp_path / "run", ckpt_path=broken))
        assert line.startswith(f"ddfnet: error: {broken} is no checkpoint, or a broken one")


def test_weights_alone(unbroken: SimpleNamespace, tmp_path: Path, fails: Fails) -> None:
    weights = unbroken.output / "model.safetensors"
    assert fails(1, *arguments(tmp_path / "run", ckpt_path=weights)) == (
        f"ddfnet: error: {weights} has weights alone; resume from one of the run's checkpoints, *.ckpt"
    )
    saved = torch.load(unbroken.output / "checkpoints" / "last.ckpt")
    file = tmp_path / "weights.ckpt"
    torch.save({"state_dict": saved["state_dict"], "callbacks": {}}, file)
    assert fails(1, *arguments(tmp_path / "run", ckpt_path=file)) == (
        f"ddfnet: error: {file} has no loops, optimizer_states, lr_schedulers; resume from a checkpoint that "
        "`ddfnet train` wrote"
    )


def test_a_checkpoint_of_another_model(unbroken: SimpleNamespace, tmp_path: Path, fails: Fails) -> None:
    file = unbroken.output / "checkpoints" / "last.ckpt"
    classifier = tmp_path / "classifier.ckpt"
    torch.save(torch.load(file) | {"state_dict": {"network.stem.weight": torch.zeros(3)}}, classifier)
    for other, channels in ((file, 12), (classifier, 8)):
        line = fails(1, *arguments(tmp_path / "run", ckpt_path=other, model__network__channels=channels))
        assert line == (
            f"ddfnet: error: {other} is a checkpoint of another model; resume with its own run's config.yaml (--config)"
        )


def test_an_unknown_task(fails: Fails) -> None:
    assert "invalid choice: 'fly'" in fails(2, "train", "fly")


@pytest.mark.parametrize("words", [("train", "--help"), ("train", "depth", "--help")])
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "--output" in text and "--ckpt_path" in text


def test_the_allocator_is_set_in_a_process_of_the_commands_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.cli import train

    set_ = []
    monkeypatch.setattr(train, "keep_memory", lambda: set_.append(True))
    words = ["train", "depth", "--nothing=3"]
    assert main(words) == 2 and not set_
    monkeypatch.setattr(sys, "argv", ["ddfnet", *words])
    assert main() == 2 and set_ == [True]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept() -> None:
    """Large blocks come from the heap then, which the system counts, and not from a mapping each."""
    code = """
import ctypes, pathlib, re
from ddfnet.cli.train import keep_memory

assert keep_memory()
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
block = malloc(ctypes.c_size_t(1 << 28))
heap = re.search(r"([0-9a-f]+)-([0-9a-f]+) .*\\[heap\\]", pathlib.Path("/proc/self/maps").read_text())
assert int(heap[1], 16) <= block < int(heap[2], 16)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
