"""Measures the memory that a call takes for itself, by the peak of its process's resident size.

Each measurement has a process of its own, in which nothing else moves: libraries are loaded, inputs are there and
freed memory is given back to the system before the peak is reset. What is counted is what the system had to find, so
scratch of C++ libraries is in it, which no allocator hook of PyTorch sees. The system's counters are exact to some
tenths of a MiB.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MIB = 2**20
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SYSTEM = Path("/proc/meminfo")


@dataclass(frozen=True)
class Memory:
    """What a competitor's call takes in one memory format, in MiB."""

    competitor: str
    memory_format: str
    added: float  # at the peak, beyond what was there before the call and what it returns
    returned: float  # tensors that the call returns


class MemoryUnavailableError(RuntimeError):
    """The system does not say how much memory a process takes, or had too little."""


def can_measure(device: torch.device) -> tuple[bool, str]:
    """Whether memory can be measured for calls on this device, and why (not)."""
    if device.type != "cpu":
        return False, f"memory is measured on the CPU only, not on {device.type}"
    if not sys.platform.startswith("linux"):
        return False, "memory is measured on Linux only, by the peak resident size of a process"
    return True, "the peak resident size of a process"


def too_large(needed: float, device: torch.device) -> str | None:
    """Why a call that needs so many bytes would not fit, or would crowd out everything else; None if it fits."""
    there = available(device)
    if there is None or needed < 0.7 * there:
        return None
    return f"would need {needed / 2**30:.0f} GiB of {there / 2**30:.0f} GiB"


def available(device: torch.device) -> int | None:
    """Bytes that a device has left; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = _SYSTEM.read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(found.split()[1]) * 1024


def measure(
    competitor: str, memory_format: str, prepare: Callable[..., Callable[[], Sequence[Tensor]]], *arguments: Any
) -> Memory:
    """What a call takes in a fresh process with as many threads as this one.

    Args:
        competitor, memory_format: how the result is labelled.
        prepare: makes everything that is there before the call, and returns the call; a function of a module, which
            the process imports. It should call something small and alike first, so that libraries are loaded.
        arguments: of ``prepare``.

    Returns:
        The memory at the peak of the call.

    Raises:
        MemoryUnavailableError: the system does not say, or ended the process for want of memory.
    """
    # A fork would share pages and locks with this process; a fresh interpreter shares nothing.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            added, returned = pool.submit(_measure, torch.get_num_threads(), prepare, arguments).result()
        except BrokenProcessPool:
            raise MemoryUnavailableError(
                f"the process that should measure the memory of {competitor} ended early: it wrote why, or there "
                f"was too little memory"
            ) from None
    return Memory(competitor, memory_format, added / MIB, returned / MIB)


def _measure(threads: int, prepare: Callable[..., Callable[[], Sequence[Tensor]]], arguments: Any) -> tuple[int, int]:
    torch.set_num_threads(threads)
    call = prepare(*arguments)
    _give_back()
    before = _reset_peak()
    results = call()
    returned = sum(tensor.nbytes for tensor in results)
    # Below 0 only by the counters' inexactness.
    return max(0, _status("VmHWM") - before - returned), returned


def _give_back() -> None:
    """Freed memory that the C library keeps would serve the call without being counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _reset_peak() -> int:
    """Make the present resident size the peak, and return it."""
    try:
        _RESET.write_text("5")
    except OSError as error:
        raise MemoryUnavailableError(f"cannot reset the peak resident size by {_RESET}: {error.strerror}") from None
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes, of a line such as ``VmHWM:  1234 kB``."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
