"""Errors, files and reports of an export; programs of PyTorch run in another process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

import torch
from torch import Tensor, nn

from ddfnet import files
from ddfnet.export import Difference, ExportError, MismatchError, api, export, formats
from ddfnet.export.inputs import other_sizes
from ddfnet.export.verify import compare
from ddfnet.nn import DDF2d

SIZE = "size must be (batch, height, width) with a batch of"
IMAGE = torch.randn(2, 4, 9, 10)
RUN = """
import sys, torch, ddfnet
file, how, data = sys.argv[1:]
given, expected = torch.load(data)
run = torch.export.load(file).module() if how == "pt2" else torch._inductor.aoti_load_package(file)
with torch.no_grad():
    for x, y in zip(given, expected, strict=True):
        torch.testing.assert_close(run(x), y, rtol=1e-4, atol=1e-4)
assert "ddfnet.nn.ddf" in sys.modules and "ddfnet.models" not in sys.modules and "onnx" not in sys.modules
"""


@pytest.mark.parametrize("format", ["pt2", "aoti"])
def test_programs_run_in_another_process(tmp_path: Path, format: str) -> None:
    layer = DDF2d(4, stride=2, norm="none").eval()  # there is little to compile
    report = export(layer, IMAGE, tmp_path / "a.pt2", format=format)
    assert report.agrees and report.facts["operators"]["ddfnet.ddf.default"] == 1
    given = [torch.randn(shape) for shape in ((1, 4, 7, 12), (5, 4, 20, 6))]
    with torch.no_grad():
        torch.save((given, [layer(x) for x in given]), tmp_path / "data.pt")
    command = [sys.executable, "-c", RUN, str(report.file), format, str(tmp_path / "data.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_report(tmp_path: Path) -> None:
    import hashlib

    report = export(DDF2d(4).eval(), IMAGE, tmp_path / "a.onnx", times=1)
    said = json.loads((tmp_path / "a.onnx.json").read_text())
    assert said == json.loads(json.dumps(report.as_dict()))
    assert (said["format"], said["opset"], said["file"], said["traced"]) == ("onnx", 18, "a.onnx", [2, 9, 10])
    assert said["sha256"] == hashlib.sha256(report.file.read_bytes()).hexdigest()
    own = {"dtype": "float32", "shape": ["batch", 4, "height", "width"]}
    assert (said["inputs"], said["outputs"]) == ({"input": own}, {"output": own})
    assert all(said["versions"][name] for name in ("ddfnet", "torch", "onnx", "onnxscript", "onnxruntime"))
    assert said["agrees"] and [each["size"] for each in said["differences"]] == [
        list(s) for s in other_sizes((2, 9, 10))
    ]
    assert set(said["milliseconds"]) == {"model", "file", "threads"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.onnx", "a.onnx.json"]


def test_another_opset(tmp_path: Path) -> None:
    assert export(DDF2d(4).eval(), IMAGE, tmp_path / "a.onnx", opset=21, check=[(1, 5, 6)]).facts["opset"] == 21


def test_a_model_that_trains_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout()).eval()
    model[1].train()
    for trains, name in ((DDF2d(4), "it"), (model, "1")):
        with pytest.raises(
            ValueError, match=f"must be in evaluation mode, got one of which {name} trains: call model.eval"
        ):
            export(trains, IMAGE, tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (IMAGE, {"file": "a.tar"}, "format must be 'onnx', 'pt2', 'aoti', or the file *.onnx or *.pt2, got a.tar"),
        (IMAGE, {"format": "tar"}, "format must be 'onnx', 'pt2', 'aoti', got 'tar'"),
        (IMAGE, {"format": "aoti"}, "the file of format 'aoti' must end in .pt2, got a.onnx"),
        (IMAGE, {"opset": 17}, "opset must be from 18 to "),
        (IMAGE, {"opset": 99}, "opset must be from 18 to "),
        (IMAGE[0], {}, "inputs must be (N, C, H, W) where they are a tensor, got (4, 9, 10)"),
        (IMAGE[:1], {}, f"{SIZE} 2 or more, in whole numbers, got (1, 9, 10)"),
        (IMAGE, {"size": (2, 9)}, f"{SIZE} 2 or more, in whole numbers, got (2, 9)"),
        (IMAGE, {"size": (2, 9.0, 10)}, f"{SIZE} 2 or more, in whole numbers, got (2, 9.0, 10)"),
        (IMAGE, {"size": 9}, f"{SIZE} 2 or more, in whole numbers, got 9"),
        (IMAGE, {"step": 2}, "height and width of size must be multiples of step, 2, got 9x10"),
        (IMAGE, {"step": 0}, "step must be a whole number from 1 on, got 0"),
        (IMAGE, {"times": -1}, "times must be a whole number from 0 on, got -1"),
        (IMAGE, {"check": []}, "check must be True, False or sizes (batch, height, width), got []"),
        (IMAGE, {"check": 3}, "check must be True, False or sizes (batch, height, width), got 3"),
        (IMAGE, {"check": [(1, 2)]}, "check must be (batch, height, width) with a batch of 1 or more, in whole"),
        (IMAGE, {"check": (1, 9, 10)}, "check must be (batch, height, width) with a batch of 1 or more, in whole"),
        (
            IMAGE,
            {"size": (2, 6, 8), "step": 2, "check": [(1, 6, 9)]},
            "height and width of check must be multiples of step, 2, got 6x9",
        ),
        (IMAGE, {"tolerance": math.nan}, "tolerance must be a finite number from 0 on, got nan"),
        (IMAGE, {"tolerance": math.inf}, "tolerance must be a finite number from 0 on, got inf"),
        (IMAGE, {"tolerance": -1e-4}, "tolerance must be a finite number from 0 on, got -0.0001"),
        (IMAGE, {"tolerance": "1"}, "tolerance must be a finite number from 0 on, got '1'"),
    ],
)
def test_wrong_options(given: Tensor, options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(DDF2d, "forward", None)  # no layer is called
    monkeypatch.chdir(tmp_path)
    options = {"file": "a.onnx", **options}
    with pytest.raises(ValueError) as raised:
        export(DDF2d(4).eval(), given, options.pop("file"), **options)
    assert str(raised.value).startswith(said) and not list(tmp_path.iterdir())


def test_other_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        export("DDF2d", IMAGE, tmp_path / "a.pt2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be on the CPU, got one on meta"):
        export(DDF2d(4, device="meta").eval(), IMAGE, tmp_path / "a.pt2")
    with pytest.raises(TypeError, match="inputs must give tensors by names, got int by 'x'"):
        export(DDF2d(4).eval(), lambda *_: {"x": 3}, tmp_path / "a.pt2")  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="inputs must give tensors by names, got Tensor"):
        export(DDF2d(4).eval(), lambda *_: torch.zeros(1), tmp_path / "a.pt2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="inputs must be a tensor or a function of batch, height, width, got list"):
        export(DDF2d(4).eval(), [IMAGE], tmp_path / "a.pt2")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="cannot write .*: there is no folder"):
        export(DDF2d(4).eval(), IMAGE, tmp_path / "none" / "a.pt2", check=False)


class Residual(nn.Module):
    """Model that halves and doubles the size, so that only even heights and widths work."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


