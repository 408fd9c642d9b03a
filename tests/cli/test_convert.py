"""`ddfnet convert`: official weights and checkpoints of trainings to files that every command reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("safetensors")

import timm
import torch
from safetensors import safe_open
from torch import nn

import ddfnet
from ddfnet.cli.main import main
from ddfnet.models.classifier import create_classifier
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import header_of, load, read_header
from ddfnet.pretrained import save as save_network
from tests.guided_networks import network as guided_network
from tests.official_networks import LAYERS, official_resnet

Fails = Callable[..., str]
MADE_OF = {"name": "small_resnet23", "num_classes": 3, "options": {"layers": [1, 1, 1], "channels": [2, 2, 4]}}
PREPROCESSING = {"size": 32, "mean": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def official() -> nn.Module:
    return official_resnet(LAYERS[50], num_classes=7)


@pytest.fixture
def checkpoint(official: nn.Module, tmp_path: Path) -> Path:
    file = tmp_path / "ddf_add_resnet50-224.pth.tar"
    torch.save({"epoch": 130, "state_dict": official.state_dict()}, file)
    return file


def header(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as stream:
        return {name: json.loads(value) for name, value in stream.metadata().items()}


def test_official_weights(official: nn.Module, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = checkpoint.parent / "ours.safetensors"
    assert main(["convert", str(checkpoint), str(out)]) == 0
    millions = sum(parameter.numel() for parameter in official.parameters()) / 1e6
    assert capsys.readouterr() == (f"{out}: DDFResNet, {millions:.2f} M parameters\n", "")
    assert {path.name for path in checkpoint.parent.iterdir()} == {checkpoint.name, out.name}

    said = header(out)
    assert said["kind"] == "classification"
    assert said["init_args"] == {"name": "ddf_add_resnet50", "num_classes": 7, "options": {}}
    provenance = said["provenance"]
    age = datetime.now(timezone.utc) - datetime.fromisoformat(provenance.pop("date"))
    assert timedelta(seconds=-1) <= age < timedelta(minutes=5)
    assert provenance == {
        "source": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "ddfnet": ddfnet.__version__,
        "mapping": "ddfnet.compat.load_official",
    }

    network = load(out)
    assert said["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    timm_network = timm.create_model(
        "ddf_add_resnet50", pretrained=True, pretrained_cfg_overlay={"file": str(out), "num_classes": 7}
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(network(x), timm_network(x))
    for stage in (official.layer1, official.layer2, official.layer3, official.layer4):
        for block in stage:
            block.conv2.kernel_combine = "add"
    torch.testing.assert_close(network(x), official(x), rtol=1e-4, atol=1e-4)


def classification(file: Path) -> nn.Module:
    network = create_classifier(**MADE_OF)  # type: ignore[arg-type]
    save(file, network, header={"kind": "classification", "init_args": MADE_OF, "preprocessing": PREPROCESSING})
    return network


def depth(file: Path) -> nn.Module:
    network = guided_network(4)
    save(file, network, header=header_of(network).as_dict())
    return network


def detection(file: Path) -> nn.Module:
    network = Detector(["red"], "mobilenetv3_small_050", width=16, head_width=32)
    save(file, network, header=header_of(network).as_dict())
    return network


def save(file: Path, made: nn.Module, **others: Any) -> None:
    """Write a checkpoint as Lightning does."""
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    torch.save({**others, "state_dict": {**state, "metric": torch.ones(1)}, "epoch": 3}, file)


@pytest.mark.parametrize("task", [classification, depth, detection], ids=lambda task: task.__name__)
def test_checkpoints_of_a_training(task: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "last.ckpt", tmp_path / "out.safetensors"
    network = task(file)
    assert main(["convert", str(file), str(out)]) == 0
    loaded = load(out).state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    assert header(out)["kind"] == task.__name__
    assert header(out)["provenance"]["mapping"] == "ddfnet train"
    if task is classification:
        assert header(out)["preprocessing"] == PREPROCESSING


# --- what is wrong --------------------------------------------------------------------------------------------------


def test_wrong_use(fails: Fails, checkpoint: Path) -> None:
    out = str(checkpoint.parent / "ours.safetensors")
    assert fails(1, "convert", "no.pth", out) == "ddfnet: error: no.pth: no such file"
    assert "name it so" in fails(1, "convert", str(checkpoint), "ours.pth")
    broken = checkpoint.with_name("broken.pth")
    broken.write_bytes(b"")  # these are refused before it is opened
    for name in ("resnet50", "ddf_mul_resnet77"):
        line = fails(1, "convert", str(broken), out, "--network", name)
        assert line.startswith("ddfnet: error: --network must be ddf_add_resnet18, ddf_add_resnet50, ")
        assert line.endswith(f"ddf_mul_resnet101 or ddf_mul_resnet152, got '{name}'")
    assert "there is no folder" in fails(1, "convert", str(broken), str(checkpoint.parent / "no" / "a.safetensors"))
    training = checkpoint.parent / "last.ckpt"
    depth(training)
    line = fails(1, "convert", str(training), out, "--network", "ddf_mul_resnet50")
    assert line.endswith(f"--network is for weights that do not say it, and {training} is of `ddfnet train`")
    nameless = checkpoint.rename(checkpoint.parent / "best.pth")
    assert "give --network ddf_mul_resnet50" in fails(1, "convert", str(nameless), out)
    assert not Path(out).exists()


def test_a_result_that_exists_is_kept(fails: Fails, tmp_path: Path) -> None:
    file, out = tmp_path / "last.ckpt", tmp_path / "out.safetensors"
    depth(file)
    out.write_text("mine")
    assert "exists; give --overwrite" in fails(1, "convert", str(file), str(out))
    assert out.read_text() == "mine"
    assert main(["convert", str(file), str(out), "--overwrite"]) == 0
    assert read_header(out).init_args["scale_factor"] == 4


def test_a_header_that_json_cannot_hold_is_one_line(fails: Fails, tmp_path: Path) -> None:
    network = guided_network(4)
    save(tmp_path / "last.ckpt", network, header={**header_of(network).as_dict(), "extra": torch.ones(2)})
    line = fails(1, "convert", str(tmp_path / "last.ckpt"), str(tmp_path / "out.safetensors"))
    assert line.startswith(f"ddfnet: error: {tmp_path / 'last.ckpt'}: the header must be such as JSON can hold, ")


@pytest.mark.parametrize("link", ["itself", "another path", "symbolic", "hard"])
def test_a_file_is_not_converted_onto_itself(fails: Fails, tmp_path: Path, link: str) -> None:
    file = tmp_path / "mine.safetensors"
    made = guided_network(4)
    save_network(made, file)
    before = file.read_bytes()
    out = file
    if link == "another path":
        (tmp_path / "inner").mkdir()
        out = tmp_path / "inner" / ".." / file.name
    elif link == "symbolic":
        out = tmp_path / "link.safetensors"
        out.symlink_to(file)
    elif link == "hard":
        out = tmp_path / "link.safetensors"
        out.hardlink_to(file)
    line = fails(1, "convert", str(file), str(out), "--overwrite")
    assert line == f"ddfnet: error: {out} would replace an input; write to another name"
    assert file.read_bytes() == before and out.read_bytes() == before


class Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("ddf_mul_resnet18.pth", official_resnet, "the weights do not fit this DDFResNet: "),
        ("ddf_mul_resnet50.pth", lambda: nn.Linear(2, 2), "this is no checkpoint of the official DDF networks: "),
        ("ddf_mul_resnet20.pth", official_resnet, "its network must be ddf_add_resnet18, "),
        (
            "last.ckpt",
            lambda: nn.Linear(2, 2),
            "nothing in it says which network it is of; give --network ddf_mul_resnet50",
        ),
    ],
    ids=["another depth", "another network", "an unknown one", "another training"],
)
def test_other_checkpoints(fails: Fails, tmp_path: Path, name: str, content: Any, problem: str) -> None:
    torch.save(content().state_dict(), tmp_path / name)
    line = fails(1, "convert", str(tmp_path / name), str(tmp_path / "out.safetensors"))
    assert line.startswith(f"ddfnet: error: {tmp_path / name}: {problem}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["ddf_mul_resnet50.pth", "last.ckpt"])
def test_code_is_not_run(fails: Fails, tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": Trap(), "network": {}}, tmp_path / name)
    line = fails(1, "convert", str(tmp_path / name), str(tmp_path / "out.safetensors"))
    assert "it must hold weights alone, and code in it is not run" in line


@pytest.mark.parametrize("name", ["ddf_mul_resnet50.pth", "ddf_mul_resnet50.safetensors", "last.ckpt"])
def test_broken_files(fails: Fails, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights at all")
    fails(1, "convert", str(tmp_path / name), str(tmp_path / "out.safetensors"), "--overwrite")
