"""Facts about the machine that figures depend on: processor, versions, threads and kernels."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from ddfnet._version import __version__
from ddfnet.errors import UserError
from ddfnet.ops import backends

LIBRARIES = ("timm", "torchvision", "lightning", "torchmetrics", "triton", "onnx", "onnxruntime", "gradio", "numpy")


def find_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises:
        UserError: this machine has no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or a torch built without it
        raise UserError(f"no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of the checkout that holds this package, with a + if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def load() -> list[float] | None:
    """Return the load averages of the system, which tell of other work."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def kernel(device: torch.device) -> tuple[str, str]:
    """Return the kernel that serves this device, or "none", and the reason."""
    try:
        return backends.resolve(device)
    except Exception as error:
        return "none", str(error)


def facts() -> dict[str, Any]:
    """Return the facts that every results file names."""
    name, reason = kernel(torch.device("cpu"))
    return {
        "ddfnet": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_kernel": f"{name} ({reason})",
        "load": load(),
    }
