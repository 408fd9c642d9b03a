"""Benchmark of an exported network in ONNX Runtime beside the eager network on our CPU kernels."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ddfnet.bench.equality import Expected
from ddfnet.bench.network import random_network
from ddfnet.bench.registry import INFERENCE, SEED, NetworkCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import FORMATS, interleave, timings
from ddfnet.export import OPSET, export, images
from ddfnet.export.formats import get_format

OURS, BASELINE = "onnxruntime", "eager"
NAMES = (OURS, BASELINE)
# Idle threads of both libraries spin for a while, on the cores that the other library needs.
_PAUSE = 0.05


def run(cases: Sequence[NetworkCase], *, rounds: int = 30, pause: float = _PAUSE) -> Iterator[Result]:
    """Export each case's network, check it and time it, in float32 on the CPU.

    Args:
        cases: cases from `ddfnet.bench.registry`.
        rounds: the number of timings of each.
        pause: seconds before each call, in which the threads of the call before go to sleep.

    Returns:
        One result per case, as each is done: ONNX Runtime's time over the eager network's in its better memory format.

    Raises:
        WrongResultError: the exported network differs from the eager one.

    Example:
        >>> from ddfnet.bench.registry import NETWORKS
        >>> len(list(run([])))
        0
    """
    for case in cases:
        yield measure(case, rounds=rounds, pause=pause)


def measure(case: NetworkCase, *, rounds: int = 30, pause: float = _PAUSE) -> Result:
    """Check and time one case; see `run`."""
    batch = torch.randn(case.batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(SEED))
    network = random_network(case.model).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        # Exported at another size than the timed one, because the file must not depend on it.
        export(network, images(3), file, size=(2, 64, 96), check=False)
        run_file = get_format("onnx", file, OPSET).load(file)
    calls: dict[tuple[str, str], Callable[[], list[Tensor]]] = {(OURS, "contiguous"): lambda: run_file([batch])}
    for name, memory_format in FORMATS.items():
        own = copy.deepcopy(network).to(memory_format=memory_format)  # type: ignore[call-overload]
        calls[BASELINE, name] = partial(_scores, own, batch.contiguous(memory_format=memory_format))
    expected = Expected(
        case, ("output",), _scores(network.double(), batch.double()), 1e-4, "the tolerance, 1e-4 of the largest"
    )
    error = expected.check(OURS, calls[OURS, "contiguous"]())
    times = interleave(calls, rounds, torch.device("cpu"), before=lambda: time.sleep(pause))
    return Result(case, INFERENCE, OURS, BASELINE, timings(times, ours=OURS, baseline=BASELINE), {}, error)


def _scores(network: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return [network(images)]
