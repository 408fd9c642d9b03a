"""Ways to make a convolution compute something else than its class does with its weights."""

import functools

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def replace_forward(conv: nn.Conv2d) -> None:
    conv.forward = lambda x: 1 - type(conv).forward(conv, x)  # type: ignore[method-assign]


def wrap_forward(conv: nn.Conv2d) -> None:
    """Do as offloading does, which brings the weights first."""

    def brought(x: Tensor) -> Tensor:
        return old(x) * 3

    old = conv.forward
    conv.forward = functools.update_wrapper(brought, old)  # type: ignore[method-assign]


def replace_conv_forward(conv: nn.Conv2d) -> None:
    def standardised(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return type(conv)._conv_forward(conv, x, weight / weight.std(), bias)

    conv._conv_forward = standardised  # type: ignore[method-assign]


ALTERATIONS = {
    "forward": replace_forward,
    "wrapped forward": wrap_forward,
    "_conv_forward": replace_conv_forward,
    "parametrisation": lambda conv: torch.nn.utils.parametrize.register_parametrization(conv, "weight", Doubled()),
    "weight norm": parametrizations.weight_norm,
    "old weight norm": nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "pruning": lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    "hook": lambda conv: conv.register_forward_hook(lambda module, args, output: output + 1),
}
"""Functions of a convolution by name."""
