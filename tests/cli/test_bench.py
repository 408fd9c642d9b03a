"""`ddfnet bench op|layer|network|depth|family`: tables, files and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ddfnet.cli.main import main
from tests.guided_networks import network
from tests.ops.cases import served_by

Fails = Callable[..., str]

QUICK = ("bench", "op", "--case", "tiny", "--rounds", "2", "--no-compile")


def test_table_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    assert main([*QUICK, "--backward", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.count("tiny: 2x8x12x12, 3x3, float32") == 2
    assert f"torch {torch.__version__}" in text
    assert "cpu: " in text and "kernel" in text
    document = json.loads(file.read_text())
    assert (document["what"], document["rounds"], document["seed"]) == ("op", 2, 0)
    assert document["machine"]["threads"] == torch.get_num_threads()
    forward, both = document["results"]
    assert (forward["direction"], both["direction"]) == ("forward", "forward+backward")
    for result in (forward, both):
        assert [timing["competitor"] for timing in result["timings"]] == ["ddf", "depthwise", "conv", "unfold"]
        assert 0 < result["error"] < 1
        for timing in result["timings"]:
            assert 0 < timing["p20"] <= timing["median"] <= timing["p80"]
            assert timing["median"] <= timing["other_median"]
            assert f"{timing['median']:.3f}" in text
        assert result["timings"][1]["ratio"] == 1
        assert f"ddf reaches {result['limit']['share']:.0%} of it" in text
    assert forward["backward_ratio"] is None
    assert f"\nbackward: ddf takes {both['backward_ratio']:.2f} times its forward pass\n" in text
    assert [summary["direction"] for summary in document["summary"]] == ["forward", "forward+backward"]
    for summary, result in zip(document["summary"], document["results"], strict=True):
        assert summary["ratio"] == pytest.approx(result["timings"][0]["ratio"])
        assert f"{summary['direction']:<16}      1" in text
        assert f"{summary['worst']:.2f} (tiny)" in text


_TUNE = """
import functools, sys
from ddfnet.bench import registry, tune
from ddfnet.cli.main import main

registry.CASES["one"] = registry.Case("one", (1, 2, 2, 3))
tune.run = functools.partial(tune.run, max_candidates=2)
sys.exit(main(["bench", "op", "--case", "one", "--rounds", "1", "--tune", sys.argv[1]]))
"""


def test_tiles_are_tuned_where_triton_serves_the_device(tmp_path: Path) -> None:
    """Triton's interpreter, on a map small enough for it."""
    pytest.importorskip("triton")
    from ddfnet.ops.triton.config import read_table

    file = tmp_path / "tiles.json"
    command, interpreted = [sys.executable, "-c", _TUNE, str(file)], os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=interpreted, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *lines, _, last = done.stdout.splitlines()
    assert head.startswith("cpu: Triton ") and "interpreted" in head
    keys = [line.partition(": heuristic ")[0] for line in lines]
    assert [key.split(",")[0] for key in keys] == [
        f"cpu {kernel} {memory_format} 32 bits"
        for memory_format in ("contiguous", "channels_last")
        for kernel in ("fwd", "bwd_input", "bwd_filters")
    ]
    assert all("Tile(BLOCK_W=" in line for line in lines)
    table = read_table(file)
    assert set(table) <= set(keys)
    assert last == f"configurations that beat the heuristic's: {len(table)}, in {file}"


@pytest.mark.parametrize("reason", ["triton is not installed", "Triton needs compute capability 8.0"])
def test_tuning_without_triton(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr("ddfnet.ops.backends.can_run", lambda name, device: (name != "triton", reason))
    file = tmp_path / "tiles.json"
    line = fails(1, "bench", "op", "--case", "tiny", "--tune", str(file))
    assert line == f"ddfnet: error: --tune is for the Triton kernels, which cannot serve cpu: {reason}"
    assert not file.exists()


def test_tuning_times_no_competitors(tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *QUICK, "--backward", "--tune", str(tmp_path / "tiles.json"))
    assert line == "ddfnet: error: --tune times no competitors: leave out --backward, --no-compile"


def test_a_table_of_tiles_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    pytest.importorskip("triton")
    from ddfnet.bench import tune

    monkeypatch.setattr("ddfnet.ops.backends.can_run", lambda name, device: (True, "made up"))
    missing = tmp_path / "missing" / "tiles.json"
    line = fails(1, "bench", "op", "--tune", str(missing))
    assert line == f"ddfnet: error: cannot write {missing}: there is no folder {missing.parent}"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tune, "run", lambda cases, **options: iter(()))
    monkeypatch.setattr("ddfnet.files.os.fsync", full)
    file = tmp_path / "tiles.json"
    line = fails(1, "bench", "op", "--tune", str(file))
    assert line == f"ddfnet: error: cannot write {file}: No space left on device"


