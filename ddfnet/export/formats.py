"""The formats: how a traced program becomes a file, and how that file runs."""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ddfnet.export.inputs import renamed

Run = Callable[[Sequence[Tensor]], list[Tensor]]


class Format(ABC):
    """A kind of file."""

    name: str
    suffix: str

    @abstractmethod
    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        """The file, and what the report says of it besides.

        Args:
            program: the model.
            names: of the inputs.
            outputs: their names.
            axes: the program's symbols, and what they are to be called.
        """

    @abstractmethod
    def load(self, file: Path) -> Run:
        """What a user does with the file."""


class Onnx(Format):
    """ONNX, run by ONNX Runtime on the CPU."""

    name, suffix = "onnx", ".onnx"

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        translations = import_module("ddfnet.export.onnx_ops").TRANSLATIONS
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=self.opset,
            input_names=names,
            output_names=outputs,
            custom_translation_table=translations,
            verbose=False,
        )
        assert made is not None
        _name_axes(made.model, axes)
        proto = made.model_proto
        [opset] = proto.opset_import  # one domain, or it would not be standard
        return proto.SerializeToString(), {
            "opset": opset.version,
            "ir_version": proto.ir_version,
            "operators": _counted(node.op_type for node in proto.graph.node),
        }

    def load(self, file: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            feeds = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            return [torch.from_numpy(array) for array in session.run(None, feeds)]

        return run


class Program(Format):
    """``torch.export``'s own, which keeps the operator: whoever loads it has imported ddfnet."""

    name, suffix = "pt2", ".pt2"

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        stream = io.BytesIO()
        torch.export.save(program, stream)
        return stream.getvalue(), {"operators": _operators(program)}

    def load(self, file: Path) -> Run:
        module = torch.export.load(file).module()
        return lambda tensors: list(_tuple(module(*tensors)))


class Inductor(Format):
    """A library that AOTInductor compiles for this machine's CPU; the operator stays ddfnet's."""

    name, suffix = "aoti", ".pt2"

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            file = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/package.pt2")
            return Path(file).read_bytes(), {"operators": _operators(program)}

    def load(self, file: Path) -> Run:
        package = torch._inductor.aoti_load_package(str(file))
        return lambda tensors: list(_tuple(package(*tensors)))


FORMATS = ("onnx", "pt2", "aoti")


def format_of(name: str | None, file: Path, opset: int) -> Format:
    """The format of this name, or by the file's suffix.

    Raises:
        ValueError: no such format, or a suffix that is another's.
    """
    if name is None:
        name = {".onnx": "onnx", ".pt2": "pt2"}.get(file.suffix)
        if name is None:
            raise ValueError(f"format must be {', '.join(map(repr, FORMATS))}, or the file *.onnx or *.pt2, got {file}")
    if name not in FORMATS:
        raise ValueError(f"format must be {', '.join(map(repr, FORMATS))}, got {name!r}")
    made: Format = Onnx(opset) if name == "onnx" else Program() if name == "pt2" else Inductor()
    if file.suffix != made.suffix:
        raise ValueError(f"the file of format {name!r} must end in {made.suffix}, got {file}")
    return made


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _counted(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _operators(program: ExportedProgram) -> dict[str, int]:
    return _counted(str(node.target) for node in program.graph.nodes if node.op == "call_function")


def _name_axes(model: Any, axes: dict[str, str]) -> None:
    """Call the program's symbols by these names wherever a shape has them."""
    import onnx_ir

    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.shape is not None:
            lengths = (length if isinstance(length, int) else length.value for length in value.shape)
            # An axis may have no name: None is none of its own, and two of them need not be equal.
            value.shape = onnx_ir.Shape(length if length is None else renamed(length, axes) for length in lengths)
