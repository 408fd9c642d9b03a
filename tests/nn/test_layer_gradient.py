"""Gradient of a whole layer in one function, against that of its pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddfnet.nn import DDF2d, layer_op
from ddfnet.ops import backends

pytestmark = pytest.mark.skipif(not backends.is_compiled(torch.device("cpu")), reason="the pieces alone have gradients")


def layer(memory_format: torch.memory_format, kernel: int = 3, **options: object) -> DDF2d:
    torch.manual_seed(0)
    made = DDF2d(8, kernel, **options).to(memory_format=memory_format)  # type: ignore[arg-type,call-overload]
    for norm in (made.spatial.norm, made.channel.norm):  # type: ignore[union-attr]
        if isinstance(norm.scale, Tensor):  # those of a static layer are zero at first
            torch.nn.init.normal_(norm.scale)
    return made


def use_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_op, "_has_gradient", lambda *_: False)


def gradients(module: DDF2d, x: Tensor) -> list[Tensor]:
    y = module(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], direction)]


def name(y: Tensor) -> str:
    return type(y.grad_fn).__name__


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("size", [(7, 6), (8, 9), (1, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (2, 1)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"static": True}, {"heads": 2, "kernel": 5}, {"combine": "add"}, {"combine": "add", "static": True}],
    ids=str,
)
def test_it_is_the_gradient_of_the_pieces(monkeypatch, options, stride, size, memory_format) -> None:
    module = layer(memory_format, stride=stride, **options)
    x = torch.randn(3, 8, *size).contiguous(memory_format=memory_format).requires_grad_()
    assert name(module(x)) == "LayerBackward"
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


@pytest.mark.parametrize("why", ["double", "autocast", "strides"])
def test_other_calls_are_made_of_pieces(why: str) -> None:
    module, x = layer(torch.channels_last), torch.randn(2, 8, 5, 6)
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
