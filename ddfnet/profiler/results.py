"""Results of an estimate, per layer and in total, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ddfnet.table import format_bytes, format_si, table

TensorShape = tuple[int, ...]


@dataclass(frozen=True)
class LayerEstimate:
    """One call of a layer, or the work that a module does itself between the calls of its layers.

    Attributes:
        name: path of the layer as in ``named_modules``; "(root)" is the module itself, "name#2" a second call.
        kind: class of the layer.
        inputs: shapes of the input tensors.
        outputs: shapes of the output tensors.
        parameters: number of parameters; a shared parameter counts in the call that comes first.
        flops: FLOPs of the forward pass, as FlopCounterMode counts them.
        output_bytes: size of the output tensors.
        saved_bytes: size of the tensors that this call was the first to save for the backward pass.
    """

    name: str
    kind: str
    inputs: tuple[TensorShape, ...]
    outputs: tuple[TensorShape, ...]
    parameters: int
    flops: int
    output_bytes: int
    saved_bytes: int

    @property
    def macs(self) -> float:
        """Multiply-accumulates, half the FLOPs; a tap of a DDF with both filters is 3 FLOPs and so 1.5 MACs."""
        return self.flops / 2


@dataclass(frozen=True)
class Totals:
    """Costs of the whole module, predicted or measured. Bytes exclude parameters, buffers and inputs.

    Attributes:
        flops: FLOPs of a forward pass, as FlopCounterMode counts them.
        training_flops: FLOPs of a forward and a backward pass.
        saved_bytes: size of the tensors that autograd holds for the backward pass when the forward pass has ended.
        peak_bytes: largest size that is alive at once in a forward pass without gradients.
        training_peak_bytes: the same for a forward and a backward pass, including the parameters' gradients.
        seconds: time of a forward pass without gradients; None if predicted.
        training_seconds: time of a forward and a backward pass; None if predicted.
    """

    flops: int
    training_flops: int
    saved_bytes: int
    peak_bytes: int
    training_peak_bytes: int
    seconds: float | None = None
    training_seconds: float | None = None

    @property
    def macs(self) -> float:
        """Multiply-accumulates of a forward pass, half its FLOPs."""
        return self.flops / 2


@dataclass(frozen=True)
class Estimate:
    """Result of `ddfnet.profiler.estimate`; ``str`` formats it as two tables.

    Attributes:
        kind: class of the module.
        training: mode of the module.
        input_shapes: one shape per input.
        dtype: dtype of the inputs.
        layers: calls of layers, in the order in which they end.
        parameters: number of parameters, each counted once, including those of layers that were not called.
        parameter_bytes: size of the parameters.
        input_bytes: size of the inputs.
        predicted: costs found without running the module.
        measured: costs found by running the module, or None.
    """

    kind: str
    training: bool
    input_shapes: tuple[TensorShape, ...]
    dtype: torch.dtype
    layers: tuple[LayerEstimate, ...]
    parameters: int
    parameter_bytes: int
    input_bytes: int
    predicted: Totals
    measured: Totals | None

    def __str__(self) -> str:
        mode = "training" if self.training else "evaluation"
        dtype = str(self.dtype).removeprefix("torch.")
        title = (
            f"{self.kind} on {format_shapes(self.input_shapes)} {dtype}, in {mode} mode: "
            f"{format_si(self.parameters)} parameters ({format_bytes(self.parameter_bytes)}), "
            f"inputs {format_bytes(self.input_bytes)}"
        )
        return "\n\n".join([title, self._layer_table(), self._total_table()])

    def _layer_table(self) -> str:
        headers = ["layer", "type", "shape", "parameters", "MACs", "output", "saved for backward"]
        rows = [
            [
                layer.name,
                layer.kind,
                f"{format_shapes(layer.inputs)} -> {format_shapes(layer.outputs)}",
                format_si(layer.parameters),
                format_si(layer.macs),
                format_bytes(layer.output_bytes),
                format_bytes(layer.saved_bytes),
            ]
            for layer in self.layers
        ]
        return table(headers, rows, left=3)

    def _total_table(self) -> str:
        columns = {"predicted": self.predicted} | ({"measured": self.measured} if self.measured else {})
        lines: dict[str, Callable[[Totals], str]] = {
            "forward MACs": lambda totals: format_si(totals.macs),
            "forward FLOPs": lambda totals: format_si(totals.flops),
            "forward + backward FLOPs": lambda totals: format_si(totals.training_flops),
            "saved for backward": lambda totals: format_bytes(totals.saved_bytes),
            "peak, inference": lambda totals: format_bytes(totals.peak_bytes),
            "peak, forward + backward": lambda totals: format_bytes(totals.training_peak_bytes),
        }
        if self.measured:
            lines["time, inference"] = lambda totals: _format_time(totals.seconds)
            lines["time, forward + backward"] = lambda totals: _format_time(totals.training_seconds)
        rows = [[name, *(line(totals) for totals in columns.values())] for name, line in lines.items()]
        return table(["total", *columns], rows)


def format_shapes(shapes: Sequence[TensorShape]) -> str:
    """Format shapes as "2x64x56x56 + 2x3x56x56"."""
    return " + ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "none"


def _format_time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"
