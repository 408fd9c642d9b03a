"""Operator in torch's other parts: opcheck, compile, export, autocast, FLOP counts."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
import torch._dynamo.compiled_autograd
import torch._dynamo.testing
from torch.utils.flop_counter import FlopCounterMode

import ddfnet
from ddfnet.ops import registration
from tests.ops.cases import Case, kernel, kernels

OPCHECK = [
    Case("3x3"),
    Case("add", combine="add"),
    Case("channel-only", filters="channel"),
    Case("spatial-only", filters="spatial", heads=2),
    Case("stride-2-odd", stride=(2, 2), size=(7, 7)),
    Case("up-2", scale=(2, 2)),
]


def operator_arguments(case: Case, memory_format: str) -> list:
    input, channel, spatial = case.tensors(torch.float32, memory_format)
    channel = channel.flatten(1, 2) if channel is not None and channel.dim() == 5 else channel
    return [input, channel, spatial]


@pytest.mark.supports("opcheck: schema, autograd, fake tensors, compiled with dynamic shapes")
@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", OPCHECK, ids=[c.id for c in OPCHECK])
def test_opcheck(case: Case, memory_format: str, name: str) -> None:
    case = dataclasses.replace(case, batch=1, size=(4, 5)) if name == "triton" else case
    tensors = operator_arguments(case, memory_format)
    with kernel(name):
        torch.library.opcheck(registration.ddf, (*tensors, *case.geometry))
        leaves = [None if t is None else t.requires_grad_() for t in tensors]
        torch.library.opcheck(registration.ddf, (*leaves, *case.geometry))
        grad = registration.ddf(*leaves, *case.geometry).detach().requires_grad_()
        mask = [t is not None for t in tensors]
        torch.library.opcheck(registration.ddf_backward, (grad, *leaves, *case.geometry, mask))


def test_opcheck_of_a_dense_permuted_input() -> None:
    x = torch.randn(2, 5, 6, 4).permute(0, 3, 2, 1).requires_grad_()
    torch.library.opcheck(registration.ddf, (x, torch.randn(2, 4, 3, 3), None, *Case("3x3").geometry))


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_compiles_once_for_many_sizes(memory_format: str) -> None:
    compilations = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def function(x, channel, spatial):
        return ddfnet.ddf(x, channel, spatial, combine="add") * 2

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=compilations)
    # No two sizes of the first call are equal: torch.compile would take them for one.
    for batch, size in ((2, (10, 11)), (3, (16, 7)), (5, (30, 31))):
        case = Case("add", batch=batch, size=size, combine="add")
        tensors = [t.requires_grad_() for t in case.tensors(torch.float32, memory_format)]
        got, expected = compiled(*tensors), function(*tensors)
        torch.testing.assert_close(got, expected)
        assert got.stride() == expected.stride()
        grad = torch.randn_like(expected)
        for a, b in zip(
            torch.autograd.grad(got, tensors, grad), torch.autograd.grad(expected, tensors, grad), strict=True
        ):
            torch.testing.assert_close(a, b)
    assert compilations.frame_count == 1


@pytest.mark.parametrize("stride", [1, 2])
def test_compiles_with_inductor(stride: int) -> None:
    case = Case("3x3", stride=(stride, stride))
    tensors = [t.requires_grad_() for t in case.tensors(torch.float32)]

    def function(x, channel, spatial):
        return ddfnet.ddf(x.relu(), channel, spatial, stride=stride).sin()

    torch.testing.assert_close(torch.compile(function, fullgraph=True, dynamic=True)(*tensors), function(*tensors))


def test_compiled_transforms_are_right() -> None:
    case = Case("3x3", channels=2, size=(4, 5))
    tensors = tuple(case.tensors())
    tangents = tuple(torch.randn_like(t) for t in tensors)

    def directional(*tensors):
        return torch.func.jvp(case.call, tensors, tangents)[1]

    def gradient(x):
        return torch.func.grad(lambda x: case.call(x, *tensors[1:]).sin().sum())(x)

    compiled = torch.compile(directional, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), directional(*tensors))
    assert directional(*tensors).abs().sum() > 1
    torch.testing.assert_close(
        torch.compile(gradient, fullgraph=True, backend="aot_eager")(tensors[0]), gradient(tensors[0])
    )


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_compiled_autograd_of_an_eager_call(combine: str) -> None:
    """One compiled graph may serve calls of several geometries, and of a second derivative."""
    for stride, dilation in ((1, 1), (1, 2)):
        case = Case("drawn", channels=2, size=(5, 6), stride=(stride,) * 2, dilation=(dilation,) * 2, combine=combine)
        for second in (False, True):
            tensors = [t.requires_grad_() for t in case.tensors()]

            def loss(tensors=tensors, case=case, second=second):
                output = case.call(*tensors).sin().sum()
                if not second:
                    return output
                return sum(g.sin().sum() for g in torch.autograd.grad(output, tensors, create_graph=True))

            expected = torch.autograd.grad(loss(), tensors)
            output = loss()
            with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
                output.backward()
            for tensor, gradient in zip(tensors, expected, strict=True):
                torch.testing.assert_close(tensor.grad, gradient)


class Module(torch.nn.Module):
    def __init__(self, scale: int | None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channel = x.mean((2, 3))[:, :, None, None] * torch.ones(3, 3)
        spatial = x[:, :1].expand(-1, 9 * (self.scale or 1) ** 2, -1, -1)
        if self.scale is None:
            return ddfnet.ddf(x, channel, spatial)
        return ddfnet.ddf_upsample(x, None, spatial, kernel_size=3, scale_factor=self.scale)


@pytest.mark.parametrize("scale", [None, 2], ids=["ddf", "ddf_upsample"])
def test_exports_with_dynamic_batch_and_size(scale: int | None) -> None:
    module, dim = Module(scale), torch.export.Dim
    shapes = {"x": {0: dim("n", min=1), 2: dim("h", min=2), 3: dim("w", min=2)}}
    program = torch.export.export(module, (torch.randn(2, 8, 9, 11),), dynamic_shapes=shapes)
    assert any("ddfnet.ddf" in str(node.target) for node in program.graph.nodes)
    for shape in ((1, 8, 5, 6), (3, 8, 20, 33)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_casts_like_conv2d(dtype: torch.dtype) -> None:
    x, channel, spatial = Case("3x3").tensors(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        got = ddfnet.ddf(x, channel.to(dtype), spatial)
        double = ddfnet.ddf(x.double(), channel.double(), spatial.double())
        upsampled = ddfnet.ddf_upsample(x, None, torch.randn(2, 36, 9, 11), kernel_size=3, scale_factor=2)
        convolution = torch.nn.functional.conv2d(x, torch.randn(8, 1, 3, 3), groups=8)
    assert got.dtype == convolution.dtype == upsampled.dtype == dtype
    assert double.dtype == torch.float64
    assert torch.equal(got, ddfnet.ddf(x.to(dtype), channel.to(dtype), spatial.to(dtype)))

    x.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        ddfnet.ddf(x, channel, spatial).float().sum().backward()
    assert x.grad.dtype == torch.float32


def count_flops(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_flops_are_three_a_tap_with_both_filters_and_two_with_one() -> None:
    x, channel, spatial = Case("3x3").tensors()
    results = 2 * 8 * 9 * 11
    assert count_flops(lambda: ddfnet.ddf(x, channel, spatial)) == results * 9 * 3
    assert count_flops(lambda: ddfnet.ddf(x, channel, spatial, combine="add")) == results * 9 * 3
    assert count_flops(lambda: ddfnet.ddf(x, channel, None)) == results * 9 * 2
    assert count_flops(lambda: ddfnet.ddf(x, None, spatial, kernel_size=3)) == results * 9 * 2
    up = [torch.randn(2, 4, 8, 3, 3).double(), torch.randn(2, 36, 9, 11).double()]
    assert count_flops(lambda: ddfnet.ddf_upsample(x, *up, scale_factor=2)) == 4 * results * 9 * 3


def test_flops_of_the_backward_pass_count_the_wanted_gradients() -> None:
    x, channel, spatial = (t.requires_grad_() for t in Case("3x3").tensors())
    forward = 2 * 8 * 9 * 11 * 9 * 3
    assert count_flops(lambda: ddfnet.ddf(x, channel, spatial).sum().backward()) == 4 * forward
    assert count_flops(lambda: ddfnet.ddf(x.detach(), channel, spatial.detach()).sum().backward()) == 2 * forward


def test_meta_tensors_give_shapes() -> None:
    x = torch.empty(2, 8, 9, 11, device="meta").to(memory_format=torch.channels_last)
    out = ddfnet.ddf(x, torch.empty(2, 8, 3, 3, device="meta"), None, stride=2)
    assert out.shape == (2, 8, 5, 6)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_negated_views_and_zeros_without_memory_are_what_they_stand_for() -> None:
    """Tensors whose memory does not hold their values: a kernel that read it would be wrong without a sign of it."""
    case = Case("3x3")
    x, channel, spatial = case.tensors(torch.float32)
    negated = torch.conj(torch.complex(torch.zeros_like(x), -x)).imag
    assert negated.is_neg()
    torch.testing.assert_close(case.call(negated, channel, spatial), case.call(x, channel, spatial))
    zeros = torch._efficientzerotensor(x.shape)
    assert torch.equal(case.call(zeros, channel, spatial), torch.zeros_like(x))


def test_tensor_subclasses_and_modes_see_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    tensors = [t.requires_grad_() for t in Case("3x3").tensors(torch.float32)]
    with Mode():
        ddfnet.ddf(*tensors).sum().backward()
    assert [name for name in seen if "ddf" in name] == ["ddfnet.ddf.default", "ddfnet.ddf_backward.default"]
    assert isinstance(ddfnet.ddf(torch.nn.Parameter(tensors[0]), *tensors[1:]), torch.Tensor)


def test_batched_gradients_of_one_graph() -> None:
    x, channel, spatial = Case("3x3", channels=2, size=(3, 4)).tensors()
    x.requires_grad_()
    out = ddfnet.ddf(x, channel, spatial)
    grads = torch.randn(5, *out.shape, dtype=out.dtype)
    (batched,) = torch.autograd.grad(out, x, grads, is_grads_batched=True, retain_graph=True)
    for grad, got in zip(grads, batched, strict=True):
        torch.testing.assert_close(got, torch.autograd.grad(out, x, grad, retain_graph=True)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.parametrize("scale", [None, 2])
@pytest.mark.parametrize("grad", [False, True])
def test_a_trace_is_right_for_other_sizes(grad: bool, scale: int | None) -> None:
    call = ddfnet.ddf if scale is None else functools.partial(ddfnet.ddf_upsample, scale_factor=scale)
    subpixels = () if scale is None else (scale * scale,)

    def tensors(n: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
        taps = 9 * math.prod(subpixels)
        shapes = (n, 4, height, width), (n, *subpixels, 4, 3, 3), (n, 2 * taps, height, width)
        return tuple(torch.randn(shape, requires_grad=grad) for shape in shapes)

    traced = torch.jit.trace(lambda *each: call(*each), tensors(1, 6, 5))
    assert "ddfnet::ddf" in str(traced.graph)
    other = tensors(3, 7, 9)
    result, expected = traced(*other), call(*other)
    torch.testing.assert_close(result, expected)
    if grad:
        for got, want in zip(*(torch.autograd.grad(y.square().sum(), other) for y in (result, expected)), strict=True):
            torch.testing.assert_close(got, want)
