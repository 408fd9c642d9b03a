"""`ddfnet evaluate depth`: tables and results of small scenes, and every way of using it wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("safetensors")

import torch
from PIL import Image
from safetensors.torch import save_file

from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import header_of, load, save
from ddfnet.tasks.depth import baselines

Fails = Callable[..., str]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Write two scenes of two planes: 48x64 pixels, in millimetres."""
    folder = tmp_path / "scenes"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for number, edge in enumerate((20, 37)):
        left = np.arange(64)[None] < edge + np.arange(48)[:, None] // 4
        Image.fromarray(np.where(left, 1500, 4000).astype(np.uint16)).save(folder / "depth" / f"{number}.png")
        guide = np.where(left[..., None], (200, 90, 10), (20, 60, 180)).astype(np.uint8)
        Image.fromarray(guide).save(folder / "rgb" / f"{number}.png")
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Path:
    file = tmp_path / "own" / "model.safetensors"
    file.parent.mkdir()
    save(GuidedUpsampler(4, channels=8, guide_channels=8), file, card={"seed": 5, "steps": 0})
    return file


def checkpoint(file: Path) -> Path:
    """Write a checkpoint as a run does."""
    network = GuidedUpsampler(4, channels=8, guide_channels=8)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"header": header_of(network).as_dict(), "state_dict": state}, file)
    return file


def evaluate(*arguments: str | Path) -> tuple[str, ...]:
    return ("evaluate", "depth", *map(str, arguments))


