"""Cases that the operator's tests share, and the kernels that they run on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import ddfnet
from ddfnet.ops import backends, library
from ddfnet.ops.geometry import Combine, Geometry

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# The largest error allowed, relative to the size of the values: a few units in the last place.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def kernels() -> list:
    """List the kernels that this machine can run: the reference, and each instruction set of the compiled kernel."""
    names = ["reference"]
    if backends.chosen() == "auto" and library.can_run(torch.device("cpu"))[0]:
        names += [f"cpu-{isa}" for isa in reversed(library.isas())]
    if backends.can_run("triton", torch.device("cpu"))[0]:
        names.append("triton")
        _interpret_fast()
    return names


def _interpret_fast() -> None:
    """Let Triton's interpreter skip what it is slow at, and round as a GPU does.

    It checks every sum and product of indices for overflow, which test_triton_interpreted.py leaves on; and it patches
    the language again in each function that a kernel calls. Together that is most of its time. And it cuts float32 to
    bfloat16, where a GPU rounds to the nearest.
    """
    import numpy as np
    from triton.runtime import interpreter

    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
    convert = interpreter._convert_float

    def rounding(data, source, target, mode):
        if (str(source), str(target)) == ("fp32", "bf16"):
            return torch.from_numpy(np.array(data)).bfloat16().view(torch.uint16).numpy()
        if (str(source), str(target)) == ("bf16", "fp32"):
            return torch.from_numpy(np.array(data)).view(torch.bfloat16).float().numpy()
        return convert(data, source, target, mode)

    interpreter._convert_float = rounding
    patch, nothing, outside = interpreter._patch_lang, interpreter._LangPatchScope, interpreter.tl.load
    patched: set[str] = set()  # modules, since the kernel was launched

    def patch_once(function):
        if interpreter.tl.load is outside:
            patched.clear()
        if function.__module__ in patched:
            return nothing()
        patched.add(function.__module__)
        return patch(function)

    interpreter._patch_lang = patch_once


# Smaller sizes for Triton's interpreter, which is slow; each case still tests what its name says.
_INTERPRETED = {
    "7x7": {"size": (5, 6)},
    "31x31": {"size": (2, 3)},
    "a-head-a-channel": {"channels": 3, "heads": 3},
    "tall": {"size": (19, 5), "channels": 2},
    "wide": {"size": (2, 70)},
    "stride-million": {"size": (3, 4)},
    "stride-37": {"size": (8, 7)},
    "dilation-300-stride-7": {"size": (11, 5)},
    "stride-2-dilation-90": {"size": (9, 8)},
    "up-2": {"size": (4, 5)},
    "up-2-dilation-2": {"size": (5, 5)},
    "up-3x2": {"size": (4, 5)},
    "up-2-heads": {"size": (4, 5)},
    "up-4-one-channel": {"size": (3, 4)},
}


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Run the block on one of `kernels`."""
    backend, _, isa = name.partition("-")
    before = torch.ops.ddfnet._cpu_isa() if isa else None
    if isa:
        assert torch.ops.ddfnet._set_cpu_isa(isa)
    try:
        with ddfnet.ops.backend(backend):
            yield
    finally:
        if isa:
            torch.ops.ddfnet._set_cpu_isa(before)


@contextmanager
def served_by(module: Any) -> Iterator[None]:
    """Let a module take the compiled kernel's place in the block, except where the reference is chosen by name."""
    right = backends.kernels

    def kernels(device: torch.device) -> Any:
        return right(device) if backends.chosen() == "reference" else module

    try:
        with (
            mock.patch.object(backends, "kernels", kernels),
            mock.patch.object(backends, "_compiled_kernel_serves", lambda: False),
        ):
            backends.refresh()
            yield
    finally:
        backends.refresh()