def test_a_size_that_the_model_cannot_take_is_found_before_anything_is_written(tmp_path: Path) -> None:
    file, image = tmp_path / "a.pt2", torch.randn(2, 4, 8, 12)
    with pytest.raises(
        ValueError,
        match=r"^the model cannot be called with 1x9x14 \(batch, height, width; step, which heights and widths must be "
        r"multiples of, is 1\): RuntimeError: The size of tensor a \(9\) must match .*$",
    ):
        export(Residual().eval(), image, file)
    with pytest.raises(ValueError, match="the model cannot be called with 2x9x12 .*: RuntimeError: "):
        export(Residual().eval(), image, file, size=(2, 9, 12), check=False)
    assert not list(tmp_path.iterdir())
    assert export(Residual().eval(), image, file, step=2).agrees


def test_a_file_that_does_not_run_here_is_a_failed_check(tmp_path: Path) -> None:
    file, image = tmp_path / "a.onnx", IMAGE.bfloat16()
    layer = nn.Conv2d(4, 4, 1).bfloat16().eval()
    with pytest.raises(MismatchError, match="output 'output' at 1x10x12 .*: the file does not run: ") as raised:
        export(layer, image, file, times=1)
    report = raised.value.report
    assert len(report.differences) == 3 and all(each.why for each in report.differences)
    assert json.loads(report.json_file.read_text())["agrees"] is False and file.exists()
    assert "milliseconds" not in report.facts
    with pytest.raises(ExportError, match="a.onnx was written, and does not run: "):
        export(layer, image, file, check=False, times=1)


