"""The layer's benchmark: who takes part, and what is found out."""

from __future__ import annotations

import pytest
import torch

from ddfnet.benchmarks import layer
from ddfnet.benchmarks.equality import WrongResultError
from ddfnet.benchmarks.registry import LAYERS
from ddfnet.ops import backends, reference

TINY = LAYERS["tiny"]


def test_the_sizes() -> None:
    sizes = [(case.batch, case.channels, case.size) for name, case in LAYERS.items() if name != "tiny"]
    assert sizes == [(8, 256, size) for size in (7, 14, 28, 56, 112)]


def test_forward_and_backward() -> None:
    forward, both = layer.run([TINY], rounds=1, backward=True)
    assert (forward.direction, both.direction) == ("forward", "forward+backward")
    for result in (forward, both):
        assert [timing.competitor for timing in result.timings] == ["ddf", "conv", "depthwise"]
        assert (result.ours, result.baseline) == ("ddf", "conv")
        assert 0 < result.error < 1
    [alone] = layer.run([TINY], rounds=1, only=[])
    assert [timing.competitor for timing in alone.timings] == ["ddf", "conv"]


@pytest.mark.parametrize(
    ("backward", "part"), [(False, "output"), (True, "gradient of (input|spatial|channel)")], ids=str
)
def test_a_wrong_layer_is_found_out(monkeypatch: pytest.MonkeyPatch, backward: bool, part: str) -> None:
    class Wrong:
        """One pixel of the output, and one of the input's gradient, are off by a thousandth."""

        @staticmethod
        def ddf(*args: object) -> torch.Tensor:
            return reference.ddf(*args) if backward else _spoilt(reference.ddf(*args))

        @staticmethod
        def ddf_backward(*args: object) -> tuple[torch.Tensor | None, ...]:
            grad_input, *others = reference.ddf_backward(*args)
            return (_spoilt(grad_input), *others)

    right = backends.kernels
    monkeypatch.setattr(
        backends, "kernels", lambda device: right(device) if backends.chosen() == "reference" else Wrong
    )
    with pytest.raises(WrongResultError, match=rf"^ddf \(contiguous\) does not agree .* the {part}"):
        layer.measure(TINY, "forward+backward" if backward else "forward", rounds=1)


def _spoilt(values: torch.Tensor) -> torch.Tensor:
    values.view(-1)[values.numel() // 2] += 1e-3 * values.abs().max()
    return values
