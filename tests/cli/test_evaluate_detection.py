"""`ddfnet evaluate detection`: a table and results, and every way of using it wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("defusedxml")
pytest.importorskip("tqdm")

import torch

from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import save
from tests.detection_folders import CLASSES, truncate, voc, voc_xml

Fails = Callable[..., str]


def saved(file: Path, upsampler: str = "ddf", classes: tuple[str, ...] = CLASSES) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    detector = Detector(classes, "mobilenetv3_small_050", upsampler, width=8, head_width=16, min_size=48, max_size=64)
    save(detector, file, card={"seed": 5})
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return voc(tmp_path / "squares", {"test": 2, "val": 1})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "own" / "model.safetensors")


def evaluate(*arguments: str | Path) -> tuple[str, ...]:
    return ("evaluate", "detection", *map(str, arguments))


def test_a_table_and_results(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [saved(tmp_path / name / "model.safetensors", name) for name in ("nearest", "carafe")]
    results = tmp_path / "results.json"
    assert main(evaluate("--checkpoint", *files, "--data", root, "--json", results)) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["nearest/model", "nearest"], ["carafe/model", "carafe"]]
    assert captured.err == ""
    written = json.loads(results.read_text())
    assert written["data"]["images"] == 2 and written["data"]["part"] == "test"
    assert [row["name"] for row in written["rows"]] == ["nearest/model", "carafe/model"]
    assert written["networks"][0]["card"] == {"seed": 5}
    assert written["machine"]["torch"] == torch.__version__ and written["device"] == "cpu"


def test_another_part_and_boxes_that_are_left_out(
    root: Path, file: Path, caplog: pytest.LogCaptureFixture, fails: Fails
) -> None:
    (root / "Annotations" / "val0.xml").write_text(voc_xml("val0", [("red", (8, 9, 8, 9)), ("red", (8, 9, 30, 30))]))
    options = evaluate("--checkpoint", file, "--data", root, "--part", "val")
    assert fails(1, *options).endswith("has no area: 8, 9, 8, 9; mend it, or let on_bad_box be skip")
    assert main((*options, "--on-bad-box", "skip")) == 0
    assert caplog.messages == ["squares: bad boxes that are left out, or clipped to their image: 1"]


def test_a_truncated_image(root: Path, file: Path, tmp_path: Path, fails: Fails) -> None:
    broken = truncate(root / "JPEGImages" / "test1.jpg")
    options = evaluate("--checkpoint", file, "--data", root)
    assert fails(1, *options).startswith(f"ddfnet: error: {broken} is a broken image: ")
    results = tmp_path / "results.json"
    assert main((*options, "--on-bad-image", "skip", "--json", str(results))) == 0
    [row] = json.loads(results.read_text())["rows"]
    assert (row["images"], row["skipped"]) == (1, 1)


def test_another_network_s_checkpoint(root: Path, tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "guided.safetensors"
    save(GuidedUpsampler(4, channels=8, guide_channels=8), file)
    assert fails(1, *evaluate("--checkpoint", file, "--data", root)).startswith(
        f"ddfnet: error: {file}: a file that `ddfnet train detection` wrote is required, *.safetensors or *.ckpt ("
    )


def test_wrong_use(root: Path, file: Path, tmp_path: Path, fails: Fails) -> None:
    assert "required" in fails(2, *evaluate("--data", root))
    assert fails(1, *evaluate("--checkpoint", tmp_path / "a.ckpt", "--data", root)).endswith("a.ckpt: no such file")
    assert fails(1, *evaluate("--checkpoint", file, "--data", tmp_path / "no")).endswith("no: no such folder")
    assert "given twice" in fails(1, *evaluate("--checkpoint", file, file, "--data", root))
    assert "no such part; the folder has test, val" in fails(
        1, *evaluate("--checkpoint", file, "--data", root, "--part", "train")
    )
    assert "no device 'abacus' here" in fails(1, *evaluate("--checkpoint", file, "--data", root, "--device", "abacus"))
    other = saved(tmp_path / "other.safetensors", classes=("red", "green"))
    assert "the class 'blue' is none of red, green" in fails(1, *evaluate("--checkpoint", other, "--data", root))
    assert "cannot write" in fails(
        1, *evaluate("--checkpoint", file, "--data", root, "--json", tmp_path / "no" / "a.json")
    )
