"""Public call of the export: trace, write, check, report."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ddfnet import files
from ddfnet._version import __version__
from ddfnet.export.formats import Format, Run, get_format
from ddfnet.export.inputs import (
    Axes,
    CopiedInputs,
    FlatOutputs,
    Inputs,
    InputSize,
    dynamic_axes,
    flatten_outputs,
    images_like,
    other_sizes,
    rename_symbols,
    sample_inputs,
)
from ddfnet.export.verify import Difference, compare

OPSET = 18
_CHECK = 1  # seed of the check's inputs
MODULES = ("onnx", "onnxscript", "onnxruntime")  # packages of the extra


class ExportError(RuntimeError):
    """Failure to trace a model, or to write it in a format."""


class MismatchError(RuntimeError):
    """Mismatch of a file's outputs and the model's; the file and its report stay.

    Attributes:
        report: report of the file.
    """

    def __init__(self, report: ExportReport) -> None:
        super().__init__(f"{report.file} does not agree with the model: {report.worst}")
        self.report = report


def report_file(file: Path) -> Path:
    """Return the path of a file's report."""
    return file.with_name(f"{file.name}.json")


@dataclass(frozen=True)
class ExportReport:
    """Report on a file and its differences from the model; a JSON file beside it says the same.

    Attributes:
        file: path of the file.
        facts: content of the JSON file without the differences.
        differences: one per size and output; none where the file was not checked.
    """

    file: Path
    facts: dict[str, Any]
    differences: tuple[Difference, ...]

    @property
    def json_file(self) -> Path:
        return report_file(self.file)

    @property
    def worst(self) -> Difference | None:
        """Largest difference as a share of the tolerance; None where the file was not checked."""
        return max(self.differences, key=lambda each: each.share, default=None)

    @property
    def agrees(self) -> bool | None:
        """True if every difference is tolerated; None where the file was not checked."""
        return None if self.worst is None else self.worst.agrees

    def as_dict(self) -> dict[str, Any]:
        differences = [
            # JSON has no nan and no inf.
            {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in asdict(each).items()}
            for each in self.differences
        ]
        return self.facts | {"agrees": self.agrees, "differences": differences}


def export(
    model: nn.Module,
    inputs: Tensor | Inputs,
    file: str | Path,
    *,
    format: str | None = None,
    size: InputSize | None = None,
    step: int = 1,
    opset: int = OPSET,
    check: bool | Sequence[InputSize] = True,
    tolerance: float | None = None,
    times: int = 0,
) -> ExportReport:
    """Write a model as ONNX, as a program of ``torch.export`` or as a compiled library, and check the file.

    Batch, height and width stay dynamic. ONNX files have standard operators only: a DDF is a Slice, a product per
    filter and a sum per tap.

    Args:
        model: model in evaluation mode, on the CPU. A tuple, list or dictionary of outputs becomes one output per
            tensor.
        inputs: a tensor (N, C, H, W) that stands for all inputs, for a model that takes one map; else a function of
            batch, height and width that returns the model's inputs by name, in their order, as that of `images`.
        file: path of the file; ``FILE.json`` beside it is the report. Both are written atomically.
        format: ``"onnx"``, ``"pt2"`` (for ``torch.export.load``) or ``"aoti"`` (for
            ``torch._inductor.aoti_load_package``); None takes the one of the suffix. A process that loads one of the
            last two has imported ddfnet, or has loaded the library of `ddfnet.ops.library_path`.
        size: batch, height and width at which the model is traced; None takes those of the tensor, or (2, 64, 96). The
            batch must be 2 or more, because PyTorch takes a batch of one for a constant.
        step: number that heights and widths must be multiples of.
        opset: version of ONNX's operators, 18 or later.
        check: whether to run the file at three other sizes and compare, programs of PyTorch with contiguous and with
            channels_last inputs; or those sizes, at which the model is called before anything is written.
        tolerance: largest difference as a share of the output's root mean square, or of the expected value where that
            is larger; 0 or more. None is 1e-4, for float16 1e-2, for bfloat16 5e-2, and where the model's own rounding
            is larger, eight times what float64 changes in its output, but at most 1e-2 of the root mean square.
        times: number of timings of model and file, in turns, at the traced size. They are a hint only, because the
            threads of each library keep spinning beside the other; `ddfnet bench export` waits for them.

    Returns:
        The report.

    Raises:
        ValueError: a model in training mode or on another device, or one that cannot be called with such inputs; a
            wrong option; inputs that do not fit.
        TypeError: a model, inputs or sizes of another type.
        ModuleNotFoundError: the extra ``export`` is not installed, for ONNX.
        ExportError: PyTorch cannot trace or convert the model, or the file that is timed unchecked does not run.
        MismatchError: the file differs from the model by more than is tolerated, or does not run here. The file stays.
        OSError: a file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from ddfnet.export import export
        >>> from ddfnet.nn import DDF2d
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export(DDF2d(8).eval(), torch.randn(2, 8, 12, 16), f"{folder}/layer.pt2")
        >>> report.agrees, report.facts["inputs"]
        (True, {'input': {'dtype': 'float32', 'shape': ['batch', 8, 'height', 'width']}})

    Source: ours; PyTorch traces and converts.
    """
    file = Path(file)
    kind = get_format(format, file, opset)
    _check_model(model)
    if kind.name == "onnx":
        _check_onnx(opset)
    _check_numbers(step, tolerance, times)
    if isinstance(inputs, Tensor):
        example, inputs = inputs, images_like(inputs)
        size = (example.shape[0], *example.shape[2:]) if size is None else size  # type: ignore[assignment]
    elif not callable(inputs):
        raise TypeError(f"inputs must be a tensor or a function of batch, height, width, got {type(inputs).__name__}")
    size = _check_size("size", (2, 64, 96) if size is None else size, step, batch=2)
    sizes = _check_sizes(check, size, step)
    given = sample_inputs(inputs, size)
    found, named = _call(model, given, size, step), dynamic_axes(inputs, size, step)
    expected = [(each, _call(model, sample_inputs(inputs, each, _CHECK), each, step)) for each in sizes]
    with torch.no_grad():
        program = _trace(kind.prepare(model), tuple(given.values()), named, flat=list(found) != ["output"])
        symbols = _symbols(program, named)
        [results] = next(node.args for node in program.graph.nodes if node.op == "output")
        content, about = _write(kind, program, list(given), list(found), symbols)
    files.atomic_write(file, content)
    run = _runner(kind, file)
    differences = [
        difference
        for each, outputs in expected
        for difference in _check_file(kind, run, model, sample_inputs(inputs, each, _CHECK), each, outputs, tolerance)
    ]
    facts: dict[str, Any] = {
        "file": file.name,
        "format": kind.name,
        **about,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": _describe(given, _placeholders(program, named), symbols),
        "outputs": _describe(found, results, symbols),
        "traced": size,
        "step": step,
        "tolerance": tolerance,
        "versions": _versions(),
        "system": platform.platform(terse=True),
    }
    if times and all(each.agrees for each in differences):
        facts["milliseconds"] = _time(model, run, list(given.values()), times) | {"threads": torch.get_num_threads()}
    report = ExportReport(file, facts, tuple(differences))
    files.atomic_write(report.json_file, json.dumps(report.as_dict(), indent=2) + "\n")
    if report.agrees is False:
        raise MismatchError(report)
    return report


