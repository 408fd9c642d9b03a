"""Report on the compiled GPU kernels and their least times, made on a machine without a GPU.

    python tools/gpu_report.py --write benchmarks/results     gpu-report.json and gpu-report.md

Needs Triton, whose wheel has NVIDIA's assembler and disassemblers, and NumPy. docs/gpu.md explains the numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from gpu_compile import GPUS, compile_case
from gpu_traffic import FILTER_KERNELS, Workload, time, traffic

from ddfnet import env_info

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
DTYPES = ("float32", "bfloat16", "float16", "float64")
KERNEL_SIZES = (3, 5, 7)
COMPILED = (2, 256, 200, 300)  # the shape that kernels are compiled for: the paper's table 2
TIMED = {
    "table 2": COMPILED,
    **{f"table A, {side}": (32, 256, side, side) for side in (7, 14, 28, 56, 112, 224)},
}
COUNTED = ("float32", "bfloat16")
PIXELS = 2 * 200 * 300  # bytes are counted over as many; a larger batch is counted by samples, each like the others
LIMITS = {3: 1.15, 5: 1.3, 7: 1.3}  # by kernel size: bytes over the least
Row = dict[str, Any]


def _compile(arguments: tuple[str, str, str, int]) -> list[Row]:
    """Return the rows of one GPU, dtype, memory format and kernel size; some have bytes, at the shape of table 2."""
    name, dtype, memory_format, kernel_size = arguments
    gpu, itemsize = GPUS[name], getattr(torch, dtype).itemsize
    work = Workload(*COMPILED, kernel_size, itemsize, memory_format == "channels_last")
    rows = []
    for compiled in compile_case(gpu, COMPILED, kernel_size, getattr(torch, dtype), FORMATS[memory_format]):
        counted = traffic(compiled, work, gpu) if name == "A100" and dtype in COUNTED else None
        rows.append(
            {
                "gpu": name,
                "kernel": compiled.kernel,
                "dtype": dtype,
                "format": memory_format,
                "kernel_size": kernel_size,
                "tile": compiled.options["TILE"]._asdict(),
                "warps": compiled.warps,
                "registers": compiled.registers,
                "spills": compiled.spills,
                "shared": compiled.shared,
                "widths": dict(compiled.widths),
                "memory_over_least": round(counted.over_least, 3) if counted else None,
                "cache_over_least": round(counted.cache / counted.least, 3) if counted else None,
            }
        )
    return rows


def _time(arguments: tuple[str, str, str, str]) -> list[Row]:
    """Return the rows of one GPU, shape, dtype and memory format, 3x3."""
    name, where, dtype, memory_format = arguments
    gpu, itemsize, size = GPUS[name], getattr(torch, dtype).itemsize, TIMED[where]
    work = Workload(*size, 3, itemsize, memory_format == "channels_last")
    n, c, h, w = size
    depthwise = (2 * n * c * h * w + 9 * c) * itemsize / gpu.dram * 1e-3
    samples = max(1, min(n, PIXELS // (h * w)))
    while n % samples:
        samples -= 1
    rows = []
    for compiled in compile_case(gpu, size, 3, getattr(torch, dtype), FORMATS[memory_format]):
        fraction = replace(compiled, programs=compiled.programs * samples // n)
        counted = traffic(fraction, replace(work, batch=samples), gpu).times(n // samples)
        needed = time(compiled, work, gpu, counted)
        rows.append(
            {
                "gpu": name,
                "shape": where,
                "kernel": compiled.kernel,
                "dtype": dtype,
                "format": memory_format,
                "memory_over_least": round(counted.over_least, 3),
                "cache_over_least": round(counted.cache / counted.least, 3),
                "wave_megabytes": round(counted.wave / 1e6, 1),
                "microseconds": {key: round(value, 2) for key, value in vars(needed).items()},
                "predicted": round(needed.predicted, 2),
                "depthwise_floor": round(depthwise, 2),
            }
        )
    return rows


def report() -> dict[str, Any]:
    """Compile, count and time everything, in two processes."""
    every = list(itertools.product(GPUS, DTYPES, FORMATS, KERNEL_SIZES))
    timed = list(itertools.product(("A100", "H100"), TIMED, COUNTED, FORMATS))
    with ProcessPoolExecutor(2) as pool:
        compiled = [row for rows in pool.map(_compile, every) for row in rows]
        times = [row for rows in pool.map(_time, timed) for row in rows]
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": env_info.facts()["commit"],
        "triton": triton.__version__,
        "torch": torch.__version__,
        "gpus": {name: vars(gpu) | {"target": str(gpu.target.arch)} for name, gpu in GPUS.items()},
        "compiled": compiled,
        "times": times,
    }


# --- text -----------------------------------------------------------------------------------------------------------


def _table(head: list[str], rows: Iterator[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _widest(row: Row, kind: str) -> str:
    """Return the numbers of loads or stores by their width, the widest first."""
    own = {int(key.split()[1]): count for key, count in row["widths"].items() if key.startswith(kind)}
    return ", ".join(f"{count} of {bits}" for bits, count in sorted(own.items(), reverse=True))


def text(found: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    compiled, times = found["compiled"], found["times"]
    parts = [
        "# The GPU kernels, compiled and counted",
        f"Written by `{found['command']}` at {found['commit']}, Triton {found['triton']}, torch {found['torch']}. "
        "**Compiled, not run: no GPU was there.** docs/gpu.md explains the columns.",
        "## Targets and results",
        *_verdicts(found),
        "## Least times, 3x3, in microseconds",
        "*Predicted* is the largest of bytes from memory, bytes from the cache and instructions, each at the data "
        "sheet's speed. *Depthwise* is the least of a depthwise convolution: its input and output once, at the speed "
        "of the memory.",
        _table(
            ["GPU", "shape", "kernel", "dtype", "format", "memory", "cache", "instructions", "predicted", "depthwise"],
            (
                [
                    row["gpu"], row["shape"], row["kernel"], row["dtype"], row["format"],
                    row["microseconds"]["memory"], row["microseconds"]["cache"], row["microseconds"]["instructions"],
                    row["predicted"], row["depthwise_floor"],
                ]
                for row in times
            ),
        ),
        f"## Compiled code, at {'x'.join(map(str, COMPILED))}",
        _table(
            ["GPU", "kernel", "dtype", "format", "k", "registers", "spills", "shared", "loads, bits", "stores, bits",
             "memory / least", "cache / least"],
            (
                [
                    row["gpu"], row["kernel"], row["dtype"], row["format"], row["kernel_size"], row["registers"],
                    row["spills"], row["shared"], _widest(row, "load"), _widest(row, "store"),
                    row["memory_over_least"] or "", row["cache_over_least"] or "",
                ]
                for row in compiled
            ),
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _verdicts(found: dict[str, Any]) -> list[str]:
    """Return one line per target: how many meet it, and the worst."""
    compiled, times = found["compiled"], found["times"]

    def line(target: str, rows: list[Row], value: Any, limit: float) -> str:
        met, worst = sum(value(row) <= limit for row in rows), max(rows, key=value)
        where = " ".join(str(worst[key]) for key in ("gpu", "shape", "kernel", "dtype", "format") if key in worst)
        size = f" {worst['kernel_size']}x{worst['kernel_size']}" if "kernel_size" in worst else ""
        return f"- {target}: {met} of {len(rows)} meet it; the farthest is {value(worst):.3g} ({where}{size})."

    lines = [line("no spilled register", compiled, lambda row: row["spills"], 0)]
    for size, limit in LIMITS.items():
        for memory_format in FORMATS:
            rows = [r for r in compiled if r["kernel_size"] == size and r["format"] == memory_format]
            rows = [row for row in rows if row["memory_over_least"]]
            target = f"bytes from memory at most {limit} of the least, {size}x{size}, {memory_format}"
            lines.append(line(target, rows, lambda row: row["memory_over_least"], limit))
    wide = [r for r in compiled if r["format"] == "channels_last" and r["kernel"] not in FILTER_KERNELS]
    target = "channels_last maps loaded and stored in 128 bits"
    lines.append(line(target, wide, lambda row: 0 if {"load 128", "store 128"} <= set(row["widths"]) else 1, 0))
    for memory_format in FORMATS:
        rows = [r for r in times if r["kernel"] == "ddf_fwd_kernel" and r["format"] == memory_format]
        target = f"forward predicted at most 1.1 of a depthwise convolution's least, {memory_format}"
        lines.append(line(target, rows, lambda row: row["predicted"] / row["depthwise_floor"], 1.1))
        whole = _backward_over_forward([r for r in times if r["format"] == memory_format])
        target = f"backward predicted at most 2.2 of forward, {memory_format}"
        lines.append(line(target, whole, lambda row: row["ratio"], 2.2))
    return ["\n".join(lines)]


def _backward_over_forward(times: list[Row]) -> list[Row]:
    whole: dict[tuple[str, ...], dict[str, float]] = {}
    for row in times:
        key = tuple(row[name] for name in ("gpu", "shape", "dtype", "format"))
        whole.setdefault(key, {})[row["kernel"]] = row["predicted"]
    return [
        dict(zip(("gpu", "shape", "dtype", "format"), key, strict=True))
        | {"ratio": (sum(own.values()) - own["ddf_fwd_kernel"]) / own["ddf_fwd_kernel"]}
        for key, own in whole.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write gpu-report.json and gpu-report.md there")
    options = parser.parse_args()
    found = report()
    print("\n".join(_verdicts(found)))
    if options.write:
        (options.write / "gpu-report.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.write / "gpu-report.md").write_text(text(found))


if __name__ == "__main__":
    main()
