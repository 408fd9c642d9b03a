"""The registry names cases well, all competitors compute what they claim, and a wrong one is found out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import ddfnet
from ddfnet.benchmarks import run as runner
from ddfnet.benchmarks.competitors import Tensors, competitors
from ddfnet.benchmarks.registry import CASES, GROUPS, Case

SMALL = [
    Case("plain", (2, 8, 9, 7)),
    Case("strided", (1, 8, 9, 8), stride=2, heads=4),
    Case("wide", (1, 4, 9, 8), kernel_size=5, dilation=2, combine="add"),
    Case("half", (2, 8, 9, 7), dtype="bfloat16", heads=2),
    Case("double", (2, 8, 9, 7), dtype="float64"),
]


def test_a_name_stands_for_one_case() -> None:
    for case in (case for group in GROUPS.values() for case in group):
        assert CASES[case.name] == case


def test_the_default_group() -> None:
    assert [case.shape for case in GROUPS["default"]] == [
        (8, 64, 56, 56),
        (8, 128, 28, 28),
        (8, 256, 14, 14),
        (2, 256, 200, 300),
    ]
    assert {(case.kernel_size, case.stride, case.dtype) for case in GROUPS["default"]} == {(3, 1, "float32")}


def test_the_resnet_group_is_what_a_resnet_runs() -> None:
    timm = pytest.importorskip("timm")
    shapes = set()

    def note(module: torch.nn.Conv2d, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if module.kernel_size == (3, 3):
            shapes.add((*args[0].shape[1:], module.stride[0]))

    network = timm.create_model("resnet50").eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 224, 224))
    assert {(*case.shape[1:], case.stride) for case in GROUPS["resnet50"]} == shapes


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_competitors_agree(case: Case) -> None:
    results = list(runner.run([case], rounds=1, backward=True, compiled=False))
    assert [result.direction for result in results] == ["forward", "forward+backward"]
    for result in results:
        assert [timing.competitor for timing in result.timings] == ["ddf", "depthwise", "conv", "unfold"]
        assert result.skipped == {}
        assert 0 <= result.error < 1


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_formula_that_is_compiled_agrees(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # what is compiled, without the wait
    for result in runner.run([case], rounds=1, backward=True):
        assert "compiled" in [timing.competitor for timing in result.timings]


def test_convolutions_are_torchs_with_the_cases_geometry() -> None:
    case = Case("geometry", (1, 4, 11, 10), kernel_size=5, stride=2, dilation=2)
    tensors = Tensors.random(case, torch.device("cpu"))
    chosen = competitors(case, compiled=False)
    expected = torch.nn.functional.conv2d(tensors.input, tensors.conv_weight, stride=2, padding=4, dilation=2)
    assert torch.equal(chosen["conv"].forward(tensors), expected)
    assert chosen["depthwise"].forward(tensors).shape == chosen["ddf"].forward(tensors).shape == expected.shape


def test_without_a_compiler_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: object, **options: object) -> object:
        def refuse(*args: object) -> None:
            raise RuntimeError("No C++ compiler found\nand many more lines")

        return refuse

    monkeypatch.setattr(torch, "compile", no_compiler)
    [result] = runner.run([CASES["tiny"]], rounds=1)
    assert result.skipped == {"compiled": "torch.compile failed: RuntimeError: No C++ compiler found"}
    assert "compiled" not in [timing.competitor for timing in result.timings]


def test_what_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_available_memory", lambda device: 100_000)
    [result] = runner.run([CASES["tiny"]], rounds=1, compiled=False)
    assert result.skipped == {"unfold": "would need 0 GiB of 0 GiB"}
    assert "unfold" not in [timing.competitor for timing in result.timings]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("error", [1e-4, float("nan")])
def test_a_wrong_result_is_found_out(monkeypatch: pytest.MonkeyPatch, part: int, error: float) -> None:
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
    with pytest.raises(runner.WrongResultError, match=rf"^ddf \(contiguous\) does not agree .* the {named} is off"):
        list(runner.run([CASES["tiny"]], rounds=1, backward=True, compiled=False))


def test_the_better_format_is_taken_and_ratios_are_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that says what each call takes: slower from round to round, which no ratio may show."""
    speeds = {("ddf", "contiguous"): 3.0, ("ddf", "channels_last"): 2.0}
    speeds |= {("depthwise", "contiguous"): 1.0, ("depthwise", "channels_last"): 4.0}
    calls = {key: lambda key=key: key for key in speeds}
    rounds = dict.fromkeys(speeds, 0)

    def clock(call: object, number: int, device: torch.device) -> float:
        key = call()
        rounds[key] += 1
        return speeds[key] * rounds[key]

    monkeypatch.setattr(runner, "_milliseconds", clock)
    ddf, depthwise = runner._time(calls, 5, torch.device("cpu"))
    assert (ddf.memory_format, depthwise.memory_format) == ("channels_last", "contiguous")
    assert (ddf.ratio, depthwise.ratio) == (2, 1)
    assert ddf.median == 2 * 4  # the first call counts the repetitions, then rounds 2 to 6
    assert ddf.other_median == 3 * 4
    assert (ddf.p20, ddf.p80) == pytest.approx((2 * 2.8, 2 * 5.2))


def test_a_result_can_be_written_as_json() -> None:
    import json

    [result] = runner.run([CASES["tiny"]], rounds=1, compiled=False)
    document = json.loads(json.dumps(result.as_dict()))
    assert document["case"]["shape"] == [2, 8, 12, 12]
    assert set(document["timings"][0]) == {field.name for field in dataclasses.fields(runner.Timing)}
