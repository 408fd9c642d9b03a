"""Gradient of a whole layer in one function, against that of its pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ddfnet.nn import DDF2d, FilterNorm, layer_op
from ddfnet.ops import backends

KERNEL = backends.is_compiled(torch.device("cpu"))  # without it every call is made of pieces


def layer(memory_format: torch.memory_format, kernel: Any = 3, **options: object) -> DDF2d:
    torch.manual_seed(0)
    made = DDF2d(8, kernel, **options).to(memory_format=memory_format)  # type: ignore[arg-type,call-overload]
    for norm in (made.spatial.norm, made.channel.norm):  # type: ignore[union-attr]
        if isinstance(norm.scale, Tensor):  # those of a static layer are zero at first
            torch.nn.init.normal_(norm.scale)
    return made


def use_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_op, "_has_gradient", lambda *_, **__: False)


def gradients(module: DDF2d, x: Tensor) -> list[Tensor]:
    y = module(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], direction)]


def name(y: Tensor) -> str:
    return type(y.grad_fn).__name__


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("size", [(7, 6), (8, 9), (1, 1), (1, 5)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"static": True},
        {"heads": 2, "kernel": 5},
        {"kernel": (1, 3)},
        {"combine": "add"},
        {"combine": "add", "static": True},
    ],
    ids=str,
)
def test_it_is_the_gradient_of_the_pieces(monkeypatch, options, size, memory_format) -> None:
    module = layer(memory_format, **options)
    x = torch.randn(3, 8, *size).contiguous(memory_format=memory_format).requires_grad_()
    assert (name(module(x)) == "LayerBackward") == KERNEL
    own = gradients(module, x)
    use_pieces(monkeypatch)
    assert name(module(x)) != "LayerBackward"
    for each, expected in zip(own, gradients(module, x), strict=True):
        assert each.shape == expected.shape
        torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5 * (1 + float(expected.abs().max())))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_has_the_memory_format_of_the_map(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 8, 6, 5).contiguous(memory_format=memory_format).requires_grad_()
    y = layer(memory_format)(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=memory_format)
    assert x.grad is not None and x.grad.is_contiguous(memory_format=memory_format)


def test_gradients_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(module: DDF2d, x: Tensor) -> list[Tensor]:
        inputs = [x, *module.parameters()]
        first = torch.autograd.grad(module(x).square().mean(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(each.square().sum() for each in first), inputs))  # type: ignore[arg-type]

    module, x = layer(torch.channels_last, static=True), torch.randn(2, 8, 5, 6).requires_grad_()
    own = second(module, x)
    use_pieces(monkeypatch)
    for each, expected in zip(own, second(module, x), strict=True):
        torch.testing.assert_close(each, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("trained", ["input", "spatial", "channel", "weight", "channel.norm", "spatial.norm"])
def test_only_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, trained: str) -> None:
    module = layer(torch.channels_last, static=True)
    for name_, parameter in module.named_parameters():
        parameter.requires_grad_(name_.startswith(trained))
    x = torch.randn(2, 8, 5, 6).requires_grad_(trained == "input")

    def step() -> dict[str, Tensor]:
        module.zero_grad()
        x.grad = None
        module(x).square().mean().backward()
        found = {"input": x.grad, **{key: parameter.grad for key, parameter in module.named_parameters()}}
        return {key: grad.clone() for key, grad in found.items() if grad is not None}

    own = step()
    assert own and all(key.startswith(trained) for key in own)
    use_pieces(monkeypatch)
    expected = step()
    assert own.keys() == expected.keys()
    for key, grad in own.items():
        torch.testing.assert_close(grad, expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("static", [False, True])
def test_many_gradients_at_once(monkeypatch: pytest.MonkeyPatch, static: bool) -> None:
    module, x = layer(torch.channels_last, static=static), torch.randn(1, 8, 3, 4).requires_grad_()
    y = module(x)
    directions = torch.randn(5, *y.shape)
    [found] = torch.autograd.grad(y, x, directions, is_grads_batched=True, retain_graph=True)
    expected = torch.stack([torch.autograd.grad(y, x, each, retain_graph=True)[0] for each in directions])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    hessian = torch.autograd.functional.hessian(lambda x: module(x).square().sum(), x, vectorize=True)
    use_pieces(monkeypatch)
    expected = torch.autograd.functional.hessian(lambda x: module(x).square().sum(), x)
    torch.testing.assert_close(hessian, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("part", ["layer", "norm"])
def test_a_gradient_has_a_derivative_in_forward_mode(part: str) -> None:
    module: torch.nn.Module = layer(torch.channels_last) if part == "layer" else FilterNorm(1, 3, "spatial")
    x = torch.randn(2, 8 if part == "layer" else 9, 5, 6).requires_grad_()
    y = module(x)
    direction, tangent = torch.randn(2, *y.shape)
    with forward_ad.dual_level():
        [found] = torch.autograd.grad(y, x, forward_ad.make_dual(direction, tangent), retain_graph=True)
        derivative = forward_ad.unpack_dual(found).tangent
    [expected] = torch.autograd.grad(y, x, tangent)  # the gradient is linear in the direction
    torch.testing.assert_close(derivative, expected, rtol=1e-4, atol=1e-5)


def test_compiled_autograd() -> None:
    module, x = layer(torch.channels_last, static=True), torch.randn(2, 8, 5, 6).requires_grad_()
    expected = gradients(module, x)[1:]
    y = module(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        y.backward(direction)
    for each, parameter in zip(expected, [x, *module.parameters()], strict=True):
        torch.testing.assert_close(parameter.grad, each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_backward_inside_of_autocast_is_in_float32(create_graph: bool) -> None:
    module, x = layer(torch.channels_last, static=True), torch.randn(2, 8, 5, 6).requires_grad_()
    expected = gradients(module, x)[1:]
    y = module(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, [x, *module.parameters()], direction, create_graph=create_graph)
    for each, own in zip(expected, found, strict=True):
        torch.testing.assert_close(own, each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook"])
def test_backward_hooks_of_its_parts_are_called(kind: str) -> None:
    module, calls = layer(torch.channels_last), []
    getattr(module.spatial.conv, f"register_{kind}")(lambda *_: calls.append(1))  # type: ignore[union-attr]
    module(torch.randn(2, 8, 5, 6).requires_grad_()).sum().backward()
    assert calls == [1]


@pytest.mark.parametrize("why", ["double", "autocast", "strides", "stride"])
def test_other_calls_are_made_of_pieces(why: str) -> None:
    module, x = layer(torch.channels_last, stride=2 if why == "stride" else 1), torch.randn(2, 8, 5, 6)
    if why == "double":
        module, x = module.double(), x.double()
    if why == "strides":
        x = torch.randn(2, 16, 5, 6)[:, ::2]
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        y = module(x)
    y.float().sum().backward()
    assert name(y) != "LayerBackward" and x.grad is not None and x.grad.isfinite().all()


def test_an_empty_batch_has_gradients_of_zero() -> None:
    module, x = layer(torch.channels_last, static=True), torch.randn(0, 8, 5, 6).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in module.parameters())