@dataclasses.dataclass(frozen=True)
class Case:
    id: str
    batch: int = 2
    channels: int = 8
    size: tuple[int, int] = (9, 11)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | None = None
    dilation: tuple[int, int] = (1, 1)
    heads: int = 1
    combine: str = "mul"
    filters: str = "both"
    scale: tuple[int, int] | None = None  # for ddf_upsample

    def on(self, name: str) -> Case:
        """Return the case for this kernel: an interpreted one is smaller, if it is not small already."""
        if name != "triton":
            return self
        smaller = {} if self.size <= (4, 4) else _INTERPRETED.get(self.id, {})
        batch = self.batch if self.id in ("3x3", "up-2") else min(self.batch, 1)
        return dataclasses.replace(self, batch=batch, **smaller)

    @property
    def geometry(self) -> Geometry:
        padding = self.padding
        if padding is None:
            padding = tuple(d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel, strict=True))
        scale = self.scale or (1, 1)
        return Geometry(self.kernel, self.stride, padding, self.dilation, scale, Combine(self.combine))

    @property
    def positions(self) -> tuple[int, int]:
        """Rows and columns of filter positions."""
        return self.geometry.positions(self.size)

    @property
    def has_output(self) -> bool:
        """True if the kernel fits into the padded map."""
        sizes = zip(self.size, *self.geometry[:4], strict=True)
        return all(n + 2 * p > d * (k - 1) for n, k, _, p, d in sizes)

    def tensors(self, dtype: torch.dtype = torch.float64, memory_format: str = "contiguous") -> list[Tensor | None]:
        """Return a random input, channel filter and spatial filter as the public function takes them."""
        taps, scale = self.kernel[0] * self.kernel[1], self.scale
        sub = 1 if scale is None else scale[0] * scale[1]
        shapes = [
            (self.batch, self.channels, *self.size),
            (self.batch, *(() if scale is None else (sub,)), self.channels, *self.kernel),
            (self.batch, sub * self.heads * taps, *self.positions),
        ]
        present = [True, self.filters != "spatial", self.filters != "channel"]
        tensors = [torch.randn(s).to(dtype) if there else None for s, there in zip(shapes, present, strict=True)]
        return [
            t.contiguous(memory_format=FORMATS[memory_format]) if t is not None and t.dim() == 4 else t for t in tensors
        ]

    def call(self, *tensors: Tensor | None) -> Tensor:
        if self.scale is not None:
            return ddfnet.ddf_upsample(
                *tensors,
                scale_factor=self.scale,
                kernel_size=self.kernel,
                dilation=self.dilation,
                combine=self.combine,
            )
        return ddfnet.ddf(
            *tensors,
            kernel_size=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            combine=self.combine,
        )


