"""Measurement of the memory that a call needs, as the peak of the resident size of its process.

Each measurement has its own process, where nothing else happens: libraries are loaded, inputs exist, and freed memory
is returned to the system before the peak is reset. The resident size includes the scratch memory of C++ libraries,
which no allocator hook of PyTorch sees. The system's counters are exact to some tenths of a MiB.
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
    """Memory of one competitor's call in one memory format, in MiB."""

    competitor: str
    memory_format: str
    added: float  # at the peak, beyond the memory before the call and the returned tensors
    returned: float  # in the returned tensors


class MemoryUnavailableError(RuntimeError):
    """Memory that the system does not report, or of which it had too little."""


def can_measure(device: torch.device) -> tuple[bool, str]:
    """Return whether memory can be measured for calls on this device, and the reason."""
    if device.type != "cpu":
        return False, f"memory is measured on the CPU only, not on {device.type}"
    if not sys.platform.startswith("linux"):
        return False, "memory is measured on Linux only, by the peak resident size of a process"
    return True, "the peak resident size of a process"


def require_measurable(device: torch.device) -> None:
    """Raise a MemoryUnavailableError if memory cannot be measured for calls on this device."""
    possible, reason = can_measure(device)
    if not possible:
        raise MemoryUnavailableError(reason)


def too_large(needed: float, device: torch.device) -> str | None:
    """Return why a call that needs so many bytes would not fit, with a margin for everything else; None if it fits."""
    free = available(device)
    if free is None or needed < 0.7 * free:
        return None
    return f"would need {needed / 2**30:.0f} GiB of {free / 2**30:.0f} GiB"


def available(device: torch.device) -> int | None:
    """Return the free bytes of a device, or None if the system does not tell."""
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
    """Measure the memory of a call in a fresh process with as many threads as this one.

    Args:
        competitor, memory_format: the labels of the result.
        prepare: a function of a module, which makes the inputs and returns the call. It should make a similar small
            call first, so that libraries are loaded.
        arguments: the arguments of ``prepare``.

    Returns:
        The memory at the peak of the call.

    Raises:
        MemoryUnavailableError: the system does not report the memory, or ended the process for lack of it.
    """
    # A fork would share pages and locks with this process; a new interpreter shares nothing.
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
    _release_freed()
    before = _reset_peak()
    results = call()
    returned = sum(tensor.nbytes for tensor in results)
    # It can only be negative because the counters are not exact.
    return max(0, _status("VmHWM") - before - returned), returned


def _release_freed() -> None:
    """Return freed memory to the system, because the call could reuse it without being counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _reset_peak() -> int:
    """Reset the peak to the present resident size, and return it."""
    try:
        _RESET.write_text("5")
    except OSError as error:
        raise MemoryUnavailableError(f"cannot reset the peak resident size by {_RESET}: {error.strerror}") from None
    return _status("VmRSS")


def _status(name: str) -> int:
    """Return the bytes of a line such as ``VmHWM:  1234 kB``."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