def test_dtype_and_several_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["bench", "op", "--group", "tiny", "--case", "tiny", "--rounds", "1", "--no-compile", "--dtype", "bfloat16"]
        )
        == 0
    )
    assert capsys.readouterr().out.count("tiny: 2x8x12x12, 3x3, bfloat16 forward") == 1, "named twice, timed once"


def test_the_number_of_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert main([*QUICK, "--threads", "1", "--json", str(tmp_path / "r.json")]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert json.loads((tmp_path / "r.json").read_text())["machine"]["threads"] == 1


@pytest.mark.parametrize("what", ["op", "layer", "network", "depth", "family", "export"])
class TestEveryCommand:
    def test_an_unknown_case(self, what: str, fails: Fails) -> None:
        assert "argument --case: invalid choice: 'huge' (choose from " in fails(2, "bench", what, "--case", "huge")

    @pytest.mark.parametrize("option", ["--rounds", "--threads"])
    def test_a_number_must_be_positive(self, what: str, option: str, fails: Fails) -> None:
        line = fails(2, "bench", what, option, "0")
        assert f"argument {option}: must be a whole number from 1 on, got '0'" in line

    def test_a_file_that_cannot_be_written_is_refused_before_timing(
        self, what: str, tmp_path: Path, fails: Fails
    ) -> None:
        file = tmp_path / "missing" / "results.json"
        line = fails(1, "bench", what, "--json", str(file))
        assert line == f"ddfnet: error: cannot write {file}: there is no folder {file.parent}"
        line = fails(1, "bench", what, "--json", str(tmp_path))
        assert line == f"ddfnet: error: cannot write {tmp_path}: Is a directory"


@pytest.mark.parametrize("what", ["op", "layer", "network", "depth"])
def test_an_unknown_competitor(what: str, fails: Fails) -> None:
    line = fails(2, "bench", what, "--only", "rival")
    assert f"ddfnet bench {what}: error: argument --only: must be some of ddf" in line
    assert "got 'rival'" in line


@pytest.mark.parametrize("what", ["op", "layer", "network", "family"])
def test_a_missing_device(what: str, fails: Fails) -> None:
    assert fails(1, "bench", what, "--device", "warp").startswith("ddfnet: error: no device 'warp' here: ")


def test_an_unknown_dtype(fails: Fails) -> None:
    assert "argument --dtype: invalid choice: 'int8'" in fails(2, "bench", "op", "--dtype", "int8")


def test_an_unknown_group(fails: Fails) -> None:
    assert "argument --group: invalid choice: 'all'" in fails(2, "bench", "op", "--group", "all")


def test_training_is_not_compiled(fails: Fails) -> None:
    line = fails(2, "bench", "network", "--train", "--compile")
    assert "argument --compile: not allowed with argument --train" in line


def test_networks_need_timm(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr("ddfnet.errors.find_spec", lambda name: None)
    assert fails(1, "bench", "network") == "ddfnet: error: timm not installed; run: pip install 'ddfnet[models]'"


def test_memory_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr("ddfnet.bench.memory.can_measure", lambda device: (False, "not on this system"))
    assert fails(1, *QUICK, "--memory") == "ddfnet: error: not on this system"


def test_memory_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ddfnet.bench import memory

    monkeypatch.setattr(memory, "measure", lambda name, layout, *_: memory.Memory(name, layout, 1.25, 2.0))
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    assert main([*QUICK, "--memory", "--json", str(tmp_path / "r.json")]) == 0
    assert "memory: ddf (contiguous) adds 1.2 MiB to its inputs and 2.0 MiB of results" in capsys.readouterr().out
    [result] = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["memory"][0] == {
        "competitor": "ddf",
        "memory_format": "contiguous",
        "added": 1.25,
        "returned": 2.0,
    }


def test_only_some_competitors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "op", "--case", "tiny", "--rounds", "1", "--only", "ddf,depthwise"]) == 0
    text = capsys.readouterr().out
    assert "unfold" not in text and "\ncompiled  " not in text


def test_the_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    command = ["bench", "layer", "--case", "tiny", "--rounds", "1", "--backward", "--json", str(file)]
    assert main(command) == 0
    assert capsys.readouterr().out.count("tiny: 2x8x6x6 forward") == 2
    document = json.loads(file.read_text())
    assert document["what"] == "layer"
    assert [result["baseline"] for result in document["results"]] == ["conv", "conv"]


