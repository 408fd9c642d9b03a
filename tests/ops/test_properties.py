"""Any shape, stride, dtype and layout that hypothesis finds, against the reference in float64."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.ops.cases import FORMATS, TOLERANCE, Case, assert_close, kernel, kernels


def pairs(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(values.map(lambda v: (v, v)), st.tuples(values, values))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads = draw(st.sampled_from([1, 1, 2, 3]))
    scale = draw(st.one_of(st.none(), st.none(), pairs(st.integers(1, 3))))
    taps = st.sampled_from([1, 3, 5]) if scale else st.integers(1, 6)
    case = Case(
        id="drawn",
        batch=draw(st.integers(0, 3)),
        channels=heads * draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 17, 33])),
        size=draw(st.tuples(st.integers(1, 20), st.integers(1, 40))),
        kernel=draw(pairs(taps)),
        stride=(1, 1) if scale else draw(pairs(st.integers(1, 4))),
        padding=None if scale else draw(st.one_of(st.none(), pairs(st.integers(0, 5)))),
        dilation=draw(pairs(st.integers(1, 4))),
        heads=heads,
        combine=draw(st.sampled_from(["mul", "add"])),
        filters=draw(st.sampled_from(["both", "both", "spatial", "channel"])),
        scale=scale,
    )
    assume(case.has_output)
    return case


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    case=cases(),
    name=st.sampled_from(kernels()),
    dtype=st.sampled_from(list(TOLERANCE)),
    formats=st.tuples(*[st.sampled_from(list(FORMATS))] * 3),
    views=st.tuples(*[st.sampled_from(["dense", "flipped", "transposed"])] * 3),
)
def test_any_case(case: Case, name: str, dtype: torch.dtype, formats: tuple, views: tuple) -> None:
    def lay_out(tensor: torch.Tensor | None, memory_format: str, view: str) -> torch.Tensor | None:
        if tensor is None or tensor.dim() != 4:
            return tensor
        tensor = tensor.contiguous(memory_format=FORMATS[memory_format])
        if view == "transposed":
            return tensor.transpose(0, 3).contiguous().transpose(0, 3)
        if view == "flipped":  # rows and columns in the other order, without being adjacent
            return torch.cat([tensor, tensor], 3).transpose(2, 3).contiguous()[:, :, : tensor.shape[3]].transpose(2, 3)
        return tensor

    tensors = [lay_out(t, *how) for t, *how in zip(case.tensors(dtype), formats, views, strict=True)]
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    with kernel("reference"):
        expected = case.call(*exact)
        grad = torch.randn(expected.shape).to(dtype)
        expected_gradients = torch.autograd.grad(expected, [t for t in exact if t is not None], grad.double())
    with kernel(name):
        got = case.call(*leaves)
        gradients = torch.autograd.grad(got, [t for t in leaves if t is not None], grad)
    assert_close("output", got, expected, dtype)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert_close("gradient", a, b, dtype)
