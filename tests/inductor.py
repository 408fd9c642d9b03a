"""Compiled training with symbols for sizes, without the time that a C++ compiler takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.utils import fresh_cache

SIZE = (2, 6, 10)
"""Batch and size. The numbers differ, because equal ones are taken to be one symbol."""


def check_training_is_lowered(
    model: Callable[..., Tensor], draw: Callable[..., tuple[Tensor, ...]], *, both_formats: bool = True
) -> None:
    """Check that Inductor lowers the model, forward and backward, at sizes that are symbols, in both formats.

    So Inductor compiles at the second size that it sees. Its kernels do nothing here, for a C++ compiler would take
    minutes, and the results are arbitrary. That compiled results are right is tested with ``aot_eager`` for each layer,
    and with Inductor's own kernels for a few.

    Args:
        model: a module or function.
        draw: returns inputs for a batch, a height and a width.
        both_formats: False for channels_last alone, in half the time.
    """

    formats = 2 if both_formats else 1

    def loss(*inputs: Tensor) -> Tensor:
        count = len(inputs) // formats
        parts = (inputs[start : start + count] for start in range(0, len(inputs), count))
        return torch.stack([model(*part).square().mean() for part in parts]).sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, dynamic=True, fullgraph=True)
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    with kernels_that_do_nothing():
        inputs = [x.requires_grad_() for x in draw(*SIZE)]
        others = [_channels_last(x).detach().requires_grad_() for x in inputs]
        inputs = [*inputs, *others] if both_formats else others
        gradients = torch.autograd.grad(compiled(*inputs), [*inputs, *parameters])
        assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in [*inputs, *parameters]]
    torch._dynamo.reset()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@contextmanager
def kernels_that_do_nothing() -> Iterator[None]:
    """Compile without a C++ compiler: shapes and strides are right, numbers arbitrary."""

    def compile_nothing(*_: Any, **__: Any) -> Callable[..., None]:
        return lambda *arguments: None

    with (
        fresh_cache(),
        config.patch(compile_threads=1),
        mock.patch.object(AsyncCompile, "cpp_pybinding", compile_nothing),
    ):
        yield