def test_a_model_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="torch.export cannot trace the model: ") as raised:
        export(Decides().eval(), IMAGE, tmp_path / "a.pt2")
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxruntime not installed; run: pip install 'ddfnet\[export\]'"):
        export(DDF2d(4).eval(), IMAGE, tmp_path / "a.onnx")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        with files.atomic_open(path) as stream:
            stream.write(content[:10])
            raise OSError(28, "No space left on device")

    (tmp_path / "a.pt2").write_text("before")
    monkeypatch.setattr(api, "files", type("Files", (), {"atomic_write": staticmethod(full)}))
    with pytest.raises(OSError, match="No space left on device"):
        export(DDF2d(4).eval(), IMAGE, tmp_path / "a.pt2")
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt2"] and (tmp_path / "a.pt2").read_text() == "before"


def test_names_of_axes_that_the_program_keeps_apart(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, guide.mean((2, 3))

    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {"x": torch.randn(batch, 2, height, width), "guide": torch.randn(batch, 3, 2 * height, width)}

    report = export(Two().eval(), inputs, tmp_path / "a.onnx", size=(2, 6, 8))
    assert report.facts["inputs"]["guide"]["shape"] == ["guide_batch", 3, "guide_height", "guide_width"]
    assert set(report.facts["outputs"]) == {"output_0", "output_1"}


# --- comparing ------------------------------------------------------------------------------------------------------


def _one(expected: Tensor, got: Tensor, tolerance: float | None = None) -> Difference:
    [difference] = compare((1, 2, 3), {"y": expected}, [got], tolerance)
    return difference


def test_differences() -> None:
    expected = torch.tensor([[1.0, 10.0], [float("nan"), float("inf")], *([[1.0, 1.0]] * 200)])
    assert _one(expected, expected.clone()).largest == 0
    got = expected.clone()
    got[0, 1] += 5e-4  # tolerated, because the value is large
    got[0, 0] += 4e-4
    difference = _one(expected, got)
    assert not difference.agrees and difference.index == (0, 0) and difference.largest == pytest.approx(5e-4, rel=1e-2)
    assert str(difference) == (
        "output 'y' at 1x2x3 (batch, height, width), index (0, 0): difference 0.0004, expected 1, got 1.00039995; "
        "the largest difference, 0.0005, is elsewhere"
    )
    assert _one(expected, got, tolerance=1e-3).agrees
    for wrong in (float("nan"), float("inf"), -float("inf")):
        got = expected.clone()
        got[0, 0] = wrong
        assert str(_one(expected, got)).endswith(f"(0, 0): difference inf, expected 1, got {wrong}")
        assert not _one(expected, got).agrees
    assert str(_one(expected, expected)).endswith("(0, 0): difference 0, expected 1, got 1")
    assert str(_one(torch.zeros(0), torch.zeros(0))).endswith(": empty")
    assert not _one(expected, torch.zeros(2, 2)).agrees
    assert not _one(torch.tensor([True]), torch.tensor([False])).agrees


@pytest.mark.parametrize("scale", [1e-6, 1.0, 404.0])
def test_differences_are_judged_by_the_scale_of_the_output(scale: float) -> None:
    expected = scale * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    expected[0] = 0  # its own size says nothing
    for share, agrees in ((0.5e-4, True), (2e-4, False)):
        got = expected.clone()
        got[0] += share * scale
        assert _one(expected, got).agrees is agrees


def test_what_the_model_rounds_itself_is_tolerated() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    for rounding, off, agrees in ((1e-3, 4e-3, True), (1e-3, 2e-2, False), (0.5, 0.4, False)):
        expected = exact.float()
        expected[3] += rounding
        got = exact.float()
        got[5] += off
        own: dict[str, Any] = {"size": (1, 2, 3), "expected": {"y": expected}, "got": [got]}
        [plain] = compare(**own, tolerance=None)
        [given] = compare(**own, tolerance=1e-5, exact={"y": exact})
        assert not plain.agrees and not given.agrees and given.rounding is None
        [difference] = compare(**own, tolerance=None, exact={"y": exact})
        assert difference.agrees is agrees and difference.rounding == pytest.approx(rounding, rel=1e-3)
        assert str(difference).endswith(f"; the model's own rounding is {rounding:.3g}")


class Ladder(nn.Module):
    """Model that rounds: it adds a large number to the map, and takes it away again."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 + x.mean((2, 3), keepdim=True) - 1e4 + x * 0


@pytest.mark.parametrize("off", [1e-3, 0.1])
def test_the_check_asks_how_the_model_rounds(off: float) -> None:
    image = torch.randn(1, 3, 16, 16) + 1
    [layout] = set(formats.Onnx.layouts)
    given, model = {"input": image}, Ladder().eval()
    expected = {"output": model(image)}

    def run(tensors: Any) -> list[Tensor]:
        return [expected["output"] + off]

    [difference] = api._check_file(formats.Onnx(18), run, model, given, (1, 16, 16), expected, None)
    assert difference.rounding is not None and 1e-4 < difference.rounding < 1e-3 and difference.layout == layout
    assert difference.agrees is (off < 8 * difference.rounding)


# --- memory formats -------------------------------------------------------------------------------------------------


class Planes(nn.Module):
    """Model whose loops read each plane of the map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + x[:, :, 0, 0]


@pytest.mark.parametrize("format", ["pt2", "aoti"])
def test_programs_take_inputs_of_any_strides(tmp_path: Path, format: str) -> None:
    layer = nn.Sequential(Planes(), nn.ReLU()).eval()
    report = export(layer, IMAGE, tmp_path / "a.pt2", format=format)
    assert report.agrees
    run = formats.FORMATS[format](18).load(report.file)
    wide = torch.randn(3, 6, 12, 9)
    for x in (wide[:, :4].to(memory_format=torch.channels_last), wide[:, 1:5], wide[:, :1].expand(-1, 4, -1, -1)):
        torch.testing.assert_close(run([x]), [layer(x)])


def test_a_package_that_takes_strides_for_granted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.Inductor, "prepare", lambda self, model: model)
    with pytest.raises(MismatchError, match=r"index \(\d, \d\)") as raised:
        export(Planes().eval(), IMAGE, tmp_path / "a.pt2", format="aoti")
    assert {each.layout for each in raised.value.report.differences} == {"channels_last"}
    assert ", inputs in channels_last, index" in str(raised.value)


# --- outputs that cannot be compared --------------------------------------------------------------------------------


def test_outputs_that_cannot_be_compared() -> None:
    assert str(_one(torch.zeros(2), torch.zeros(3))).endswith("shape (3,) for (2,)")
    assert str(_one(torch.zeros(2), torch.zeros(2).half())).endswith("dtype torch.float16 for torch.float32")
    [difference] = compare((1, 2, 3), {"y": torch.zeros(1)}, [], None)
    assert difference.why == "0 outputs for 1" and not difference.agrees
    report = api.ExportReport(Path("a.onnx"), {}, (difference,))
    assert report.agrees is False and report.as_dict()["differences"][0]["largest"] == "inf"
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))


@pytest.mark.parametrize(("size", "step"), [((2, 224, 224), 1), ((2, 3, 3), 1), ((4, 64, 96), 32)])
def test_other_sizes_are_three_others(size: tuple[int, int, int], step: int) -> None:
    others = other_sizes(size, step)
    assert len({*others, size}) == 4 and min(batch for batch, _, _ in others) == 1
    assert all(height % step == width % step == 0 for _, height, width in others)
