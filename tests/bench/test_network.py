"""Benchmark of networks: competitors of each direction, and checks."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("timm")

from ddfnet.bench import memory, network
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import COMPILED, INFERENCE, NETWORKS, TRAINING, NetworkCase
from ddfnet.ops import reference
from tests.ops.cases import served_by

TINY = NETWORKS["tiny"]


def competitors(result: network.Result) -> list[str]:
    return [timing.competitor for timing in result.timings]


def test_the_cases() -> None:
    shapes = {name: (case.batch, case.size, case.model, case.baseline) for name, case in NETWORKS.items()}
    for batch in (1, 8, 16, 32):
        assert shapes[f"b{batch}"] == (batch, 224, "ddf_mul_resnet50", "resnet50")


def test_inference_with_all_competitors() -> None:
    [result] = network.run([TINY], rounds=1)
    assert (result.direction, result.ours, result.baseline) == (INFERENCE, "ddf", "resnet")
    assert {*competitors(result), *result.skipped} == set(network.NAMES)
    assert 0 < result.error < 1


def test_without_surgery_the_fused_network_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    [result] = network.run([TINY], rounds=1)
    assert competitors(result) == ["ddf", "resnet", "resnet-fused"]
    assert result.skipped == {"ddf-fused": "this version has no ddfnet.surgery"}


@pytest.mark.parametrize("fused_is_right", [True, False])
def test_with_surgery_the_fused_network_takes_part_and_is_checked(
    monkeypatch: pytest.MonkeyPatch, fused_is_right: bool
) -> None:
    class Surgery:
        @staticmethod
        def fuse(model: torch.nn.Module) -> torch.nn.Module:
            assert not model.training
            if not fused_is_right:
                model.fc.bias.data[3] += 0.01
            return model

    monkeypatch.setattr(network, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ddfnet.surgery", Surgery)
    if fused_is_right:
        [result] = network.run([TINY], rounds=1, only=["ddf-fused"])
        assert competitors(result) == ["ddf", "resnet", "ddf-fused"]
        assert result.skipped == {}
    else:
        with pytest.raises(WrongResultError, match=r"^ddf-fused \(contiguous\) does not agree"):
            list(network.run([TINY], rounds=1, only=["ddf-fused"]))


def test_all_networks_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiled.append(model) or model)
    results = list(network.run([TINY], [INFERENCE, COMPILED], rounds=1, only=["resnet-fused"]))
    assert [result.direction for result in results] == [INFERENCE, COMPILED]
    assert competitors(results[1]) == ["ddf", "resnet", "resnet-fused"]
    assert len(compiled) == 6


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: object, **options: object) -> object:
        def call(x: object) -> None:
            raise RuntimeError("No C++ compiler found\nand many more lines")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(network.CompileFailedError, match="failed for ddf on tiny.*: No C.. compiler found$"):
        network.measure(TINY, COMPILED, rounds=1)


def test_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, memory_format: str, prepare, *arguments) -> memory.Memory:
        assert prepare(*arguments)() == ()
        return memory.Memory(name, memory_format, 1.0, 0.0)

    monkeypatch.setattr(memory, "measure", here)
    monkeypatch.setattr(memory, "can_measure", lambda device: (True, ""))
    [result] = network.run([TINY], [TRAINING], rounds=1)
    assert competitors(result) == ["ddf", "resnet"], "fused networks cannot be trained"
    assert [(row.competitor, row.memory_format) for row in result.memory] == [
        (name, memory_format) for name in ("ddf", "resnet") for memory_format in ("contiguous", "channels_last")
    ]
    monkeypatch.setattr(memory, "can_measure", lambda device: (False, "not here"))
    monkeypatch.setattr(network, "measure", lambda *_, **__: replace(result, memory=()))  # not timed a second time
    [result] = network.run([TINY], [TRAINING], rounds=1)
    assert (result.memory, result.skipped) == ((), {"memory": "not here"})


def test_a_training_step_trains() -> None:
    case = NetworkCase("tiny", 2, 32, "ddf_mul_resnet18", "resnet18")
    images, labels = network._batch(case)
    model = network.random_network(case.model).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = network._step(model, images, labels)
    step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_no_part_of_a_network_is_hidden_from_the_check() -> None:
    for module in network.random_network("ddf_mul_resnet18").modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.weight.min() >= 0.5


def test_a_wrong_gradient_is_found() -> None:
    class Wrong:
        ddf = staticmethod(reference.ddf)

        @staticmethod
        def ddf_backward(*args: object) -> tuple[torch.Tensor | None, ...]:
            grad_input, *others = reference.ddf_backward(*args)
            return (grad_input * 1.001, *others)

    with (
        served_by(Wrong),
        pytest.raises(WrongResultError, match="the gradient of .* what rounding in double precision explains"),
    ):
        network.measure(TINY, TRAINING, rounds=1)
