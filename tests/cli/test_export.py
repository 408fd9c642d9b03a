"""`ddfnet export`: what it writes by name, and one line for everything that is wrong."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

import timm
import torch
from safetensors.torch import save_file

import ddfnet.models  # noqa: F401  (registers the networks)
from ddfnet import errors
from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.export.catalog import LAYERS, subject
from ddfnet.models.classifier import create_classifier
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import Header, header_of, save

Fails = Callable[..., str]
SMALL = {"name": "small_resnet23", "num_classes": 3, "options": {}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_layer_with_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "DDF2d", "--check", "--size", "6x8"]) == 0
    said = capsys.readouterr().out
    assert "DDF2d.onnx: 0." in said and "opset 18" in said and "(batch, 32, height, width)" in said
    assert said.count("agrees, largest difference") == 3
    assert json.loads(Path("DDF2d.onnx.json").read_text())["traced"] == [2, 6, 8]


def test_what_pytorch_says_of_itself_is_not_shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = LAYERS["ddf"]

    def noisy() -> Any:
        warnings.warn("this exporter is new", stacklevel=2)
        logging.getLogger("torch._inductor.ir").warning("an operator has no shim")
        return make()

    monkeypatch.setitem(LAYERS, "ddf", noisy)
    assert main(["export", "ddf", "--format", "pt2"]) == 0
    assert capfd.readouterr().err == ""
    logging.getLogger("torch._inductor.ir").warning("afterwards")
    assert "afterwards" in capfd.readouterr().err


def test_a_failed_check_is_one_line_and_leaves_the_file(fails: Fails) -> None:
    line = fails(1, "export", "FilterNorm", "--check", "--size", "4", "--tolerance", "1e-12", "-o", "a.onnx")
    assert line.startswith("ddfnet: error: a.onnx does not agree with the model: output 'output' at ")
    assert Path("a.onnx").exists() and json.loads(Path("a.onnx.json").read_text())["agrees"] is False


def test_files_that_training_left(capsys: pytest.CaptureFixture[str]) -> None:
    network = create_classifier(**SMALL)
    header = Header("classification", SMALL, {"preprocessing": {"size": 32}})
    save(network, "classifier.safetensors", header=header, card={})
    save(GuidedUpsampler(2, channels=4, guide_channels=4), "guided.safetensors", card={})
    detector = Detector(["a"], "mobilenetv3_small_050", width=8, head_width=8)
    save(detector, "detector.safetensors", card={})
    cards = {path: path.read_bytes() for path in Path().glob("*.json")}
    for name, inputs in (("classifier", ["input"]), ("guided", ["depth", "guide", "valid"]), ("detector", ["input"])):
        assert main(["export", f"{name}.safetensors", "--format", "pt2", "--check"]) == 0
        assert list(json.loads(Path(f"{name}.pt2.json").read_text())["inputs"]) == inputs
    assert {path: path.read_bytes() for path in cards} == cards  # the report is beside the card, not in its place
    assert "backbone with its pyramid" in capsys.readouterr().out


def test_a_network_with_weights(capsys: pytest.CaptureFixture[str]) -> None:
    network = timm.create_model("small_resnet23", num_classes=5).eval()
    save_file(network.state_dict(), "weights.safetensors")
    torch.save({"state_dict": network.state_dict()}, "weights.pth")
    for weights in (None, "weights.safetensors", "weights.pth"):
        extra = [] if weights is None else ["--checkpoint", weights]
        assert main(["export", "small_resnet23", "--format", "pt2", "--overwrite", *extra]) == 0
        assert ("random" in capsys.readouterr().out) == (weights is None)
        assert json.loads(Path("small_resnet23.pt2.json").read_text())["outputs"]["output"]["shape"][1] == (
            1000 if weights is None else 5
        )
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load("small_resnet23.pt2").module()(x), network(x))


def test_what_is_wrong_is_one_line_and_nothing_is_written(fails: Fails) -> None:
    small = timm.create_model("small_resnet23", num_classes=3)
    save_file(small.state_dict(), "small.safetensors")
    Path("broken.pth").write_bytes(b"not a checkpoint")
    Path("broken.safetensors").write_bytes(b"neither")
    Path("folder").mkdir()
    before = sorted(Path().rglob("*"))
    resnet = ["export", "ddf_mul_resnet18"]
    for arguments, said in (
        (["export", "no_such_net"], "MODEL must be a file that `ddfnet train` left, a name that timm knows, or ddf, "),
        (["export", "no.safetensors"], "no.safetensors: no such file"),
        (["export", "broken.safetensors"], "broken.safetensors: a network that `ddfnet train` left is required"),
        (["export", "small.safetensors"], "small.safetensors: a network that `ddfnet train` left is required"),
        ([*resnet, "--checkpoint", "broken.pth"], "broken.pth: it must hold weights that torch.save wrote, got none"),
        ([*resnet, "--checkpoint", "small.safetensors"], "small.safetensors: the weights do not fit this DDFResNet: "),
        (["export", "ddf", "--checkpoint", "small.safetensors"], "--checkpoint goes with a network of timm's, and ddf"),
        (["export", "ddf", "-o", "folder"], "cannot write folder: "),
        (["export", "ddf", "-o", "none/a.onnx"], "cannot write none/a.onnx: there is no folder "),
        (["export", "ddf", "-o", "a.tar"], "the file of format 'onnx' must end in .onnx, got a.tar"),
        (["export", "ddf", "--batch", "1"], "size must be (batch, height, width) with a batch of 2 or more"),
        (["export", "ddf", "--tolerance", "1"], "--tolerance is of the check; give --check too"),
        (["export", "ddf", "--check", "--tolerance", "nan"], "tolerance must be a finite number from 0 on, got nan"),
        (["export", "ddf", "--format", "pt2", "--opset", "18"], "--opset is of ONNX's operators, and pt2 has none"),
        (["export", "ddf", "--step", "5"], "height and width of size must be multiples of step, 5, got 24x32"),
        (["export", "ddf", "--opset", "7"], "opset must be from 18 to "),
    ):
        line = fails(1, *arguments)
        assert line.startswith(f"ddfnet: error: {said}"), line
        assert sorted(Path().rglob("*")) == before, arguments
    assert "argument --size: must be a number, or two as HxW, got '1x2x3'" in fails(
        2, "export", "ddf", "--size", "1x2x3"
    )


def test_an_input_is_not_replaced(fails: Fails) -> None:
    network = GuidedUpsampler(2, channels=4, guide_channels=4)
    save(network, "a.safetensors")
    before = Path("a.safetensors").read_bytes()
    Path("a.pt2").symlink_to("a.safetensors")
    words = ["export", "a.safetensors", "--format", "pt2", "--overwrite"]
    for more, file in (([], "a.pt2"), (["-o", "./a.safetensors"], "a.safetensors")):
        line = fails(1, *words, *more)
        assert line == f"ddfnet: error: {file} would replace an input; write to another name"
    save_file(timm.create_model("small_resnet23").state_dict(), "b.pt2")
    words = ["export", "small_resnet23", "--format", "pt2", "--overwrite"]
    line = fails(1, *words, "--checkpoint", "b.pt2", "-o", "b.pt2")
    assert line == "ddfnet: error: b.pt2 would replace an input; write to another name"
    assert Path("a.safetensors").read_bytes() == before


def test_malformed_preprocessing_is_one_line(fails: Fails) -> None:
    made = create_classifier("small_resnet23", 3, {"layers": [1, 1, 1], "channels": [2, 2, 4]})
    header = header_of(made)
    save(made, "a.safetensors", header=header._replace(extra={"preprocessing": {"size": [1]}}))
    line = fails(1, "export", "a.safetensors", "-o", "a.onnx")
    assert line.startswith("ddfnet: error: a.safetensors: its preprocessing size must be a whole number from 1 to 4096")


def test_a_checkpoint_that_is_missing(fails: Fails) -> None:
    line = fails(1, "export", "ddf_mul_resnet18", "--checkpoint", "x.pth")  # timm's own logging would add another
    assert line == "ddfnet: error: x.pth: no such file"


def test_a_size_that_the_network_cannot_take(fails: Fails) -> None:
    line = fails(1, "export", "vit_tiny_patch16_224", "--size", "225", "--step", "5", "-o", "v.onnx")
    assert line.startswith(
        "ddfnet: error: the model cannot be called with 2x225x225 (batch, height, width; step, which "
    )
    assert "is 5): AssertionError: Input height (225)" in line and not list(Path().iterdir())


def test_a_file_is_replaced_when_told_so(fails: Fails) -> None:
    command = ["export", "FilterNorm", "--format", "pt2", "--size", "4"]
    Path("FilterNorm.pt2").write_text("before")
    said = "exists; give --overwrite to replace it, or write to another name"
    assert fails(1, *command) == f"ddfnet: error: FilterNorm.pt2 {said}"
    assert Path("FilterNorm.pt2").read_text() == "before"
    assert main([*command, "--overwrite"]) == 0
    Path("FilterNorm.pt2").unlink()
    assert fails(1, *command) == f"ddfnet: error: FilterNorm.pt2.json {said}"


def test_without_the_extra(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert fails(1, "export", "ddf") == (
        "ddfnet: error: onnx, onnxscript, onnxruntime not installed; run: pip install 'ddfnet[export]'"
    )


def test_every_name_in_the_page_is_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "export.md"
    assert all(f"`{name}`" in page.read_text() for name in (*LAYERS, "GuidedUpsampler", "fasterrcnn_resnet50_fpn"))
    assert set(subject("GuidedUpsampler").inputs(2, 3, 4)) == {"depth", "guide", "valid"}
