from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

import onnx

Inspect = Callable[[Path], onnx.ModelProto]


@pytest.fixture
def inspect() -> Inspect:
    """Return a function that reads a graph, and checks that it has standard operators and constant weights only."""

    def read(file: Path) -> onnx.ModelProto:
        model = onnx.load(file)
        onnx.checker.check_model(model, full_check=True)
        assert [(each.domain, each.version) for each in model.opset_import] == [("", model.opset_import[0].version)]
        assert not model.functions
        weights = {each.name for each in model.graph.initializer}
        for node in model.graph.node:
            assert node.domain == ""
            assert node.op_type not in ("Col2Im", "DeformConv", "GatherND", "Loop", "Scan"), node.op_type
            if node.op_type in ("Conv", "ConvTranspose"):
                assert node.input[1] in weights, f"{node.name} has a computed weight"
        return model

    return read