_BASE = [
    Case("3x3"),
    Case("add", combine="add"),
    Case("channel-only", filters="channel"),
    Case("spatial-only", filters="spatial"),
    Case("channel-only-add", filters="channel", combine="add"),
    Case("spatial-only-add", filters="spatial", combine="add"),
    Case("heads", heads=4),
    Case("heads-add", heads=2, combine="add", channels=6),
    Case("a-head-a-channel", heads=8),
    Case("1x1", kernel=(1, 1)),
    Case("2x2", kernel=(2, 2)),
    Case("4x1", kernel=(4, 1)),
    Case("2x5", kernel=(2, 5), channels=3),
    Case("7x7", kernel=(7, 7), channels=5),
    Case("31x31", kernel=(31, 31), channels=2, batch=1),
    Case("stride-2-odd", stride=(2, 2), size=(7, 7)),
    Case("stride-2-wide", stride=(2, 2), size=(8, 37)),
    Case("stride-3x1", stride=(3, 1)),
    Case("stride-over-kernel", stride=(4, 3), kernel=(2, 1)),
    Case("dilation-2", dilation=(2, 2)),
    Case("dilation-2-stride-2", dilation=(2, 2), stride=(2, 2)),
    Case("dilation-9", dilation=(9, 9)),
    Case("dilation-1x3-stride-2x1", dilation=(1, 3), stride=(2, 1), kernel=(3, 2)),
    Case("no-padding", padding=(0, 0)),
    Case("padding-over-kernel", padding=(4, 3)),
    Case("padding-1x0", padding=(1, 0), kernel=(5, 3)),
    Case("smaller-than-kernel", size=(2, 3), kernel=(5, 7)),
    Case("one-pixel", size=(1, 1)),
    Case("one-row", size=(1, 40)),
    Case("one-channel", channels=1),
    Case("many-channels", channels=70, size=(5, 6)),
    Case("whole-vectors", channels=64, size=(6, 20)),
    Case("whole-vectors-add", channels=32, size=(6, 7), combine="add"),
    Case("whole-vectors-stride-2", channels=32, size=(9, 9), stride=(2, 2)),
    Case("whole-vectors-dilation-2-stride-2", channels=32, size=(12, 13), stride=(2, 2), dilation=(2, 2)),
    Case("whole-vectors-channel-only", channels=32, size=(6, 7), filters="channel"),
    Case("whole-vectors-spatial-only", channels=32, size=(6, 7), filters="spatial"),
    Case("heads-of-vectors", channels=96, size=(5, 6), heads=3),
    Case("wide", channels=2, size=(3, 700), batch=1),
    Case("tall", channels=3, size=(300, 5), batch=1),
    Case("batch-0", batch=0),
    # Far apart: nothing may be as large as the distance.
    Case("stride-million", stride=(10**6, 10**6), channels=3),
    Case("stride-37", stride=(37, 5), size=(40, 41)),
    Case("dilation-million", dilation=(10**6, 10**6), channels=3),
    Case("dilation-300-stride-7", dilation=(300, 1), stride=(7, 2), channels=5, size=(50, 9)),
    Case("stride-2-dilation-90", dilation=(90, 90), stride=(2, 2), size=(30, 20), heads=2),
]
_UPSAMPLE = [
    Case("up-2", scale=(2, 2)),
    Case("up-2-add", scale=(2, 2), combine="add"),
    Case("up-2-heads", scale=(2, 2), heads=2),
    Case("up-2-spatial-only", scale=(2, 2), filters="spatial"),
    Case("up-2-channel-only", scale=(2, 2), filters="channel"),
    Case("up-3x2", scale=(3, 2), kernel=(3, 5)),
    Case("up-1", scale=(1, 1)),
    Case("up-2-dilation-2", scale=(2, 2), dilation=(2, 2)),
    Case("up-2-whole-vectors", scale=(2, 2), channels=32, size=(4, 5)),
    Case("up-4-one-channel", scale=(4, 4), channels=1, size=(5, 6)),
    Case("up-2-batch-0", scale=(2, 2), batch=0),
]
CASES = [pytest.param(case, id=case.id) for case in _BASE + _UPSAMPLE]
SMALL_CASES = [  # for what is checked by finite differences
    pytest.param(dataclasses.replace(case, batch=2, channels=2 * case.heads, size=(3, 4)), id=case.id)
    for case in _BASE + _UPSAMPLE
    if case.heads <= 2
    and case.kernel[0] * case.kernel[1] <= 9
    and not case.id.startswith(("whole", "batch", "wide", "tall"))
]


# An interpreter is slow: it has these with every dtype and derivative, the others in float32.
_EVERY_DTYPE = {"3x3", "add", "heads", "spatial-only", "stride-2-odd", "dilation-2", "2x5", "whole-vectors", "up-2"}
_EVERY_DERIVATIVE = {"3x3", "add", "channel-only", "spatial-only-add", "2x2", "stride-2-odd", "dilation-2", "up-2"}
_SECOND_DERIVATIVES = {"2x2", "spatial-only-add"}


def values() -> list:
    """List case, kernel, dtype and memory format of each test of values."""
    return [
        pytest.param(case, name, dtype, memory_format, id=f"{case.id}-{name}-{str(dtype)[6:]}-{memory_format}")
        for case, name, dtype, memory_format in itertools.product(_BASE + _UPSAMPLE, kernels(), TOLERANCE, FORMATS)
        if name != "triton" or dtype == torch.float32 or case.id in _EVERY_DTYPE
    ]


def derivatives(order: int) -> list:
    """List case and kernel of each test by finite differences."""
    interpreted = _EVERY_DERIVATIVE if order == 1 else _SECOND_DERIVATIVES
    return [
        pytest.param(case, name, id=f"{case.id}-{name}")
        for (case,), name in itertools.product((case.values for case in SMALL_CASES), kernels())
        if name != "triton" or case.id in interpreted
    ]


def assert_close(name: str, got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Assert equality within the dtype's tolerance, relative to the expected size; NaN only where it is expected."""
    assert got.shape == expected.shape, name
    assert got.dtype == dtype, name
    got = got.double()
    assert torch.equal(got.isnan(), expected.isnan()), f"{name}: NaN at other places"
    error = (got - expected).abs().nan_to_num(0)
    allowed = TOLERANCE[dtype] * (expected.abs().nan_to_num(0) + expected.abs().nan_to_num(0).mean().nan_to_num(0))
    assert bool((error <= allowed + 1e-300).all()), (
        f"{name}: largest error {error.max():.3g}, allowed there {allowed.max():.3g}"
    )