# --- checks of the arguments --------------------------------------------------------------------------------------


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    training = next((name or "it" for name, module in model.named_modules() if module.training), None)
    if training is not None:
        raise ValueError(f"the model must be in evaluation mode, got one of which {training} trains: call model.eval()")
    device = next((each.device for each in (*model.parameters(), *model.buffers()) if each.device.type != "cpu"), None)
    if device is not None:
        raise ValueError(f"the model must be on the CPU, got one on {device}: call model.cpu(), the file runs anywhere")


def _check_onnx(opset: int) -> None:
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"{', '.join(missing)} not installed; run: pip install 'ddfnet[export]'")
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise ValueError(
            f"opset must be from {OPSET} to {newest}, the newest that onnx {onnx.__version__} knows, got {opset}"
        )


def _check_numbers(step: int, tolerance: float | None, times: int) -> None:
    for name, value, least in (("step", step, 1), ("times", times, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 <= tolerance < math.inf):
        raise ValueError(f"tolerance must be a finite number from 0 on, got {tolerance!r}")


def _check_size(name: str, size: Any, step: int, *, batch: int) -> InputSize:
    """Return the size that the user gave if it is valid, with at least this batch."""
    if (
        not isinstance(size, Sequence)
        or [type(length) for length in size] != [int] * 3
        or any(length < least for length, least in zip(size, (batch, 1, 1), strict=True))
    ):
        raise ValueError(
            f"{name} must be (batch, height, width) with a batch of {batch} or more, in whole numbers, got {size!r}"
        )
    if size[1] % step or size[2] % step:
        raise ValueError(f"height and width of {name} must be multiples of step, {step}, got {size[1]}x{size[2]}")
    return size[0], size[1], size[2]


def _check_sizes(check: bool | Sequence[InputSize], size: InputSize, step: int) -> list[InputSize]:
    if isinstance(check, bool):
        return other_sizes(size, step) if check else []
    if not isinstance(check, Sequence) or not check:
        raise ValueError(f"check must be True, False or sizes (batch, height, width), got {check!r}")
    return [_check_size("check", each, step, batch=1) for each in check]


# --- steps --------------------------------------------------------------------------------------------------------


def _trace(model: nn.Module, given: tuple[Tensor, ...], named: Axes, *, flat: bool) -> ExportedProgram:
    dynamic = tuple(
        {axis: Dim.DYNAMIC for axis, length in enumerate(lengths) if isinstance(length, str)}
        for lengths in named.values()
    )
    traced = FlatOutputs(model).eval() if flat else model
    shapes = {"inputs": dynamic} if isinstance(traced, FlatOutputs | CopiedInputs) else dynamic
    try:
        return torch.export.export(traced, given, dynamic_shapes=shapes)
    except Exception as error:  # a model's own code raises any type
        raise ExportError(f"torch.export cannot trace the model: {_one_line(error)}") from error


def _placeholders(program: ExportedProgram, named: Axes) -> list[torch.fx.Node]:
    return [node for node in program.graph.nodes if node.op == "placeholder"][-len(named) :]


def _symbols(program: ExportedProgram, named: Axes) -> dict[str, str]:
    """Return our names of the program's symbols; two symbols that it keeps apart have two names."""
    symbols: dict[str, str] = {}
    for node, (name, lengths) in zip(_placeholders(program, named), named.items(), strict=True):
        for own, length in zip(node.meta["val"].shape, lengths, strict=True):
            if isinstance(length, str) and str(own).isidentifier():
                called = length if length not in symbols.values() else f"{name}_{length}"
                symbols.setdefault(str(own), called)
    return symbols


def _write(
    kind: Format, program: ExportedProgram, names: list[str], outputs: list[str], symbols: dict[str, str]
) -> tuple[bytes, dict[str, Any]]:
    try:
        return kind.content(program, names, outputs, symbols)
    except Exception as error:
        raise ExportError(f"PyTorch cannot write the model as {kind.name}: {_one_line(error)}") from error


def _runner(kind: Format, file: Path) -> Run:
    """Return a function that runs the file. Its first call loads the file; any failure is an ExportError."""
    load = cache(kind.load)

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        try:
            with torch.no_grad():
                return load(file)(tensors)
        except Exception as error:
            raise ExportError(f"{file} was written, and does not run: {_one_line(error)}") from error

    return run


def _call(model: nn.Module, given: dict[str, Tensor], size: InputSize, step: int) -> dict[str, Tensor]:
    """Return the model's outputs, by names that differ from those of the inputs."""
    try:
        with torch.no_grad():
            outputs = model(*given.values())
    except Exception as error:  # a model's own code raises any type
        raise ValueError(
            f"the model cannot be called with {'x'.join(map(str, size))} (batch, height, width; step, which heights "
            f"and widths must be multiples of, is {step}): {_one_line(error)}"
        ) from error
    return _named(outputs, given)


def _named(outputs: Any, given: Iterable[str]) -> dict[str, Tensor]:
    found = flatten_outputs(outputs)
    return {f"output_{name}" if name in given else name: tensor for name, tensor in found.items()}


def _check_file(
    kind: Format,
    run: Run,
    model: nn.Module,
    given: dict[str, Tensor],
    size: InputSize,
    expected: dict[str, Tensor],
    tolerance: float | None,
) -> list[Difference]:
    """Run the file with inputs in each memory format; return the worst difference of each output."""
    found: list[list[Difference]] = []
    for layout, memory_format in kind.layouts.items():
        maps = [each.contiguous(memory_format=memory_format) if each.dim() == 4 else each for each in given.values()]
        try:
            got = run(maps)
        except ExportError as error:
            why = f"the file does not run: {_one_line(error)}"
            return [Difference(size, next(iter(expected)), math.inf, math.inf, layout=layout, why=why)]
        differences = compare(size, expected, got, tolerance, layout=layout)
        if tolerance is None and not all(each.agrees or each.why for each in differences):
            differences = compare(size, expected, got, tolerance, _call_in_double(model, given), layout=layout)
        found.append(differences)
    if len({len(each) for each in found}) > 1:  # another number of outputs
        return min(found, key=len)
    return [max(each, key=lambda own: own.share) for each in zip(*found, strict=True)]


def _call_in_double(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the outputs of the model in float64; None if it has a dtype of its own inside."""
    inputs = {name: each.double() if each.is_floating_point() else each for name, each in given.items()}
    try:
        with torch.no_grad():
            outputs = copy.deepcopy(model).double()(*inputs.values())
    except Exception:  # a model's own code raises any type
        return None
    return _named(outputs, given)


def _time(model: nn.Module, run: Run, given: list[Tensor], times: int) -> dict[str, float]:
    def milliseconds(call: Callable[[], Any]) -> float:
        before = time.perf_counter()
        call()
        return (time.perf_counter() - before) * 1e3

    def eager() -> Any:
        with torch.inference_mode():
            return model(*given)

    rounds = [(milliseconds(eager), milliseconds(lambda: run(given))) for _ in range(times + 1)][1:]
    return {"model": statistics.median(own for own, _ in rounds), "file": statistics.median(own for _, own in rounds)}


# --- report -------------------------------------------------------------------------------------------------------


def _describe(names: Iterable[str], nodes: Iterable[torch.fx.Node], symbols: dict[str, str]) -> dict[str, Any]:
    values = (node.meta["val"] for node in nodes)
    return {
        name: {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [rename_symbols(length, symbols) for length in value.shape],
        }
        for name, value in zip(names, values, strict=True)
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"ddfnet": __version__, "python": platform.python_version()}
    for name in ("torch", *MODULES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _one_line(error: Exception) -> str:
    """Return an exception in one line: the first cause, because it says most."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
