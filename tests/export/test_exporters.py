"""Models with our layers in ``torch.onnx.export``, and in the tools that call it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("timm")
pytest.importorskip("lightning")

import lightning
import onnxruntime
import timm
import torch
from timm.utils.onnx import onnx_export
from torch import Tensor, nn

import ddfnet.models  # noqa: F401  (registers the networks)
from ddfnet.export import export
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FusedDDF2d

MODELS: dict[str, Callable[[], nn.Module]] = {
    "DDF2d": lambda: DDF2d(8),
    "DDF2d static": lambda: DDF2d(8, static=True),
    "DDFUpsample2d with heads": lambda: DDFUpsample2d(8, (2, 3), heads=2),
    "several, in half": lambda: nn.Sequential(
        FusedDDF2d(DDF2d(8, heads=2, combine="add", stride=2), torch.rand(8), torch.rand(8), relu=True),
        DDFConv2d(8, 6, (2, 4), padding="same", dilation=(1, 2), norm="softmax"),
    ).half(),
}
DYNAMIC = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
AXES = {0: "batch", 2: "height", 3: "width"}


def check(file: Path, model: nn.Module, inspect: Any, *sizes: tuple[int, ...]) -> Any:
    """Assert that the file has standard operators only, and gives what the model gives at these sizes."""
    dtype = next(model.parameters()).dtype
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for size in sizes:
        x = torch.randn(size).to(dtype)
        with torch.no_grad():
            expected = model(x)
        [got] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        tolerance = 1e-2 if dtype == torch.float16 else 1e-4
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=tolerance, atol=tolerance)
    return inspect(file)


@pytest.mark.parametrize("name", MODELS)
def test_layers(tmp_path: Path, inspect: Any, name: str) -> None:
    model = MODELS[name]().eval()
    x = torch.randn(2, 8, 10, 12).to(next(model.parameters()).dtype)
    torch.onnx.export(model, (x,), tmp_path / "a.onnx", dynamic_shapes=(DYNAMIC,), dynamo=True, verbose=False)
    check(tmp_path / "a.onnx", model, inspect, (1, 8, 6, 9), (3, 8, 12, 7))


@pytest.mark.parametrize("name", MODELS)
def test_layers_in_the_exporter_of_torchscript(tmp_path: Path, inspect: Any, name: str) -> None:
    model = MODELS[name]().eval()
    x = torch.randn(2, 8, 10, 12).to(next(model.parameters()).dtype)
    axes = {"x": AXES, "y": AXES}
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(model, (x,), tmp_path / "a.onnx", dynamo=False, opset_version=18, **names)
    check(tmp_path / "a.onnx", model, inspect, (1, 8, 6, 9), (3, 8, 12, 7))


@pytest.mark.parametrize("dynamo", [True, False])
def test_timm_s_export(tmp_path: Path, inspect: Any, dynamo: bool) -> None:
    torch.manual_seed(0)
    model = timm.create_model("small_resnet23", num_classes=5, zero_init_last=False)
    onnx_export(
        model, str(tmp_path / "a.onnx"), batch_size=2, input_size=(3, 32, 32), dynamic_size=True, use_dynamo=dynamo
    )
    check(tmp_path / "a.onnx", model, inspect, (1, 3, 48, 32), (3, 3, 33, 65))


@pytest.mark.parametrize("dynamo", [True, False])
def test_lightning_s_export(tmp_path: Path, inspect: Any, dynamo: bool) -> None:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DDF2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    module = Module().eval()
    module.to_onnx(tmp_path / "a.onnx", torch.randn(2, 8, 9, 11), dynamo=dynamo)
    check(tmp_path / "a.onnx", module, inspect, (2, 8, 9, 11))


def test_the_file_is_that_of_our_export_but_for_slices(tmp_path: Path, inspect: Any) -> None:
    model, x = DDF2d(8).eval(), torch.randn(2, 8, 10, 12)
    torch.onnx.export(model, (x,), tmp_path / "a.onnx", dynamic_shapes=(DYNAMIC,), dynamo=True, verbose=False)
    export(model, x, tmp_path / "b.onnx", check=False)
    graphs = [inspect(tmp_path / name).graph for name in ("a.onnx", "b.onnx")]
    plain, own = (Counter(node.op_type for node in graph.node) for graph in graphs)
    assert plain - own == {"Slice": 3} and not own - plain  # rows and columns one after the other; taps share the rows


def test_a_program_of_torch_export(tmp_path: Path, inspect: Any) -> None:
    model = DDF2d(8).eval()
    program = torch.export.export(model, (torch.randn(2, 8, 10, 12),), dynamic_shapes=(DYNAMIC,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("ddfnet.ddf.default") == 1
    torch.onnx.export(program, (), tmp_path / "a.onnx", verbose=False)
    check(tmp_path / "a.onnx", model, inspect, (1, 8, 6, 9), (3, 8, 12, 7))
    assert [str(node.target) for node in program.graph.nodes] == targets
