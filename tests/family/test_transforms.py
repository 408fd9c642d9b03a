"""Operators and layers of the family in `torch.jit.trace` and in compiled training, at sizes that change."""

import pytest
import torch
from torch import nn

from ddfnet import family
from tests.inductor import check_training_is_lowered

W, B = torch.randn(4, 1, 3, 3), torch.randn(4)


def maps(n, h, w, *channels):
    return tuple(torch.randn(n, c, h, w) for c in channels)


def enlarged(n, h, w, channels, guide, scale=2):
    return torch.randn(n, channels, h, w), torch.randn(n, guide, scale * h, scale * w)


# A function, and its inputs for a batch and a size.
OPERATORS = {
    "carafe": (lambda x, m: family.carafe(x, m, 3, 2), lambda *s: enlarged(*s, 4, 18)),
    "dysample": (family.dysample, lambda *s: maps(*s, 4, 16)),
    "involution": (lambda x, w: family.involution(x, w, 3), lambda *s: maps(*s, 4, 18)),
    "adaptive_conv": (
        family.adaptive_conv,
        lambda n, h, w: (torch.randn(n, 4, h + 2, w + 2), torch.randn(n, h, w, 3, 3)),
    ),
    "joint_bilateral": (lambda x, g: family.joint_bilateral(x, g, 3), lambda *s: enlarged(*s, 4, 3)),
    "pac": (lambda x, g: family.pac(x, g, W, B), lambda *s: maps(*s, 4, 3)),
    "pac strided": (lambda x, g: family.pac(x, g, W, None, 2, 2, 2), lambda *s: maps(*s, 4, 3)),
    "pac_transpose": (
        lambda x, g: family.pac_transpose(x, g, W, B, padding=1, output_padding=1),
        lambda *s: enlarged(*s, 4, 3),
    ),
    "kernel_prediction": (
        lambda f, k: family.kernel_prediction(f, k, 3),
        lambda n, h, w: (torch.randn(n, 2, 3, h, w), torch.randn(n, 2, 9, h, w)),
    ),
    "dynamic_depthwise": (
        family.dynamic_depthwise,
        lambda n, h, w: (torch.randn(n, 4, h, w), torch.randn(n, 4, 3, 3)),
    ),
    "local_mean": (lambda x: family.local_mean(x, 3), lambda *s: maps(*s, 4)),
    "local_softmax": (lambda x, logits: family.local_softmax(x, logits, 3, 2), lambda *s: maps(*s, 4, 2)),
}
LAYERS = {
    "CARAFE": (lambda: family.CARAFE(4, compressed_channels=4, up_kernel=3), lambda *s: maps(*s, 4)),
    "DySample": (lambda: family.DySample(8, dyscope=True), lambda *s: maps(*s, 8)),
    "Involution": (lambda: family.Involution(8, 3, 2, group_channels=4, reduction=2), lambda *s: maps(*s, 8)),
    "JBU": (lambda: family.JBU(3, 4, 4, radius=1), lambda *s: enlarged(*s, 4, 3)),
    "JBUStack": (lambda: family.JBUStack(4), lambda *s: enlarged(*s, 4, 3, 16)),
}


NOT_LOWERED = ("dysample", "DySample", "JBUStack")


def build(name):
    """Return the operator or layer of this name, and the function that draws its inputs."""
    function, draw = OPERATORS.get(name) or LAYERS[name]
    return (function if name in OPERATORS else function()), draw


@pytest.mark.parametrize("name", [*OPERATORS, *LAYERS])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_serves_other_sizes(name):
    function, draw = build(name)
    if isinstance(function, nn.Module):
        function.eval()
    traced = torch.jit.trace(function, draw(2, 8, 10), check_trace=False)
    for size in ((2, 8, 10), (1, 12, 6), (3, 6, 14)):
        inputs = draw(*size)
        torch.testing.assert_close(traced(*inputs), function(*inputs))


# Without JBUStack, four JBUs in a row: lowering them in one graph takes Inductor a quarter of an hour. And without
# DySample: the check's kernels do nothing, and grid_sample's gradient would read places that none has written.
@pytest.mark.parametrize("name", [name for name in (*OPERATORS, *LAYERS) if name not in NOT_LOWERED])
def test_compiled_training_has_symbols_for_sizes(name):
    # The formats differ in the views of a norm, which operators do not have; their graphs are the largest.
    check_training_is_lowered(*build(name), both_formats=name not in OPERATORS)
