"""FilterNorm's compiled kernel against its formula: values, gradients and transforms."""

from __future__ import annotations

import pytest
import torch

import ddfnet
from ddfnet.nn.filter_norm import filter_norm
from ddfnet.ops.geometry import DTYPES
from tests.ops.cases import kernel, kernels

ISAS = [name for name in kernels() if name != "reference"]
pytestmark = pytest.mark.skipif(not ISAS, reason="no compiled kernel here")
CHANNELS_LAST = torch.channels_last
# The filters' shape and memory format, the number of filters, taps, kind.
LAYOUTS = {
    "spatial": ((2, 18, 5, 7), torch.contiguous_format, 2, 9, "spatial"),
    "spatial channels_last": ((2, 18, 5, 7), CHANNELS_LAST, 2, 9, "spatial"),
    "spatial one pixel": ((3, 50, 1, 1), CHANNELS_LAST, 2, 25, "spatial"),
    "spatial many pixels": ((1, 9, 33, 17), CHANNELS_LAST, 1, 9, "spatial"),
    "spatial rows": ((2, 8, 19), torch.contiguous_format, 4, 2, "spatial"),
    "channel": ((2, 37 * 9, 1, 1), torch.contiguous_format, 37, 9, "channel"),
    "channel filters": ((2, 5, 3, 3), CHANNELS_LAST, 5, 9, "channel"),
    "channel vectors": ((3, 32), torch.contiguous_format, 16, 2, "channel"),
}


def sampled(layout, dtype=torch.double):
    shape, memory_format, filters, taps, kind = layout
    x = torch.randn(shape).to(dtype)
    if x.dim() == 4:
        x = x.to(memory_format=memory_format)
    scale, shift = (torch.randn(filters * taps).to(dtype) for _ in range(2))
    return x, scale, shift, lambda x, scale, shift: filter_norm(x, filters, taps, kind, scale, shift, 1e-6)


def reference(call, *arguments):
    with ddfnet.ops.backend("reference"):
        return call(*arguments)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_values_and_gradients(layout, dtype, isa):
    x, scale, shift, call = sampled(layout, dtype)
    x[0].zero_()  # constant filters
    grad, results = torch.randn_like(x), []
    for name in (isa, "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, scale, shift)]
        with kernel(name):
            y = call(*leaves)
            results.append([y, *torch.autograd.grad(y, leaves, grad)])
        with kernel(name), torch.no_grad():
            constant = call(x, 0.5, None)
            results[-1].append(constant)
    assert results[0][0].stride() == results[1][0].stride()
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {}
    if dtype in (torch.float16, torch.bfloat16):
        tolerance = {"rtol": 0.02, "atol": 0.02}
    for got, expected in zip(*results, strict=True):
        assert got.dtype is dtype
        torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_only_the_gradients_that_are_wanted(layout):
    x, scale, shift, call = sampled(layout)
    for index in range(3):
        leaves = [tensor.clone().requires_grad_(i == index) for i, tensor in enumerate((x, scale, shift))]
        [got] = torch.autograd.grad(call(*leaves).square().sum(), leaves[index])
        [expected] = torch.autograd.grad(reference(call, *leaves).square().sum(), leaves[index])
        torch.testing.assert_close(got, expected)


def test_gradients_that_lie_otherwise():
    x, scale, shift, call = sampled(LAYOUTS["spatial channels_last"])
    x.requires_grad_()
    for grad in (torch.ones(()).double().expand(x.shape), torch.randn(x.shape).double()):
        [got] = torch.autograd.grad(call(x, scale, shift), x, grad)
        [expected] = torch.autograd.grad(reference(call, x, scale, shift), x, grad)
        torch.testing.assert_close(got, expected)


def test_transforms():
    x, scale, shift, call = sampled(LAYOUTS["spatial"])
    tangents = tuple(map(torch.randn_like, (x, scale, shift)))
    got = torch.func.jvp(call, (x, scale, shift), tangents)
    expected = reference(torch.func.jvp, call, (x, scale, shift), tangents)
    torch.testing.assert_close(got, expected)
    for in_dims in ((0, None, None), (1, None, None), (None, 0, None), (0, 0, 0)):
        stacked = [
            t if d is None else torch.stack([t, 2 * t], d) for t, d in zip((x, scale, shift), in_dims, strict=True)
        ]
        got = torch.func.vmap(call, in_dims)(*stacked)
        expected = reference(torch.func.vmap(call, in_dims), *stacked)
        torch.testing.assert_close(got, expected)
    loss = lambda *tensors: call(*tensors).pow(3).sum()  # noqa: E731
    got = torch.func.grad(loss, (0, 1, 2))(x, scale, shift)
    torch.testing.assert_close(got, reference(torch.func.grad(loss, (0, 1, 2)), x, scale, shift))


@pytest.mark.parametrize("layout", [LAYOUTS["spatial"], LAYOUTS["channel vectors"]], ids=["spatial", "channel"])
def test_gradients_of_second_order(layout):
    x, scale, shift, call = sampled(layout)
    leaves = [tensor[:, :, :2, :2].contiguous() if tensor.dim() == 4 else tensor for tensor in (x, scale, shift)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)
    constant = leaves[2].detach()  # it is not held for the gradients
    assert torch.autograd.gradgradcheck(lambda x, scale: call(x, scale, constant), leaves[:2], fast_mode=True)


def test_same_bits_for_any_number_of_threads():
    x, scale, shift, call = sampled(LAYOUTS["spatial many pixels"], torch.float32)
    threads = torch.get_num_threads()
    try:
        results = [(torch.set_num_threads(count), call(x, scale, shift))[1] for count in (1, 2, 3)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("shape", [(0, 18, 5, 7), (2, 18, 0, 7)], ids=str)
def test_empty_filters(shape):
    x = torch.randn(shape, requires_grad=True)
    y = filter_norm(x, 2, 9, "spatial", 1.0, None, 1e-6)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
