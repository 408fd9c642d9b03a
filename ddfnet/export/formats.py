"""File formats of an export: writers of traced programs, and runners of the files."""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ddfnet.export.inputs import CopiedInputs, rename_symbols
from ddfnet.ops.decomposition import keep_operator

Run = Callable[[Sequence[Tensor]], list[Tensor]]


class Format(ABC):
    """Format of a file.

    Attributes:
        name: name of the format.
        suffix: suffix of its files.
        layouts: memory formats of the inputs that a file is checked with.
        opset: version of ONNX's operators.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    layouts: ClassVar[dict[str, torch.memory_format]] = {
        "contiguous": torch.contiguous_format,
        "channels_last": torch.channels_last,
    }

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model as it is traced for this format."""
        return model

    @abstractmethod
    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the content of the file, and further facts for the report.

        Args:
            program: the traced model.
            names: names of the inputs.
            outputs: names of the outputs.
            axes: our names of the program's symbols.
        """

    @abstractmethod
    def load(self, file: Path) -> Run:
        """Load a file as a user does, and return a function that runs it."""


class Onnx(Format):
    """File of ONNX, which ONNX Runtime runs on the CPU."""

    name, suffix = "onnx", ".onnx"
    layouts: ClassVar[dict[str, torch.memory_format]] = {"contiguous": torch.contiguous_format}  # ONNX has no strides

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        translations = import_module("ddfnet.export.onnx_ops").TRANSLATIONS
        with keep_operator():
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
        [opset] = proto.opset_import  # a single domain: that of the standard operators
        return proto.SerializeToString(), {
            "opset": opset.version,
            "ir_version": proto.ir_version,
            "operators": _count(node.op_type for node in proto.graph.node),
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
    """Program of ``torch.export``. It calls our operator, which is in the library of `ddfnet.ops.library_path`."""

    name, suffix = "pt2", ".pt2"

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        stream = io.BytesIO()
        torch.export.save(program, stream)
        return stream.getvalue(), {"operators": _count_operators(program)}

    def load(self, file: Path) -> Run:
        module = torch.export.load(file).module()
        return lambda tensors: list(_as_tuple(module(*tensors)))


class Inductor(Format):
    """Library that AOTInductor compiles for this machine's CPU; it calls our operator.

    AOTInductor (torch 2.14.1) takes the strides of the inputs for those of the example, and checks nothing: other
    strides give wrong numbers. The model therefore starts with copies of its inputs.
    """

    name, suffix = "aoti", ".pt2"

    def prepare(self, model: nn.Module) -> nn.Module:
        return CopiedInputs(model).eval()

    def content(
        self, program: ExportedProgram, names: Sequence[str], outputs: Sequence[str], axes: dict[str, str]
    ) -> tuple[bytes, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            file = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/package.pt2")
            return Path(file).read_bytes(), {"operators": _count_operators(program)}

    def load(self, file: Path) -> Run:
        package = torch._inductor.aoti_load_package(str(file))
        return lambda tensors: list(_as_tuple(package(*tensors)))


FORMATS: dict[str, type[Format]] = {each.name: each for each in (Onnx, Program, Inductor)}


def get_format(name: str | None, file: Path, opset: int) -> Format:
    """Return the format of a name, or of the suffix of a file: a program for ``.pt2``.

    Raises:
        ValueError: an unknown format, or the suffix of another one.
    """
    if name is None:
        name = next((each.name for each in FORMATS.values() if each.suffix == file.suffix), None)
        if name is None:
            raise ValueError(f"format must be {', '.join(map(repr, FORMATS))}, or the file *.onnx or *.pt2, got {file}")
    if name not in FORMATS:
        raise ValueError(f"format must be {', '.join(map(repr, FORMATS))}, got {name!r}")
    made = FORMATS[name](opset)
    if file.suffix != made.suffix:
        raise ValueError(f"the file of format {name!r} must end in {made.suffix}, got {file}")
    return made


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _count(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _count_operators(program: ExportedProgram) -> dict[str, int]:
    return _count(str(node.target) for node in program.graph.nodes if node.op == "call_function")


def _name_axes(model: Any, axes: dict[str, str]) -> None:
    """Rename the program's symbols in all shapes."""
    import onnx_ir

    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.shape is not None:
            lengths = (length if isinstance(length, int) else length.value for length in value.shape)
            # An axis without a name is None: two of them need not be equal.
            value.shape = onnx_ir.Shape(
                length if length is None else rename_symbols(length, axes) for length in lengths
            )
