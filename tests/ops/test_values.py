"""Output and all gradients of every kernel against the reference in float64."""

from __future__ import annotations

import pytest
import torch

import ddfnet
from ddfnet.ops import registration
from tests.ops.cases import FORMATS, Case, assert_close, kernel, kernels, values

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.supports("output and all gradients")
@pytest.mark.parametrize(("case", "name", "dtype", "memory_format"), values())
def test_output_and_gradients(case: Case, name: str, dtype: torch.dtype, memory_format: str) -> None:
    case = case.on(name)
    tensors = case.tensors(dtype, memory_format)
    exact = [None if t is None else t.double().requires_grad_() for t in tensors]
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    with kernel("reference"):
        expected = case.call(*exact)
    grad = torch.randn(expected.shape).to(dtype).contiguous(memory_format=FORMATS[memory_format])
    with kernel("reference"):
        expected_gradients = torch.autograd.grad(expected, [t for t in exact if t is not None], grad.double())
    with kernel(name):
        output = case.call(*leaves)
        gradients = torch.autograd.grad(output, [t for t in leaves if t is not None], grad)

    assert_close("output", output, expected, dtype)
    names = [n for n, t in zip(("input", "channel_filter", "spatial_filter"), leaves, strict=True) if t is not None]
    for n, got, wanted in zip(names, gradients, expected_gradients, strict=True):
        assert_close(f"gradient of {n}", got, wanted, dtype)


@pytest.mark.parametrize("mask", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", kernels())
def test_each_gradient_alone_is_the_same(name: str, memory_format: str, mask: tuple[int, ...]) -> None:
    case = Case("3x3", channels=16, size=(6, 7))
    tensors = case.tensors(torch.float32, memory_format)
    grad = torch.randn_like(tensors[0])
    with kernel(name):
        every = registration.ddf_backward(grad, *tensors, *case.geometry, [True] * 3)
        some = registration.ddf_backward(grad, *tensors, *case.geometry, [bool(m) for m in mask])
    for wanted, a, b in zip(mask, every, some, strict=True):
        assert torch.equal(a, b) if wanted else b.numel() == 0


@pytest.mark.supports("half types rounded once")
@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_types_are_rounded_once(name: str, dtype: torch.dtype) -> None:
    """Results are the nearest half to the exact one, except for the few within float32's error of a tie; rounding
    twice, or at each tap, would miss it in a large part."""
    case = Case("7x7", kernel=(7, 7), channels=16, size=(12, 12))
    tensors = case.tensors(dtype)
    with kernel("reference"):
        exact = case.call(*(t.double() for t in tensors))
    with kernel(name):
        got = case.call(*tensors)
    assert (got != exact.to(dtype)).float().mean() < 5e-3


@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_every_half_value_passes_through(name: str, dtype: torch.dtype) -> None:
    """All 65,536 bit patterns, subnormals, infinities and NaN among them, through a 1x1 filter of one."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    for memory_format, shape in (("contiguous", (1, 1, 256, 256)), ("channels_last", (1, 64, 32, 32))):
        x = values.reshape(shape).contiguous(memory_format=FORMATS[memory_format])
        with kernel(name):
            got = Case("1x1", kernel=(1, 1), filters="channel").call(
                x, torch.ones(*x.shape[:2], 1, 1, dtype=dtype), None
            )
        assert torch.equal(got.isnan(), x.isnan())
        kept = ~x.isnan()
        assert torch.equal(got[kept].view(torch.int16), (x[kept] + 0).view(torch.int16))


@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_floats_are_rounded_to_the_nearest_half(name: str, dtype: torch.dtype) -> None:
    """Products of two halves need twice the digits: the rounding is torch's own, overflow and subnormals included."""
    bits = torch.randint(-(2**15), 2**15, (2, 64, 16, 16), dtype=torch.int16)
    x = bits.view(dtype).nan_to_num(0, 1, -1)
    filter = torch.randint(-(2**15), 2**15, (2, 64, 1, 1), dtype=torch.int16).view(dtype).nan_to_num(0, 1, -1)
    expected = (x.float() * filter.float()).to(dtype)
    for memory_format in FORMATS.values():
        with kernel(name):
            got = Case("1x1", kernel=(1, 1), filters="channel").call(
                x.contiguous(memory_format=memory_format), filter, None
            )
        assert torch.equal(got, expected)


@pytest.mark.parametrize("name", kernels())
def test_an_empty_batch_takes_no_time_for_its_taps(name: str) -> None:
    x, channel = torch.zeros(0, 4, 3, 3, requires_grad=True), torch.zeros(0, 4, 32767, 32767, requires_grad=True)
    with kernel(name):
        result = ddfnet.ddf(x, channel, None)
        result.sum().backward()
    assert result.shape == (0, 4, 3, 3)
    assert x.grad.shape == x.shape and channel.grad.shape == channel.shape
