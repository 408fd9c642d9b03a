"""One reader for the files of this package and of other programs, behind every command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("safetensors")

import timm
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ddfnet import compat
from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models import DDFResNet
from ddfnet.models.classifier import create_classifier, load_classifier
from ddfnet.pretrained import load, parse_checkpoint, read, read_header
from tests.guided_networks import network as guided_network
from tests.official_networks import official_resnet

NAME, SHAPE = "small_resnet23", {"layers": [1, 1, 1], "channels": [2, 2, 4]}


def classifier() -> nn.Module:
    return create_classifier(NAME, 3, SHAPE).eval()


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timm_checkpoint(folder: Path, network: nn.Module, average: nn.Module | None = None, **options: Any) -> Path:
    """Write a checkpoint with timm's own class, as its ``train.py`` does."""
    given = {"model": NAME, "num_classes": 3, "in_chans": None, "input_size": None, "gp": None, "img_size": None}
    given |= {"crop_pct": None, "interpolation": "", "mean": None, "std": None, "model_kwargs": SHAPE, "lr": 0.1}
    saver = CheckpointSaver(
        network,
        torch.optim.SGD(network.parameters(), 0.1, momentum=0.9),
        args=argparse.Namespace(**{**given, **options}),
        model_ema=average,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
    )
    saver.save_checkpoint(3, metric=71.5)
    return folder / "checkpoint-3.pth.tar"


# --- timm's train.py --------------------------------------------------------------------------------------------------


def test_every_reader_takes_a_checkpoint_of_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = classifier()
    file, out = timm_checkpoint(tmp_path, network), tmp_path / "out.safetensors"
    assert same(load(file).state_dict(), network.state_dict())
    assert same(DDFResNet.from_pretrained(file).state_dict(), network.state_dict())
    assert main(["convert", str(file), str(out)]) == 0
    assert same(load(out, "classification").state_dict(), network.state_dict())
    header = read_header(out)
    assert header.init_args == {"name": NAME, "num_classes": 3, "options": SHAPE}
    assert header.extra["provenance"]["mapping"] == "timm's train.py"
    assert header.extra["preprocessing"] == {
        "size": 32,
        "crop_pct": 1.0,
        "eval_interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert main(["export", str(file), "--format", "pt2", "-o", str(tmp_path / "a.pt2")]) == 0
    captured = capsys.readouterr()
    assert "note" not in captured.out and not captured.err


def test_the_average_is_taken_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = classifier()
    average = ModelEmaV3(network)
    for value in average.module.parameters():
        value.data.add_(1)
    file, out = timm_checkpoint(tmp_path, network, average), tmp_path / "out.safetensors"
    assert same(load(file).state_dict(), average.module.state_dict())
    assert main(["convert", str(file), str(out)]) == 0
    said = "the averaged weights are taken, state_dict_ema"
    assert f"note: {said}\n" in capsys.readouterr().out
    assert read_header(out).extra["provenance"]["note"] == said
    assert main(["export", str(file), "--format", "pt2", "-o", str(tmp_path / "a.pt2")]) == 0
    assert f"note: {said}\n" in capsys.readouterr().out


def test_the_options_of_timm_s_training_are_kept(tmp_path: Path) -> None:
    network = create_classifier(NAME, 4, {**SHAPE, "in_chans": 1, "global_pool": "max"})
    options = {"num_classes": 4, "input_size": [1, 28, 28], "gp": "max", "mean": [0.5], "std": [0.25], "crop_pct": 0.9}
    file, out = timm_checkpoint(tmp_path, network, **options, interpolation="bilinear"), tmp_path / "out.safetensors"
    assert main(["convert", str(file), str(out)]) == 0
    header = read_header(out)
    assert header.init_args["options"] == {"in_chans": 1, "global_pool": "max", **SHAPE}
    assert header.extra["preprocessing"] == {
        "size": 28,
        "crop_pct": 0.9,
        "eval_interpolation": "bilinear",
        "mean": [0.5],
        "std": [0.25],
    }


def test_an_option_of_timm_s_training_that_reads_elsewhere_is_refused(tmp_path: Path) -> None:
    file = timm_checkpoint(tmp_path, classifier(), model_kwargs={**SHAPE, "checkpoint_path": "/etc/passwd"})
    with pytest.raises(ValueError, match="its option checkpoint_path is none that a file may have; build the network"):
        load(file)
    assert main(["convert", str(file), str(tmp_path / "out.safetensors")]) == 1


# --- what was around the network --------------------------------------------------------------------------------------


def wrap(prefix: str, state: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {**{f"{prefix}{name}": value for name, value in state.items()}, **others}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "state_dict_ema"])
def test_prefixes_are_dropped(prefix: str, key: str | None) -> None:
    state = classifier().state_dict()
    wrapped = wrap(prefix, state)
    checkpoint = wrapped if key is None else {key: wrapped, "epoch": 3}
    content = parse_checkpoint(checkpoint)
    assert same(content.weights, state) and content.header is None
    assert (content.note is None) == (key != "state_dict_ema")