def test_tables_and_results(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    methods = ("nearest", "bicubic", "joint-bilateral")
    options = ("--data", pairs, "--factor", "2", "4", "--methods", *methods, "--json", results)
    assert main(evaluate(*options, "--unit", "mm")) == 0
    text = capsys.readouterr().out
    tables = text.strip().split("protocol pac\n")[1:]
    assert len(tables) == 2, "one for each factor"
    for printed, factor in zip(tables, ("2x", "4x"), strict=True):
        lines = [line.split() for line in printed.splitlines() if f" {factor} " in line]
        names = [next(word for word in line if word in ("bilinear", *methods)) for line in lines]
        assert names == 3 * ["bilinear", *methods], "two scenes and their mean, bilinear first"
    written = json.loads(results.read_text())
    assert written["protocol"] == "pac"
    assert written["data"][0]["scenes"] == 2
    assert written["machine"]["torch"] == torch.__version__ and "commit" in written["machine"]
    rows = written["rows"]
    assert len(rows) == 2 * 3 * 4
    assert {row["protocol"] for row in rows} == {"pac"}
    for row in rows:
        assert row["unit"] == "mm" and row["rmse"] > 0
        assert row["ratio"] == 1 or row["method"] != "bilinear"
    best = {row["method"]: row["ratio"] for row in rows if row["factor"] == 4 and row["scene"] == "mean of 2"}
    assert best["joint-bilateral"] < 1, "the guide shows the edge"


def test_the_bicubic_protocol_has_its_own_table(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(evaluate("--data", pairs, "--factor", "4", "--methods", "nearest", "--protocol", "bicubic")) == 0
    assert capsys.readouterr().out.startswith("protocol bicubic\n")


def test_a_network_of_the_user(pairs: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    options = ("--data", pairs, "--factor", "4", "--methods", "--checkpoint", network, "--json", results)
    assert main(evaluate(*options)) == 0
    assert "ddfnet" in capsys.readouterr().out
    written = json.loads(results.read_text())
    parameters = sum(p.numel() for p in load(network, GuidedUpsampler).parameters())
    card = {"seed": 5, "steps": 0}
    assert written["networks"] == [{"name": "ddfnet", "file": str(network), "parameters": parameters, "card": card}]
    assert {row["method"] for row in written["rows"]} == {"bilinear", "ddfnet"}
    assert all(0 < row["ratio"] < 2 for row in written["rows"])


def test_networks_are_told_apart_by_their_paths(
    pairs: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain" / "model.safetensors"
    plain.parent.mkdir()
    save(GuidedUpsampler(4, channels=8, guide_channels=8, upsampler="bilinear"), plain)
    options = ("--data", pairs, "--factor", "4", "--methods", "--checkpoint", network, plain)
    assert main(evaluate(*options)) == 0
    text = capsys.readouterr().out
    assert "own/model" in text and "plain/model" in text


@pytest.mark.parametrize(
    ("methods", "files", "names"),
    [
        ((), ["a/model.ckpt"], ["ddfnet"]),
        (("ddfnet",), ["a/model.ckpt"], ["model"]),
        (("ddfnet",), ["a/ddfnet.safetensors"], ["a/ddfnet"]),
        ((), ["a/model.ckpt", "b/model.ckpt"], ["a/model", "b/model"]),
        ((), ["a/one.ckpt", "a/two.ckpt"], ["one", "two"]),
        ((), ["a/bilinear.ckpt", "a/x.ckpt"], ["a/bilinear", "a/x"]),
        ((), ["a/model.ckpt", "a/model.safetensors"], ["model.ckpt", "model.safetensors"]),
        ((), ["a/a/x.ckpt", "b/a/x.ckpt"], ["a/a/x", "b/a/x"]),
    ],
)
def test_no_two_rows_have_one_name(
    tmp_path: Path,
    pairs: Path,
    network: Path,
    monkeypatch: pytest.MonkeyPatch,
    methods: tuple[str, ...],
    files: list[str],
    names: list[str],
) -> None:
    monkeypatch.setitem(baselines.METHODS, "ddfnet", baselines.nearest)  # only its name matters here
    paths = [tmp_path / "nets" / file for file in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            path.write_bytes(network.read_bytes())
        else:
            checkpoint(path)
    results = tmp_path / "results.json"
    options = ("--data", pairs, "--factor", "2", "--methods", *methods, "--checkpoint", *paths, "--json", results)
    assert main(evaluate(*options)) == 0
    written = json.loads(results.read_text())
    assert [own["name"] for own in written["networks"]] == names
    one_scene = [row["method"] for row in written["rows"] if row["scene"] == "mean of 2"]
    assert one_scene == ["bilinear", *methods, *names]


def test_motorcycle(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    assert main(evaluate("--factor", "8", "--methods", "nearest")) == 0
    text = capsys.readouterr().out
    assert "motorcycle" in text.lower() and "1.000" in text


# --- wrong use ----------------------------------------------------------------------------------------------------


def test_an_unknown_method(pairs: Path, fails: Fails) -> None:
    line = fails(1, *evaluate("--data", pairs, "--methods", "magic"))
    assert line.startswith("ddfnet: error: --methods must be some of bilinear, ") and line.endswith(", got 'magic'")


def test_unknown_data(fails: Fails) -> None:
    assert fails(1, *evaluate("--data", "nowhere", "--methods", "nearest")) == (
        "ddfnet: error: --data must be some of motorcycle, aloe, nyu, or a folder with rgb/ and depth/, got 'nowhere'"
    )


def test_nyu_without_its_file(tmp_path: Path, fails: Fails) -> None:
    assert fails(1, *evaluate("--data", "nyu", "--methods", "nearest")) == (
        "ddfnet: error: --data nyu requires --root with the path of nyu_depth_v2_labeled.mat"
    )
    missing = tmp_path / "nyu.mat"
    line = fails(1, *evaluate("--data", "nyu", "--methods", "nearest", "--root", missing))
    assert line.startswith("ddfnet: error: ") and str(missing) in line


def test_the_place_of_two_data_sets_or_of_none(tmp_path: Path, fails: Fails) -> None:
    assert fails(1, *evaluate("--data", "nyu", "motorcycle", "aloe", "--root", tmp_path)) == (
        "ddfnet: error: --root is the place of one of aloe and nyu, got --data nyu motorcycle aloe; evaluate them one "
        "by one"
    )
    assert fails(1, *evaluate("--root", tmp_path)) == (
        "ddfnet: error: --root is the place of one of aloe and nyu, got --data motorcycle; leave it out"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_checkpoint_that_is_missing_or_broken(
    pairs: Path, network: Path, tmp_path: Path, fails: Fails, suffix: str
) -> None:
    file = tmp_path / f"model{suffix}"
    options = ("--data", pairs, "--methods", "--checkpoint", file)
    assert fails(1, *evaluate(*options)) == f"ddfnet: error: {file}: no such file"
    whole = network.read_bytes() if suffix == ".safetensors" else checkpoint(file).read_bytes()
    for content in (b"", b"no network", whole[: len(whole) // 2], whole[:20]):
        file.write_bytes(content)
        line = fails(1, *evaluate(*options))
        assert line.startswith(f"ddfnet: error: {file}: a file that `ddfnet train depth` wrote is required")


def test_a_checkpoint_of_another_model(pairs: Path, tmp_path: Path, fails: Fails) -> None:
    state = {"network.stem.weight": torch.zeros(8, 3, 3, 3)}
    weights = tmp_path / "weights.safetensors"
    save_file(state, weights)
    held = {
        "classifier": {"state_dict": state},
        "classifier that names its network": {"network": {"mixer": "ddf"}, "state_dict": state},
        "list": [1],
    }
    for name, content in held.items():
        torch.save(content, tmp_path / f"{name}.ckpt")
    for file in (weights, *(tmp_path / f"{name}.ckpt" for name in held)):
        line = fails(1, *evaluate("--data", pairs, "--methods", "--checkpoint", file))
        assert line.startswith(f"ddfnet: error: {file}: a file that `ddfnet train depth` wrote is required")


def test_a_network_that_is_given_twice(pairs: Path, network: Path, fails: Fails) -> None:
    line = fails(1, *evaluate("--data", pairs, "--checkpoint", network, network))
    assert line == f"ddfnet: error: --checkpoint {network} is given twice; give it once"


def test_a_broken_card(pairs: Path, network: Path, fails: Fails) -> None:
    """It is read before anything is measured."""
    network.with_suffix(".json").write_text("{")
    line = fails(1, *evaluate("--data", pairs, "--checkpoint", network))
    assert line.startswith(f"ddfnet: error: {network}: its card {network.with_suffix('.json')} cannot be read: ")


def test_an_unwritable_results_file(pairs: Path, tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "nowhere" / "results.json"
    line = fails(1, *evaluate("--data", pairs, "--methods", "nearest", "--json", file))
    assert line == f"ddfnet: error: cannot write {file}: there is no folder {file.parent}"


@pytest.mark.parametrize("words", [("--factor", "0"), ("--protocol", "dkn"), ("--factor", "x")])
def test_wrong_words(words: tuple[str, ...], fails: Fails) -> None:
    assert fails(2, *evaluate(*words)).startswith("ddfnet evaluate depth: error: argument --")


def test_a_factor_that_is_too_large(pairs: Path, fails: Fails) -> None:
    line = fails(1, *evaluate("--data", pairs, "--methods", "nearest", "--factor", "400"))
    assert line.startswith("ddfnet: error: ") and "400" in line
