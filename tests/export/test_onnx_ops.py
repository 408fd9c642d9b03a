"""Operator in ONNX with all its options, beside our kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

import torch
from torch import Tensor, nn

import ddfnet
from ddfnet.export import MismatchError, export, onnx_ops
from ddfnet.nn import DDF2d
from ddfnet.ops.geometry import conv_output_size, default_padding, pair

FILTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "add": {"combine": "add"},
    "heads": {"heads": 2},
    "heads added, stride": {"heads": 4, "combine": "add", "stride": 2},
    "stride": {"stride": (2, 3)},
    "dilation": {"dilation": (2, 1), "kernel_size": (3, 5)},
    "even": {"kernel_size": (2, 4), "stride": (1, 2)},
    "one row": {"kernel_size": (1, 3)},
    "one tap": {"kernel_size": 1},
    "no padding": {"padding": 0, "kernel_size": 5},
    "padding": {"padding": (3, 2)},
    "channel alone": {"spatial": False, "stride": 2},
    "spatial alone": {"channel": False, "heads": 2},
    "spatial alone, added": {"channel": False, "combine": "add", "dilation": 2},
}
UPSAMPLING: dict[str, dict[str, Any]] = {
    "plain": {"scale_factor": 2},
    "add": {"scale_factor": 2, "combine": "add"},
    "heads": {"scale_factor": 2, "heads": 4, "dilation": 2},
    "rectangular": {"scale_factor": (3, 2), "kernel_size": (1, 5)},
    "one sub-pixel": {"scale_factor": 1, "heads": 2},
    "channel alone": {"scale_factor": 2, "spatial": False},
    "spatial alone": {"scale_factor": (1, 2), "channel": False},
}
CHANNELS = 8


class Calls(nn.Module):
    """Model with one output per set of options of the operator; the filters are inputs."""

    def __init__(self, call: Callable[..., Tensor], options: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self.call, self.options = call, options

    def forward(self, input: Tensor, *filters: Tensor) -> dict[str, Tensor]:
        given, results = iter(filters), {}
        for name, options in self.options.items():
            options = {"kernel_size": 3, "channel": True, "spatial": True, **options}
            options.pop("heads", None)
            channel, spatial = (next(given) if options.pop(which) else None for which in ("channel", "spatial"))
            results[name.replace(" ", "_").replace(",", "").replace("-", "_")] = self.call(
                input, channel, spatial, **options
            )
        return results


def inputs(options: dict[str, dict[str, Any]], dtype: torch.dtype = torch.float32) -> Any:
    def make(batch: int, height: int, width: int) -> dict[str, Tensor]:
        made = {"input": torch.randn(batch, CHANNELS, height, width)}
        for number, own in enumerate(options.values()):
            kernel, dilation = pair("", own.get("kernel_size", 3), 1), pair("", own.get("dilation", 1), 1)
            padding = pair("", own.get("padding", default_padding(kernel, dilation)), 0)
            grid = conv_output_size((height, width), kernel, pair("", own.get("stride", 1), 1), padding, dilation)
            scale = pair("", own.get("scale_factor", 1), 1)
            sub = (scale[0] * scale[1],) if "scale_factor" in own else ()
            if own.get("channel", True):
                made[f"channel{number}"] = torch.randn(batch, *sub, CHANNELS, *kernel)
            if own.get("spatial", True):
                taps = scale[0] * scale[1] * own.get("heads", 1) * kernel[0] * kernel[1]
                made[f"spatial{number}"] = torch.randn(batch, taps, *grid)
        return {name: value.to(dtype) for name, value in made.items()}

    return make


@pytest.mark.parametrize(("call", "options"), [(ddfnet.ddf, FILTERS), (ddfnet.ddf_upsample, UPSAMPLING)])
def test_every_option_at_sizes_that_were_not_traced(
    tmp_path: Path, inspect: Any, call: Callable[..., Tensor], options: dict[str, dict[str, Any]]
) -> None:
    report = export(Calls(call, options).eval(), inputs(options), tmp_path / "a.onnx", size=(2, 14, 18))
    assert report.agrees and len(report.differences) == 3 * len(options)
    assert max(each.largest for each in report.differences) < 1e-4
    assert not {each.size for each in report.differences} & {(2, 14, 18)}
    graph = inspect(report.file).graph
    assert all(each.type.tensor_type.shape.dim[0].dim_param == "batch" for each in (*graph.input, *graph.output))
    assert set(report.facts["operators"]) <= {
        *("Add", "Concat", "Mul", "Pad", "Reshape", "Shape", "Slice", "Split", "Transpose"),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=["half", "double"])
def test_half_types_are_summed_in_float32_and_rounded_once(tmp_path: Path, inspect: Any, dtype: torch.dtype) -> None:
    options = {"plain": {"kernel_size": 7}}
    # A product of halves that is summed in half would be off by far more than the one rounding of 2^-11.
    tolerance = 1e-3 if dtype == torch.float16 else 1e-12
    model = Calls(ddfnet.ddf, options).eval()
    report = export(model, inputs(options, dtype), tmp_path / "a.onnx", size=(2, 14, 18), tolerance=tolerance)
    counted = Counter(node.op_type for node in inspect(report.file).graph.node)
    assert counted["Cast"] == (4 if dtype == torch.float16 else 0)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_nodes_of_an_operator(tmp_path: Path, kernel_size: int) -> None:
    taps, options = kernel_size**2, {"plain": {"kernel_size": kernel_size}}
    report = export(Calls(ddfnet.ddf, options).eval(), inputs(options), tmp_path / "a.onnx", check=False)
    counted = {"Mul": 2 * taps, "Slice": taps, "Add": taps - 1, "Split": 2, "Pad": 1, "Reshape": 1}
    assert report.facts["operators"] == counted
    assert sum(counted.values()) == 4 * taps + 3


def test_the_nodes_that_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    assert f"{4 * 3**2 + 3} nodes" in page.replace("\n", " ") and f"a 31x31 one {4 * 31**2 + 3}:" in page


def test_a_wrong_translation_is_found_and_its_place_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = onnx_ops._windows
    monkeypatch.setattr(onnx_ops, "_windows", lambda *args: reversed(list(windows(*args))))
    with pytest.raises(
        MismatchError, match=r"output 'output' at \d+x\d+x\d+ .* index \(\d+, \d+, \d+, \d+\)"
    ) as raised:
        export(DDF2d(4).eval(), torch.randn(2, 4, 9, 10), tmp_path / "a.onnx")
    report = raised.value.report
    assert report.agrees is False and report.file.exists() and report.json_file.exists()
    assert '"agrees": false' in report.json_file.read_text()
    worst = report.worst
    assert worst is not None and worst.largest > 0.1 and abs(worst.expected - worst.got) <= worst.largest  # type: ignore[operator]