def test_an_averaged_model_of_torch_and_a_compiled_layer() -> None:
    network = classifier()
    assert same(parse_checkpoint(AveragedModel(network).state_dict()).weights, network.state_dict())
    inner = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in network.state_dict().items()}
    assert same(parse_checkpoint(inner).weights, network.state_dict())


def test_a_file_of_another_lightning_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = timm.create_model("ddf_mul_resnet18", num_classes=5)
    state = wrap("net.body.", network.state_dict(), **{"accuracy.correct": torch.tensor(3)})
    file, out = tmp_path / "epoch=3.ckpt", tmp_path / "out.safetensors"
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 0.1, "arch": "mine"}, "epoch": 3}, file)
    assert main(["convert", str(file), str(out)]) == 1
    assert "nothing in it says which network it is of; give --network" in capsys.readouterr().err
    assert main(["convert", str(file), str(out), "--network", "ddf_mul_resnet18"]) == 0
    assert same(load(out).state_dict(), network.state_dict()) and load(out).num_classes == 5
    for words in (["export", str(file)], ["upsample", str(file), "--guide", str(file), "-o", str(tmp_path / "a.png")]):
        assert main(words) == 1
    with pytest.raises(ValueError, match=r"which network it is of; `ddfnet convert FILE OUT --network NAME`"):
        load(file)
    with pytest.raises(ValueError, match=r"which network it is of; `ddfnet convert FILE OUT --network NAME`"):
        GuidedUpsampler.from_pretrained(file)


def test_official_weights_in_a_checkpoint_of_timm(tmp_path: Path) -> None:
    official = official_resnet((3, 4, 6, 3), 3)
    file = timm_checkpoint(tmp_path, official, model="ddf_mul_resnet50", model_kwargs={})
    assert read(file).program == "timm"
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(load(file)(x), official(x), rtol=1e-3, atol=1e-3)


def test_a_file_of_the_package_by_its_class(tmp_path: Path) -> None:
    made = guided_network(4)
    made.save_pretrained(tmp_path)
    assert same(GuidedUpsampler.from_pretrained(tmp_path / "model.safetensors").state_dict(), made.state_dict())
    with pytest.raises(ValueError, match="options are for folders and hub ids, got scale_factor"):
        GuidedUpsampler.from_pretrained(tmp_path / "model.safetensors", scale_factor=2)
    with pytest.raises(ValueError, match="its kind is 'depth'"):
        DDFResNet.from_pretrained(tmp_path / "model.safetensors")


# --- what it cannot take ----------------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


def program(file: Path) -> None:
    with pytest.warns():
        torch.jit.script(nn.Linear(2, 2)).save(file)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "code": (lambda file: torch.save({"state_dict": Trap()}, file), "got the code "),
    "a module": (lambda file: torch.save(nn.Linear(2, 2), file), "got the code torch.nn.modules.linear.Linear; save"),
    "a program": (program, "got a TorchScript program; save its state dict again, with safetensors.torch.save_file"),
    "text": (lambda file: file.write_bytes(b"no weights"), "it must hold weights that torch.save wrote, got none"),
    "nothing": (lambda file: file.touch(), ""),
    "a list": (lambda file: torch.save([1], file), "a checkpoint must hold a dict of names and tensors, got list"),
    "no weights": (lambda file: torch.save({"epoch": 3}, file), "it must have weights under state_dict_ema, "),
    "a number": (
        lambda file: torch.save({"state_dict": {"a": 3}}, file),
        "its weights must be tensors by name, got int for 'a'",
    ),
    "a header": (lambda file: torch.save({"header": 3, "state_dict": {}}, file), "its header must be a dictionary"),
}


@pytest.mark.parametrize(("write", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_take_is_one_line_without_advice(tmp_path: Path, write: Any, problem: str) -> None:
    file = tmp_path / "ddf_mul_resnet18.pth"
    write(file)
    for call in (load, compat.load_official, lambda name: load_classifier(name, "ddf_mul_resnet18"), read_header):
        with pytest.raises(ValueError) as raised:
            call(file)
        line = str(raised.value)
        assert problem in line and line.startswith(f"{file}: ") and "\n" not in line and "\033" not in line
        assert "can still be loaded" not in line and "weights_only" not in line


def test_a_header_of_the_length_of_a_book_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, file, {"kind": json.dumps("depth"), "init_args": "9" * 2**21})
    with pytest.raises(ValueError, match="its header's init_args must be at most 1048576 characters, got 2097152"):
        load(file)


def test_a_damaged_file_does_not_steer_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    made = guided_network(2)
    header = {"kind": json.dumps("depth"), "init_args": json.dumps(made.init_args)}
    save_file({**made.state_dict(), "\033[2J\r\u2028x": torch.ones(1)}, file, header)
    with pytest.raises(ValueError, match=r"the weights do not fit this GuidedUpsampler: \?\[2J\?\?x is unknown"):
        load(file)
