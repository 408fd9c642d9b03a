"""What a number depends on besides the code: the machine, the versions, the threads, the kernels."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import ddfnet
from ddfnet.errors import UserError
from ddfnet.ops import backends

LIBRARIES = ("timm", "torchvision", "lightning", "torchmetrics", "triton", "onnx", "onnxruntime", "gradio", "numpy")


def device_named(name: str) -> torch.device:
    """A device of this machine.

    Raises:
        UserError: there is none of this name.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or a torch that was built without it
        raise UserError(f"no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout that this package lies in, with a + where files differ from it; None elsewhere."""
    root = Path(ddfnet.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def load() -> list[float] | None:
    """The system's load averages: how busy it was besides."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def kernel(device: torch.device) -> tuple[str, str]:
    """The kernel that serves this device, and why no faster one; ("none", why) where the choice in force has none."""
    try:
        return backends.resolve(device)
    except Exception as error:
        return "none", str(error)


def facts() -> dict[str, Any]:
    """What a results file must name."""
    name, reason = kernel(torch.device("cpu"))
    return {
        "ddfnet": ddfnet.__version__,
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
