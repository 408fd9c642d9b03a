"""`ddfnet evaluate depth`: tables and results of small scenes, and every way of using it wrongly."""

from __future__ import annotations

import json
import sys
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
from ddfnet.data.depth import nyu8
from ddfnet.data.depth.middlebury15 import BICUBIC_LEVELS, NAMES
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import header_of, load, save
from ddfnet.tasks.depth import baselines
from tests.depth_archives import disparity, middlebury, nyu, write_tar

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


def test_sharper_filters_have_rows_of_their_own(
    pairs: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    options = ("--data", pairs, "--factor", "4", "--sharpness", "2", "4.5")
    found = {}
    for words in (("--methods", "ddfnet"), ("--methods", "--checkpoint", network)):
        assert main(evaluate(*options, *words, "--json", tmp_path / "results.json")) == 0
        rows = json.loads((tmp_path / "results.json").read_text())["rows"]
        found = {row["method"]: row["rmse"] for row in rows if row["scene"] == "mean of 2"}
        assert list(found) == ["bilinear", "ddfnet", "ddfnet, sharpness 2", "ddfnet, sharpness 4.5"]
        assert len(set(found.values())) == 4
    plain = tmp_path / "plain.safetensors"
    save(GuidedUpsampler(4, channels=8, guide_channels=8, upsampler="bilinear"), plain)
    assert f"--sharpness is for networks whose filters carry the depth, {plain} has none" in fails(
        1, *evaluate(*options, "--checkpoint", plain)
    )


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


# --- gdsr, and data in archives -------------------------------------------------------------------------------------


def test_gdsr_on_data_of_a_folder(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every table has aligned bilinear and Pillow's bicubic, whose error is that of Pillow down and up again."""
    results = tmp_path / "results.json"
    options = ("--data", pairs, "--factor", "8", "--methods", "nearest", "--protocol", "gdsr", "--json", results)
    assert main(evaluate(*options)) == 0
    assert capsys.readouterr().out.startswith("protocol gdsr\n")
    rows = json.loads(results.read_text())["rows"]
    assert [row["method"] for row in rows] == 3 * ["bilinear", "bicubic-pillow", "nearest"]
    for row, file in zip(rows[1:6:3], sorted((pairs / "depth").iterdir()), strict=True):
        truth = np.asarray(Image.open(file), np.float32)
        small = Image.fromarray(truth).resize((8, 6), Image.Resampling.BICUBIC)
        error = np.asarray(small.resize((64, 48), Image.Resampling.BICUBIC), np.float64) - truth
        assert row["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert rows[7]["scene"] == "mean of 2"
    assert rows[7]["rmse"] == pytest.approx((rows[1]["rmse"] + rows[4]["rmse"]) / 2)


def test_middlebury15(tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails) -> None:
    """Other pairs than the fifteen are found out, where an error of those is known."""
    file = write_tar(tmp_path / "middlebury15.tar", middlebury())
    options = ("--data", "middlebury15", "--root", file, "--methods", "--protocol", "gdsr")
    line = fails(1, *evaluate(*options, "--factor", "4"))
    assert line.startswith("ddfnet: error: bicubic-pillow on middlebury15 at 4x must come to 2.176 levels, got ")
    capsys.readouterr()
    assert main(evaluate(*options, "--factor", "2")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[3:6] for line in lines if line[:2] == ["mean", "of"]] == [
        ["bilinear", "2x", lines[-2][5]],
        ["bicubic-pillow", "2x", lines[-1][5]],
    ]
    assert lines[-1][6] == "levels"
    assert main(evaluate("--data", "middlebury15", "--root", file, "--methods", "nearest", "--factor", "2")) == 0


def test_the_fifteen_have_the_known_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of 18x21 pixels, which count as 16x20: the mean error of Pillow's bicubic filter is compared."""
    file = write_tar(tmp_path / "middlebury15.tar", middlebury())
    errors = []
    for name in NAMES:
        truth = disparity(name)[:16, :20].astype(np.float32)
        small = Image.fromarray(truth).resize((5, 4), Image.Resampling.BICUBIC)
        large = np.asarray(small.resize((20, 16), Image.Resampling.BICUBIC), np.float64).clip(0, 255)
        errors.append(np.sqrt(((large - truth) ** 2).mean()))
    monkeypatch.setitem(BICUBIC_LEVELS, 4, float(np.mean(errors)))
    options = ("--data", "middlebury15", "--root", file, "--methods", "--protocol", "gdsr", "--factor", "4")
    assert main(evaluate(*options)) == 0
    assert f"{np.mean(errors):.3f} levels" in capsys.readouterr().out


def test_nyu8_is_measured_on_its_test_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nyu8, "COUNT", 1003)
    file = write_tar(tmp_path / "nyu8.tar", nyu(range(1000, 1003)))
    options = ("--data", "nyu8", "--root", file, "--methods", "--protocol", "gdsr", "--factor", "4")
    assert main(evaluate(*options)) == 0
    text = capsys.readouterr().out
    assert "nyu8 1000" in text and "nyu8 1002" in text and "mean of 3" in text and " cm " in text


@pytest.mark.parametrize(("name", "file"), [("nyu8", "nyu8.tar"), ("middlebury15", "middlebury15.tar")])
def test_archives_that_are_not_there_or_others(tmp_path: Path, fails: Fails, name: str, file: str) -> None:
    options = ("--data", name, "--methods", "nearest")
    assert fails(1, *evaluate(*options)) == f"ddfnet: error: --data {name} requires --root with the path of {file}"
    missing = tmp_path / file
    assert fails(1, *evaluate(*options, "--root", missing)) == (
        f"ddfnet: error: {missing}: cannot be read: No such file or directory"
    )
    other = write_tar(tmp_path / "other.tar", {"a/b.txt": b"words"})
    line = fails(1, *evaluate(*options, "--root", other))
    assert line.startswith(f"ddfnet: error: {other}: ") and "is required in the archive, there is none" in line
    other.write_bytes(b"no archive")
    line = fails(1, *evaluate(*options, "--root", other))
    assert line.startswith(f"ddfnet: error: {other} is no tar archive, or a damaged one: ")


# --- functions of the user ------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file of functions."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def repeat(low, guide, factor):\n"
        "    height, width = guide.shape[:2]\n"
        "    return low.repeat(factor, 0).repeat(factor, 1)[:height, :width]\n"
        "def fails(low, guide, factor):\n"
        "    raise RuntimeError('out of ideas')\n"
        "def turned(low, guide, factor):\n"
        "    return repeat(low, guide, factor).T\n"
        "def holed(low, guide, factor):\n"
        "    return np.where(guide[..., 0] > 100, repeat(low, guide, factor), np.nan)\n"
    )
    return file


def test_a_function_beside_the_others(
    pairs: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    options = ("--data", pairs, "--factor", "4", "--methods", "nearest", "--beside", f"{mine}:repeat")
    assert main(evaluate(*options, "--protocol", "gdsr", "--json", results)) == 0
    assert f"{mine}:repeat" in capsys.readouterr().out
    rows = json.loads(results.read_text())["rows"]
    errors = {(row["scene"], row["method"]): row["rmse"] for row in rows}
    assert len(errors) == 3 * 4
    for scene in ("0", "1", "mean of 2"):
        assert errors[scene, f"{mine}:repeat"] == errors[scene, "nearest"]


def test_functions_that_fail(pairs: Path, mine: Path, fails: Fails) -> None:
    for name, reason in (
        ("fails", f"raised RuntimeError: out of ideas ({mine}, line 6)"),
        ("turned", "an array (48, 64) must be returned, got (64, 48)"),
        ("holed", "a depth must be returned for every pixel, got nan or inf at "),
    ):
        line = fails(1, *evaluate("--data", pairs, "--factor", "4", "--methods", "--beside", f"{mine}:{name}"))
        assert line.startswith(f"ddfnet: error: {mine}:{name}: 0: {reason}")


def test_what_was_measured_before_a_failure_is_written(pairs: Path, mine: Path, tmp_path: Path, fails: Fails) -> None:
    results = tmp_path / "results.json"
    mine.write_text(
        "def small(low, guide, factor):\n"
        "    assert factor < 8\n"
        "    return low.repeat(factor, 0).repeat(factor, 1)[:guide.shape[0], :guide.shape[1]]\n"
    )
    options = ("--factor", "2", "4", "8", "--methods", "--beside", f"{mine}:small", "--json", results)
    fails(1, *evaluate("--data", pairs, *options))
    assert {row["factor"] for row in json.loads(results.read_text())["rows"]} == {2, 4}


def test_functions_that_there_are_not(pairs: Path, mine: Path, tmp_path: Path, fails: Fails) -> None:
    for name, reason in (
        (f"{mine}:missing", f"--beside {mine}:missing: a function missing is required in {mine}, there is none"),
        (f"{tmp_path}/no.py:f", f"--beside {tmp_path}/no.py:f: {tmp_path}/no.py: no such file"),
        ("repeat", "--beside must be FILE.py:FUNCTION, got 'repeat'"),
    ):
        assert fails(1, *evaluate("--data", pairs, "--beside", name)) == f"ddfnet: error: {reason}"


def test_the_file_of_a_function_is_no_results_file(pairs: Path, mine: Path, fails: Fails) -> None:
    before = mine.read_text()
    line = fails(1, *evaluate("--data", pairs, "--beside", f"{mine}:repeat", "--json", mine))
    assert line == f"ddfnet: error: {mine} would replace an input; write to another name"
    assert mine.read_text() == before


# --- wrong use ----------------------------------------------------------------------------------------------------


def test_an_unknown_method(pairs: Path, fails: Fails) -> None:
    line = fails(1, *evaluate("--data", pairs, "--methods", "magic"))
    assert line.startswith("ddfnet: error: --methods must be some of bilinear, ") and line.endswith(", got 'magic'")


def test_unknown_data(fails: Fails) -> None:
    assert fails(1, *evaluate("--data", "nowhere", "--methods", "nearest")) == (
        "ddfnet: error: --data must be some of motorcycle, aloe, nyu, nyu8, middlebury15, or a folder with rgb/ and "
        "depth/, got 'nowhere'"
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
        "ddfnet: error: --root is the place of aloe, nyu, nyu8 or middlebury15, got --data nyu motorcycle aloe; "
        "evaluate them one by one"
    )
    assert fails(1, *evaluate("--root", tmp_path)) == (
        "ddfnet: error: --root is the place of aloe, nyu, nyu8 or middlebury15, got --data motorcycle; leave it out"
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
