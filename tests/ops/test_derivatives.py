"""Derivatives of every order and mode, on every backend: finite differences, and the transforms against each other."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import ddfnet
from ddfnet.ops import autograd
from tests.ops.cases import SMALL_CASES, Case, derivatives, kernel


def present(case: Case, *tensors):
    """Return the case's tensors that are not None, and the operator as a function of those alone."""
    there = [t is not None for t in tensors]

    def function(*given):
        remaining = iter(given)
        return case.call(*(next(remaining) if t else None for t in there))

    return [t for t in tensors if t is not None], function


@pytest.mark.supports("first derivatives, reverse and forward mode (finite differences)")
@pytest.mark.parametrize(("case", "name"), derivatives(1))
def test_first_derivatives(case: Case, name: str) -> None:
    case = case.on(name)
    inputs, function = present(case, *case.tensors())
    with kernel(name):
        assert gradcheck(function, [t.requires_grad_() for t in inputs], check_forward_ad=True, fast_mode=True)


@pytest.mark.supports("second derivatives (finite differences)")
@pytest.mark.parametrize(("case", "name"), derivatives(2))
def test_second_derivatives(case: Case, name: str) -> None:
    case = case.on(name)
    inputs, function = present(case, *case.tensors())
    with kernel(name):
        assert gradgradcheck(function, [t.requires_grad_() for t in inputs], check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_all_entries_of_the_jacobians(combine: str) -> None:
    """Not fast_mode's random projection: each entry, batched gradients included."""
    case = Case(combine, batch=1, channels=2, size=(2, 3), combine=combine)
    inputs = [t.requires_grad_() for t in case.tensors()]
    assert gradcheck(case.call, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(case.call, inputs, check_batched_grad=True, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_third_derivatives(combine: str) -> None:
    case = Case(combine, batch=1, channels=1, size=(2, 2), kernel=(2, 2), padding=(1, 1), combine=combine)
    inputs = [t.requires_grad_() for t in case.tensors()]

    def first(*tensors):
        return torch.autograd.grad(case.call(*tensors).sin().sum(), tensors, create_graph=True)

    assert gradgradcheck(first, inputs, fast_mode=True)


@pytest.mark.parametrize("case", SMALL_CASES)
def test_the_transforms_agree(case: Case) -> None:
    inputs, function = present(case, *case.tensors())
    tangents = [torch.randn_like(t) for t in inputs]
    every = tuple(range(len(inputs)))

    def loss(*tensors):
        return function(*tensors).sin().sum()

    gradients = torch.autograd.grad(loss(*(t.requires_grad_() for t in inputs)), inputs)
    inputs = [t.detach() for t in inputs]
    for got, expected in zip(torch.func.grad(loss, every)(*inputs), gradients, strict=True):
        torch.testing.assert_close(got, expected)
    _, directional = torch.func.jvp(loss, tuple(inputs), tuple(tangents))
    torch.testing.assert_close(directional, sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True)))
    with forward_ad.dual_level():
        dual = loss(*(forward_ad.make_dual(t, d) for t, d in zip(inputs, tangents, strict=True)))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, directional)

    # Forward over reverse and reverse over reverse give one Hessian.
    outer = torch.func.jvp(torch.func.grad(loss, every), tuple(inputs), tuple(tangents))[1]

    def directional_derivative(*tensors):
        return torch.func.jvp(loss, tensors, tuple(tangents))[1]

    for a, b in zip(outer, torch.func.grad(directional_derivative, every)(*inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_jvp_in_one_tensor_only() -> None:
    case = Case("add", combine="add")
    tensors = case.tensors()
    for index in range(3):
        direction = torch.randn_like(tensors[index])

        def function(t, index=index):
            return case.call(*tensors[:index], t, *tensors[index + 1 :])

        _, got = torch.func.jvp(function, (tensors[index],), (direction,))
        step = 1e-6 * direction
        expected = (function(tensors[index] + step) - function(tensors[index] - step)) / 2e-6
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", SMALL_CASES)
def test_vmap_maps(case: Case) -> None:
    inputs, function = present(case, *case.tensors())
    stacked = [torch.stack([t, t + 1, t * 2], dim) for t, dim in zip(inputs, (0, 1, 2), strict=False)]
    got = torch.func.vmap(function, in_dims=tuple(range(len(inputs))))(*stacked)
    for i in range(3):
        torch.testing.assert_close(got[i], function(*(s.select(d, i) for d, s in enumerate(stacked))))


def test_vmap_with_a_shared_tensor_and_under_grad() -> None:
    case = Case("3x3", channels=2, size=(4, 5))
    x, channel, spatial = case.tensors()
    xs = torch.stack([x, -x])

    def loss(x):
        return case.call(x, channel, spatial).sin().sum()

    expected = torch.stack([torch.func.grad(loss)(x), torch.func.grad(loss)(-x)])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(xs), expected)
    torch.testing.assert_close(torch.func.grad(lambda xs: torch.func.vmap(loss)(xs).sum())(xs), expected)
    per_sample = torch.func.vmap(lambda x, c, s: case.call(x[None], c[None], s[None])[0])
    torch.testing.assert_close(per_sample(x, channel, spatial), case.call(x, channel, spatial))


def test_a_graph_through_one_tensor_computes_no_other_gradient() -> None:
    masks = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.ddfnet.ddf_backward.default:
                masks.append(list(args[-1]))
            return function(*args, **(kwargs or {}))

    x, channel, spatial = Case("3x3").tensors()
    with Spy():
        ddfnet.ddf(x, channel.requires_grad_(), spatial).sum().backward()
    assert masks == [[False, True, False]]


@pytest.mark.parametrize("filters", ["both", "channel", "spatial"])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_hessians_of_any_nesting(combine: str, filters: str) -> None:
    """Inner transforms must leave their mark on what outer ones see; F.conv2d is right in all four."""
    case = Case(combine, batch=1, channels=2, size=(3, 4), combine=combine, filters=filters)
    inputs, function = present(case, *case.tensors())
    for index, point in enumerate(inputs):

        def loss(t, index=index):
            return function(*inputs[:index], t, *inputs[index + 1 :]).pow(3).sum()

        expected = torch.autograd.functional.hessian(loss, point)
        for outer in (torch.func.jacfwd, torch.func.jacrev):
            for inner in (torch.func.jacfwd, torch.func.jacrev):
                torch.testing.assert_close(outer(inner(loss))(point), expected)
        torch.testing.assert_close(torch.func.hessian(loss)(point), expected)
        direction = torch.randn_like(point)

        def first(t, loss=loss, direction=direction):
            return torch.func.jvp(loss, (t,), (direction,))[1]

        second = torch.func.jvp(first, (point,), (direction,))[1]
        flat = direction.flatten()
        torch.testing.assert_close(second, flat @ expected.reshape(flat.numel(), -1) @ flat)


def test_this_torch_has_the_private_names_of_the_shortest_way() -> None:
    """Without them `ddfnet.ops.autograd.is_plain_eager` is False: no error, and a slower call."""
    assert autograd.is_plain_eager(*Case("3x3").tensors())


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_a_torch_without_the_private_names_gives_the_same(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("3x3", channels=2, size=(4, 5), combine=combine)
    inputs = [t.requires_grad_() for t in case.tensors()]

    def results():
        output = case.call(*inputs)
        with torch.no_grad():
            alone = case.call(*inputs)
        return output, alone, *torch.autograd.grad(output.sin().sum(), inputs)

    expected = results()
    monkeypatch.setattr(autograd, "_below_autograd", None)
    assert not autograd.is_plain_eager(*inputs)
    for got, wanted in zip(results(), expected, strict=True):
        assert torch.equal(got, wanted)


def test_only_plain_eager_calls_skip_the_autograd_key() -> None:
    case = Case("3x3", channels=2, size=(4, 5))
    x, channel, spatial = case.tensors()
    seen = []

    def function(t):
        seen.append(autograd.is_plain_eager(t, channel, None))
        return case.call(t, channel, spatial).sum()

    function(x)
    torch.func.grad(function)(x)
    torch.func.jvp(function, (x,), (x,))
    torch.func.vmap(function)(torch.stack([x, x]))
    with forward_ad.dual_level():
        function(x)
    assert seen == [True, False, False, False, False]
