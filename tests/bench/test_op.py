"""Competitors of the operator: all agree with the reference, and a wrong one is found."""

from __future__ import annotations

import pytest
import torch

import ddfnet
from ddfnet.bench import memory, op, timing
from ddfnet.bench.competitors import NAMES, Tensors, baseline, competitors
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import CASES, Case

WITHOUT_COMPILE = [name for name in NAMES if name != "compiled"]
SMALL = [
    Case("plain", (2, 8, 9, 7)),
    Case("strided", (1, 8, 9, 8), stride=2, heads=4),
    Case("wide", (1, 4, 9, 8), kernel_size=5, dilation=2, combine="add"),
    Case("half", (2, 8, 9, 7), dtype="bfloat16", heads=2),
    Case("double", (2, 8, 9, 7), dtype="float64"),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_competitors_agree(case: Case) -> None:
    results = list(op.run([case], rounds=1, backward=True, only=WITHOUT_COMPILE))
    assert [result.direction for result in results] == ["forward", "forward+backward"]
    for result in results:
        half = ["depthwise-fp32"] * (case.dtype == "bfloat16")
        assert [timing.competitor for timing in result.timings] == ["ddf", "depthwise", *half, "conv", "unfold"]
        assert result.baseline == ("depthwise-fp32" if half else "depthwise")
        assert result.timing(result.baseline).ratio == result.timing("ddf").over_ours == 1
        assert result.skipped == {}
        assert 0 <= result.error < 1
        assert result.limit is not None and 0 < result.limit.share < 1


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_compiled_formula_agrees(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # the same formula, without the wait
    for result in op.run([case], rounds=1, backward=True):
        assert "compiled" in [timing.competitor for timing in result.timings]


@pytest.mark.parametrize("backward", [False, True])
def test_on_a_gpu_calls_rotate_through_copies(backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are together larger than twice the cache, which is made up here; the CPU has one."""
    right, seen = ddfnet.ddf, []

    def noting(x: torch.Tensor, *filters: torch.Tensor, **options: object) -> torch.Tensor:
        if x.dtype != torch.float64 and x.is_contiguous():
            seen.append((x.data_ptr(), *(filter.data_ptr() for filter in filters)))
        return right(x, *filters, **options)

    monkeypatch.setattr(ddfnet, "ddf", noting)
    op.measure(CASES["tiny"], "forward", rounds=1, only=[])
    assert len(set(seen)) == 1
    seen.clear()
    read = (2 * 8 * 144 + 2 * 8 * 9 + 2 * 9 * 144) * 4
    monkeypatch.setattr(timing, "_cache", lambda device: read)
    direction = "forward+backward" if backward else "forward"
    op.measure(CASES["tiny"], direction, rounds=1, only=[])
    assert len(set(seen)) == 3
    assert all(len(set(pointers)) == 3 for pointers in zip(*set(seen), strict=True)), "of all that is read"
    if not backward:
        assert seen == [seen[i % 3] for i in range(len(seen))]


def test_copies_are_equal() -> None:
    tensors = Tensors.random(SMALL[0], torch.device("cpu")).to(torch.channels_last, requires_grad=True)
    copied = tensors.copied(["input", "spatial_filter"])
    for name in vars(tensors):
        one, other = getattr(tensors, name), getattr(copied, name)
        assert torch.equal(one, other) and one.stride() == other.stride() and other.is_leaf and other.requires_grad
        assert (one.data_ptr() != other.data_ptr()) == (name in ("input", "spatial_filter"))
    assert tensors.copied(["input"], torch.float64).input.dtype == torch.float64


def test_the_backward_pass_alone_over_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in the format that is faster for both passes together, not for the forward pass."""

    def made_up(calls: dict[tuple[str, str], object], rounds: int, device: torch.device) -> dict:
        passes = {("ddf", "contiguous"): [9.0, 9.0], ("ddf", "channels_last"): [6.0, 8.0]}
        passes |= {("ddf forward", "contiguous"): [1.0, 1.0], ("ddf forward", "channels_last"): [2.0, 2.0]}
        return {key: passes.get(key, [10.0, 10.0]) for key in calls}

    monkeypatch.setattr(op, "interleave", made_up)
    result = op.measure(CASES["tiny"], "forward+backward", only=[])
    assert result.backward_ratio == 2.5
    assert [row.competitor for row in result.timings] == ["ddf", "depthwise"]
    assert op.measure(CASES["tiny"], "forward", only=[]).backward_ratio is None


def test_convolutions_have_the_geometry_of_the_case() -> None:
    case = Case("geometry", (1, 4, 11, 10), kernel_size=5, stride=2, dilation=2)
    tensors = Tensors.random(case, torch.device("cpu"))
    chosen = competitors(case, WITHOUT_COMPILE)
    expected = torch.nn.functional.conv2d(tensors.input, tensors.conv_weight, stride=2, padding=4, dilation=2)
    assert torch.equal(chosen["conv"].forward(tensors), expected)
    assert chosen["depthwise"].forward(tensors).shape == chosen["ddf"].forward(tensors).shape == expected.shape


def test_without_a_compiler_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: object, **options: object) -> object:
        def refuse(*args: object) -> None:
            raise RuntimeError("No C++ compiler found\nand many more lines")

        return refuse

    monkeypatch.setattr(torch, "compile", no_compiler)
    [result] = op.run([CASES["tiny"]], rounds=1)
    assert result.skipped == {"compiled": "torch.compile failed: RuntimeError: No C++ compiler found"}
    assert "compiled" not in [timing.competitor for timing in result.timings]


def test_a_competitor_that_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 100_000)
    [result] = op.run([CASES["tiny"]], rounds=1, only=WITHOUT_COMPILE)
    assert result.skipped == {"unfold": "would need 0 GiB of 0 GiB"}
    assert "unfold" not in [timing.competitor for timing in result.timings]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("error", [1e-4, float("nan")])
def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch, part: int, error: float) -> None:
    """One value of the output, or of one of the three gradients, is off by a little."""
    right = ddfnet.ddf

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return spoil(grad)

    def spoil(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values.view(-1)[values.numel() // 2] += error * values.abs().max()
        return values

    def wrong(*tensors: torch.Tensor, **options: object) -> torch.Tensor:
        if tensors[0].dtype == torch.float64:  # the reference
            return right(*tensors, **options)
        chosen = list(tensors)
        if part:
            chosen[part - 1] = Off.apply(chosen[part - 1].contiguous())
        result = right(*chosen, **options)
        return result if part else spoil(result.contiguous())

    monkeypatch.setattr(ddfnet, "ddf", wrong)
    named = ("output", "gradient of input", "gradient of channel_filter", "gradient of spatial_filter")[part]
    with pytest.raises(WrongResultError, match=rf"^ddf \(contiguous\) does not agree .* the {named} is off"):
        list(op.run([CASES["tiny"]], rounds=1, backward=True, only=WITHOUT_COMPILE))


def test_without_names_only_the_operator_and_its_baseline_take_part() -> None:
    [result] = op.run([CASES["tiny"]], rounds=1, only=[])
    assert [timing.competitor for timing in result.timings] == ["ddf", "depthwise"]


def test_the_baseline_of_half_types_is_float32_with_the_same_values() -> None:
    case = Case("half", (1, 4, 9, 8), dtype="float16")
    tensors = Tensors.random(case, torch.device("cpu")).to(torch.channels_last, requires_grad=True)
    competitor = competitors(case)[baseline(case)]
    output, grad_input, grad_weight = op._call(competitor, tensors, backward=True)()
    assert {output.dtype, grad_input.dtype, grad_weight.dtype} == {torch.float32}
    assert output.is_contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.conv2d(
        tensors.input.double(), tensors.depthwise_weight.double(), padding=1, groups=4
    )
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)


def test_memory_is_of_the_operator_and_its_baseline_in_both_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, memory_format: str, prepare, *arguments) -> memory.Memory:
        returned = sum(tensor.nbytes for tensor in prepare(*arguments)())
        return memory.Memory(name, memory_format, 0, returned)

    monkeypatch.setattr(memory, "measure", here)
    results = list(op.run([CASES["tiny"]], rounds=1, backward=True, only=[], measure_memory=True))
    for result in results:
        assert [(row.competitor, row.memory_format) for row in result.memory] == [
            (name, memory_format) for name in ("ddf", "depthwise") for memory_format in ("contiguous", "channels_last")
        ]
    map_, filters = 2 * 8 * 144 * 4, (2 * 8 * 9 + 2 * 9 * 144) * 4
    assert [result.memory[0].returned for result in results] == [map_, 2 * map_ + filters]
