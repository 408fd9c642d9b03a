"""Benchmark of the layer: its competitors and its checks."""

from __future__ import annotations

import itertools

import pytest
import torch

from ddfnet.bench import dynamic_filters, layer, memory
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import LAYER_GROUPS, LAYERS, LayerCase
from ddfnet.ops import backends, reference
from tests.ops.cases import served_by

TINY = LAYERS["tiny"]


def test_the_sizes() -> None:
    shapes = {group: [case.shape for case in cases] for group, cases in LAYER_GROUPS.items()}
    assert shapes == {
        "default": [(8, 256, size, size) for size in (7, 14, 28, 56, 112)],
        "table1": [(1, 256, 14, 14)],
        "table2": [(2, 256, 200, 300)],
        "tableA": [(32, 256, size, size) for size in (7, 14, 28, 56, 112)],
        "tiny": [(2, 8, 6, 6)],
    }
    assert len(LAYERS) == sum(map(len, shapes.values())), "a name belongs to one case"
    assert str(LAYERS["p2"]) == "p2: 2x256x200x300"


def test_forward_and_backward() -> None:
    forward, both = layer.run([TINY], rounds=1, backward=True)
    assert (forward.direction, both.direction) == ("forward", "forward+backward")
    for result in (forward, both):
        assert [timing.competitor for timing in result.timings] == ["ddf", "conv", "depthwise"]
        assert (result.ours, result.baseline) == ("ddf", "conv")
        assert 0 < result.error < 1
    [alone] = layer.run([TINY], rounds=1, only=[])
    assert [timing.competitor for timing in alone.timings] == ["ddf", "conv"]


def test_all_dynamic_filters_agree_with_their_other_form() -> None:
    case = LayerCase("wide", 4, 5, 2, columns=7)
    for result in layer.run([case], rounds=1, backward=True, only=layer.NAMES):
        names = [name for name in layer.NAMES if result.direction == "forward" or name != layer.FUSED]
        assert [timing.competitor for timing in result.timings] == names
        assert result.skipped == {}


@pytest.mark.parametrize("name", ["pac", "dynamic-depthwise", "dynamic"])
def test_both_forms_of_a_dynamic_filter_compute_the_formula(name: str) -> None:
    """Pixel by pixel and tap by tap, as in the definition."""
    (n, c, h, w), made = (2, 3, 4, 5), layer.make(name, 3).double()
    x = torch.randn(n, c, h, w, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for y, z, ky, kx in itertools.product(range(h), range(w), range(3), range(3)):
        row, column = y + ky - 1, z + kx - 1
        if not (0 <= row < h and 0 <= column < w):
            continue
        pixel, neighbour = x[:, :, y, z], x[:, :, row, column]
        if name == "pac":
            alike = torch.exp(-((pixel - neighbour) ** 2).sum(1, keepdim=True) / (2 * c))
            expected[:, :, y, z] += alike * (neighbour @ made.static.weight[:, :, ky, kx].T)
        else:
            filters = pixel @ made.predict.weight[:, :, 0, 0].T
            if name == "dynamic":
                tap_filters = filters.view(n, c, c, 3, 3)[..., ky, kx]
                expected[:, :, y, z] += (tap_filters * neighbour[:, None]).sum(2)
            else:
                expected[:, :, y, z] += filters.view(n, c, 3, 3)[..., ky, kx] * neighbour
    torch.testing.assert_close(made(x), expected)
    torch.testing.assert_close(made.tap_by_tap(x), expected)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("operator", dynamic_filters.Operator),
        ("pac", dynamic_filters.PixelAdaptive),
        ("dynamic-depthwise", dynamic_filters.DepthwiseDynamicFilter),
        ("dynamic", dynamic_filters.DynamicFilter),
    ],
)
def test_a_wrong_dynamic_filter_is_found(name: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kind.forward

    def wrong(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        result = right(self, x)
        is_reference = backends.chosen() == "reference"  # for the operator, which has no other form
        return result if is_reference else _spoilt(result.clone(memory_format=torch.contiguous_format))

    monkeypatch.setattr(kind, "forward", wrong)
    with pytest.raises(WrongResultError, match=rf"^{name} \(contiguous\) does not agree .* the output"):
        layer.measure(TINY, "forward", rounds=1, only=[name])


def test_a_filter_that_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tiny map a full dynamic filter takes some 0.6 MB, the others less than a tenth of that."""
    monkeypatch.setattr(memory, "available", lambda device: 300_000)
    result = layer.measure(TINY, "forward", rounds=1, only=layer.NAMES)
    assert result.skipped == {"dynamic": "would need 0 GiB of 0 GiB"}
    assert "dynamic" not in [timing.competitor for timing in result.timings]


def test_memory_is_measured_in_the_timed_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, memory_format: str, prepare, *arguments) -> memory.Memory:
        return memory.Memory(name, memory_format, 0, sum(tensor.nbytes for tensor in prepare(*arguments)()))

    monkeypatch.setattr(memory, "measure", here)
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    [result] = layer.run([TINY], rounds=1, only=layer.NAMES, measure_memory=True)
    assert [(row.competitor, row.memory_format) for row in result.memory] == [
        (timing.competitor, timing.memory_format) for timing in result.timings
    ]
    assert {row.returned for row in result.memory} == {2 * 8 * 6 * 6 * 4}


@pytest.mark.parametrize(
    ("backward", "part"), [(False, "output"), (True, "gradient of (input|spatial|channel)")], ids=str
)
def test_a_wrong_layer_is_found(backward: bool, part: str) -> None:
    class Wrong:
        """One pixel of the output, and one of the input's gradient, are off by a thousandth."""

        @staticmethod
        def ddf(*args: object) -> torch.Tensor:
            return reference.ddf(*args) if backward else _spoilt(reference.ddf(*args))

        @staticmethod
        def ddf_backward(*args: object) -> tuple[torch.Tensor | None, ...]:
            grad_input, *others = reference.ddf_backward(*args)
            return (_spoilt(grad_input), *others)

    with served_by(Wrong), pytest.raises(WrongResultError, match=rf"^ddf \(contiguous\) does not agree .* the {part}"):
        layer.measure(TINY, "forward+backward" if backward else "forward", rounds=1)


def _spoilt(values: torch.Tensor) -> torch.Tensor:
    values.view(-1)[values.numel() // 2] += 1e-3 * values.abs().max()
    return values
