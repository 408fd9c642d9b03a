"""Cases: names and groups."""

from __future__ import annotations

import pytest
import torch

from ddfnet.bench.registry import CASES, GROUPS, Case


def test_a_name_belongs_to_one_case() -> None:
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


def test_the_resnet_group_has_the_maps_of_a_resnet() -> None:
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
    assert {(*case.shape, case.stride) for case in GROUPS["resnet50"]} == {
        (batch, *shape) for shape in shapes for batch in (1, 8)
    }
    assert {case.name for case in GROUPS["resnet50-fpn"]} == {case.name for case in GROUPS["resnet50"]} | {"p2"}


def test_the_maps_of_the_paper() -> None:
    [case] = GROUPS["table2"]
    assert (case.shape, case.kernel_size) == ((2, 256, 200, 300), 3)
    assert [(case.name, case.shape) for case in GROUPS["tableA"]] == [
        (f"a{size}", (32, 256, size, size)) for size in (7, 14, 28, 56, 112, 224)
    ]
    assert {(case.kernel_size, case.stride, case.dtype) for case in GROUPS["tableA"]} == {(3, 1, "float32")}


def test_every_option_is_there() -> None:
    options = GROUPS["options"]
    assert {case.kernel_size for case in options} == {3, 5, 7}
    assert {case.dilation for case in options} == {1, 2}
    assert {case.heads for case in options} == {1, 4}
    assert {case.dtype for case in options} == {"float32", "bfloat16", "float16"}
    for dtype in ("bfloat16", "float16"):
        assert len({case.shape for case in options if case.dtype == dtype}) == 3


@pytest.mark.parametrize("case", [Case("even", (1, 2, 9, 8), 4, 2), Case("far", (1, 2, 11, 10), 5, 2, 2)])
def test_the_output_size_is_that_of_conv2d(case: Case) -> None:
    weight = torch.zeros(2, 1, case.kernel_size, case.kernel_size)
    padding = case.dilation * (case.kernel_size - 1) // 2
    output = torch.nn.functional.conv2d(
        torch.zeros(case.shape), weight, None, case.stride, padding, case.dilation, groups=2
    )
    assert case.output_size == output.shape[2:]