def test_a_group_of_layers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ddfnet.bench import memory

    monkeypatch.setattr(memory, "measure", lambda name, layout, *_: memory.Memory(name, layout, 1.25, 2.0))
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    command = ["bench", "layer", "--group", "tiny", "--rounds", "1", "--only", "dynamic,pac", "--memory"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert text.count("tiny: 2x8x6x6 forward") == 1
    for name in ("ddf", "conv", "pac", "dynamic"):
        assert f"memory: {name} (" in text
    assert "memory: depthwise" not in text


def test_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    file = tmp_path / "results.json"
    assert main(["bench", "network", "--case", "tiny", "--rounds", "1", "--only", "ddf", "--json", str(file)]) == 0
    assert "tiny: ddf_mul_resnet18 and resnet18, 2x3x32x32 inference" in capsys.readouterr().out
    document = json.loads(file.read_text())
    assert document["what"] == "network"
    assert [timing["competitor"] for timing in document["results"][0]["timings"]] == ["ddf", "resnet"]


def test_the_depth_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not hasattr(pytest.importorskip("cv2"), "ximgproc"):
        pytest.skip("this OpenCV was built without ximgproc")
    from ddfnet.bench import documents, memory

    model = network()
    monkeypatch.setattr("ddfnet.depth.network.default_model", lambda: model)
    monkeypatch.setattr(memory, "measure", lambda name, layout, *_: memory.Memory(name, layout, 1.5, 0.01))
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    file = tmp_path / "results.json"
    assert main(["bench", "depth", "--case", "tiny", "--rounds", "1", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "tiny: 64x48, 4x inference (checked: error " in text
    assert "s / megapixel  MiB added  MiB / megapixel" in text
    document = json.loads(file.read_text())
    assert [row["method"] for row in document["rows"]] == [
        "ddfnet",
        "ddfnet-fast",
        "ddfnet-tile256",
        "guided-filter",
        "joint-bilateral",
        "bilinear",
    ]
    for row, timing in zip(document["rows"], document["results"][0]["timings"], strict=True):
        assert f"{row['seconds']:.3f}" in text
        assert row == {
            "method": timing["competitor"],
            "shape": "64x48",
            "factor": 4,
            "seconds": timing["median"] / 1e3,
            "seconds_per_megapixel": pytest.approx(timing["median"] / 1e3 / 0.003072),
            "mib": 1.5,
            "mib_per_megapixel": pytest.approx(1.5 / 0.003072),
            "threads": torch.get_num_threads(),
        }
    assert documents.read(file).what == "depth"
    assert main(["bench", "check", str(file), "--rounds", "1"]) in (0, 1), "timed again, whatever one round says"


@pytest.mark.parametrize("command", [("depth",), ("check", "depth.json")])
def test_an_opencv_without_ximgproc(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.delattr(pytest.importorskip("cv2"), "ximgproc", raising=False)
    document = SimpleNamespace(what="depth", device="cpu")
    monkeypatch.setattr("ddfnet.bench.documents.read", lambda file: document)
    line = fails(1, "bench", *command)
    assert line.startswith("ddfnet: error: this OpenCV has no ximgproc; run: pip uninstall opencv-python ")
    assert line.endswith("pip install --force-reinstall opencv-contrib-python-headless")


def test_without_opencv(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr("ddfnet.errors.find_spec", lambda name: None)
    line = fails(1, "bench", "depth")
    assert line == "ddfnet: error: cv2, safetensors, skimage not installed; run: pip install 'ddfnet[train]'"


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    pytest.importorskip("timm")
    from ddfnet.bench import network

    def refuse(*args: object, **options: object) -> None:
        raise network.CompileFailedError("torch.compile failed for ddf: no compiler")

    monkeypatch.setattr(network, "measure", refuse)
    line = fails(1, "bench", "network", "--case", "tiny", "--compile")
    assert line == "ddfnet: error: torch.compile failed for ddf: no compiler"


def test_a_wrong_operator_is_not_timed(tmp_path: Path, fails: Fails) -> None:
    from ddfnet.ops import reference

    class Wrong:
        @staticmethod
        def ddf(*args: object) -> torch.Tensor:
            return 1.001 * reference.ddf(*args)

    file = tmp_path / "results.json"
    with served_by(Wrong):
        line = fails(1, *QUICK, "--json", str(file))
    assert line.startswith("ddfnet: error: ddf (contiguous) does not agree with the float64 reference on tiny: ")
    assert line.endswith("nothing is reported")
    assert not file.exists()
