"""Compilation of the GPU kernels for GPUs that are not present, and figures read off the compiled code.

The package's own code launches the kernels, on tensors that have shapes and no memory; each launch is compiled only.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ddfnet.ops.geometry import Geometry
from ddfnet.ops.triton import launcher


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet, with the speeds of the fastest variant with that memory."""

    name: str
    target: GPUTarget
    num_sms: int
    gigahertz: float = 0.0
    dram: float = 0.0  # gigabytes per second
    cache_bytes_per_clock: float = 0.0  # from the second-level cache
    registers: int = 65536  # per multiprocessor
    warps: int = 64  # resident per multiprocessor


A100 = Gpu("A100", GPUTarget("cuda", 80, 32), 108, 1.41, 1555, 5120)
H100 = Gpu("H100", GPUTarget("cuda", 90, 32), 132, 1.755, 3350, 5120)
MI300 = Gpu("MI300", GPUTarget("hip", "gfx942", 64), 304)
GPUS = {gpu.name: gpu for gpu in (A100, H100, MI300)}


@dataclass
class Compiled:
    """One launch of a kernel, and the figures of its compiled code."""

    kernel: str
    programs: int
    options: dict[str, Any]  # GEOMETRY, TILE, INDEX_DTYPE, ACC_DTYPE, num_warps
    registers: int
    spills: int  # instructions that store to or load from the stack
    shared: int  # bytes of shared memory
    widths: Counter[str] = field(default_factory=Counter)  # "load 128": number of instructions of this width in bits
    loops: list[tuple[int, int]] = field(
        default_factory=list
    )  # (instructions, depth of the loops around them), NVIDIA only

    @property
    def warps(self) -> int:
        return int(self.options["num_warps"])


class _Driver:
    """A driver that has only the parts that Triton asks for to compile."""

    def __init__(self, gpu: Gpu) -> None:
        self.target = gpu.target
        self.device = list(GPUS).index(gpu.name)  # one device per GPU, so that Triton's cache keeps them apart

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling_for(gpu: Gpu) -> Iterator[list[Compiled]]:
    """Compile for this GPU each kernel that is launched within the block, and collect the results in the list."""
    found: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        compiled = run(self, *arguments, grid=grid, warmup=True, **options)
        found.append(_read(self.fn.__name__, grid[0], options, compiled))

    architecture = gpu.target.arch if gpu.target.backend == "hip" else f"sm_{gpu.target.arch}"
    with (
        mock.patch.object(driver, "_active", _Driver(gpu)),
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(launcher, "_architecture", lambda device: architecture),
        mock.patch.object(launcher, "_num_sms", lambda device: gpu.num_sms),
    ):
        yield found


def compile_case(
    gpu: Gpu, shape: tuple[int, int, int, int], kernel_size: int, dtype: torch.dtype, memory_format: torch.memory_format
) -> list[Compiled]:
    """Compile the three kernels of a call and its backward pass, in this order: output, input, filters."""
    (n, c, h, w), k = shape, kernel_size
    geometry = Geometry((k, k), padding=(k // 2, k // 2))

    def empty(*sizes: int, memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
        return torch.empty(sizes, dtype=dtype, device="meta", memory_format=memory_format)

    input, grad = (empty(n, c, h, w, memory_format=memory_format) for _ in range(2))
    channel, spatial = empty(n, c, k, k), empty(n, k * k, h, w, memory_format=memory_format)
    with compiling_for(gpu) as found:
        launcher.ddf(input, channel, spatial, geometry)
        launcher.ddf_backward(grad, input, channel, spatial, geometry, [True, True, True])
    return found


# --- compiled code --------------------------------------------------------------------------------------------------


def _read(name: str, programs: int, options: dict[str, Any], compiled: Any) -> Compiled:
    options = {key: options[key] for key in ("GEOMETRY", "TILE", "INDEX_DTYPE", "ACC_DTYPE", "num_warps")}
    shared = compiled.metadata.shared
    if "cubin" in compiled.asm:
        return _read_cuda(name, programs, options, shared, compiled.asm["cubin"])
    text = compiled.asm["amdgcn"]

    def number(key: str) -> int:
        return int(re.search(rf"\.{key}:\s+(\d+)", text)[1])  # type: ignore[index]

    widths: Counter[str] = Counter()
    for kind, size in re.findall(r"\b(?:global|buffer)_(load|store)_(\w+)", text):
        widths[f"{kind} {_AMD_BITS[size.split('_')[0]]}"] += 1
    spills = number("vgpr_spill_count") + number("sgpr_spill_count")
    return Compiled(name, programs, options, number("vgpr_count"), spills, shared, widths)


_AMD_BITS = {
    "dword": 32, "dwordx2": 64, "dwordx3": 96, "dwordx4": 128, "b32": 32, "b64": 64, "b96": 96, "b128": 128,
    "short": 16, "ushort": 16, "sshort": 16, "b16": 16, "u16": 16, "d16": 16, "ubyte": 8, "byte": 8,
}  # fmt: skip


@functools.cache
def _tool(name: str) -> str:
    """Return the path of one of NVIDIA's tools, which Triton's wheel has."""
    return str(getattr(triton.knobs.nvidia, name).path)


def _read_cuda(name: str, programs: int, options: dict[str, Any], shared: int, cubin: bytes) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        usage = subprocess.run([_tool("cuobjdump"), "-res-usage", file], capture_output=True, text=True, check=True)
        listing = subprocess.run([_tool("nvdisasm"), "-c", file], capture_output=True, text=True, check=True).stdout
    registers = int(re.search(r"REG:(\d+)", usage.stdout)[1])  # type: ignore[index]
    instructions, labels, jumps = [], {}, []
    for line in listing.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line):
            if found[1].startswith("BRA") and (target := re.search(r"\.L_x_\d+", found[2])):
                jumps.append((len(instructions), target[0]))
            instructions.append(found[1])
    loops = [(labels[target], end) for end, target in jumps if labels[target] < end]
    depths = Counter(sum(begin <= i <= end for begin, end in loops) for i in range(len(instructions)))
    widths: Counter[str] = Counter()
    for instruction in instructions:
        if kind := {"LDG": "load", "STG": "store"}.get(instruction.split(".")[0]):
            bits = re.search(r"\.[US]?(8|16|64|128)\b", instruction)
            widths[f"{kind} {bits[1] if bits else 32}"] += 1
    spills = sum(instruction.startswith(("LDL", "STL")) for instruction in instructions)
    return Compiled(
        name, programs, options, registers, spills, shared, widths, [(depths[d], d) for d in sorted(depths)]
    )
