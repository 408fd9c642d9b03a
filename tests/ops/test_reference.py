"""Specification against loops written from the formula and against torch's own operators."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ddfnet
from ddfnet.ops import reference
from tests.ops.cases import CASES, Case, assert_close


def formula(case: Case, input: Tensor, channel: Tensor | None, spatial: Tensor | None) -> Tensor:
    """Compute the contract's sum, one multiplication at a time."""
    n, c, h, w = input.shape
    (kh, kw), (sy, sx), (py, px), (dy, dx), (uy, ux), combine = case.geometry
    gh, gw = case.positions
    taps, width = kh * kw, c // case.heads
    out = torch.zeros(n, c, gh * uy, gw * ux, dtype=input.dtype)
    channel = None if channel is None else channel.reshape(n, uy * ux, c, taps)
    for b, q, k, y, x in itertools.product(range(n), range(uy * ux), range(c), range(gh), range(gw)):
        total = 0.0
        for ky, kx in itertools.product(range(kh), range(kw)):
            iy, ix, t = y * sy - py + ky * dy, x * sx - px + kx * dx, ky * kw + kx
            if not (0 <= iy < h and 0 <= ix < w):
                continue
            weights = []
            if channel is not None:
                weights.append(channel[b, q, k, t].item())
            if spatial is not None:
                weights.append(spatial[b, (q * case.heads + k // width) * taps + t, y, x].item())
            weight = weights[0] * weights[-1] if combine == "mul" and len(weights) == 2 else sum(weights)
            total += weight * input[b, k, iy, ix].item()
        out[b, k, y * uy + q // ux, x * ux + q % ux] = total
    return out


FORMULA_CASES = [p for p in CASES if p.values[0].channels <= 8 and "31" not in p.id and p.id not in ("wide", "tall")]


@pytest.mark.parametrize("case", FORMULA_CASES)
def test_forward_is_the_formula(case: Case) -> None:
    tensors = case.tensors()
    with ddfnet.ops.backend("reference"):
        assert_close("output", case.call(*tensors), formula(case, *tensors), torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_backward_is_autograd_through_forward(case: Case) -> None:
    input, channel, spatial = case.tensors()
    channel = channel.flatten(1, 2) if channel is not None and channel.dim() == 5 else channel
    tensors = [input, channel, spatial]
    leaves = [None if t is None else t.requires_grad_() for t in tensors]
    output = reference.ddf(*leaves, case.geometry)
    grad = torch.randn_like(output)
    there = [t for t in leaves if t is not None]
    expected = iter(torch.autograd.grad(output, there, grad))
    got = reference.ddf_backward(grad, *tensors, case.geometry, [t is not None for t in tensors])
    for name, leaf, gradient in zip(("input", "channel_filter", "spatial_filter"), leaves, got, strict=True):
        if leaf is None:
            assert gradient is None
        else:
            assert_close(f"gradient of {name}", gradient, next(expected), torch.float64)


def test_channel_filter_alone_is_a_depthwise_convolution() -> None:
    x, weight = torch.randn(2, 6, 9, 8, dtype=torch.float64), torch.randn(6, 3, 5, dtype=torch.float64)
    with ddfnet.ops.backend("reference"):
        got = ddfnet.ddf(x, weight.expand(2, -1, -1, -1), None, stride=2, dilation=(1, 2))
    expected = F.conv2d(x, weight[:, None], stride=2, padding=(1, 4), dilation=(1, 2), groups=6)
    assert_close("output", got, expected, torch.float64)


def test_upsampling_is_stacked_ddf_and_pixel_shuffle() -> None:
    x, channel = torch.randn(2, 5, 4, 6, dtype=torch.float64), torch.randn(2, 4, 5, 3, 3, dtype=torch.float64)
    spatial = torch.randn(2, 4 * 9, 4, 6, dtype=torch.float64)
    with ddfnet.ops.backend("reference"):
        parts = [ddfnet.ddf(x, channel[:, q], spatial[:, q * 9 : q * 9 + 9]) for q in range(4)]
        got = ddfnet.ddf_upsample(x, channel, spatial, scale_factor=2)
    assert_close("output", got, F.pixel_shuffle(torch.stack(parts, 2).flatten(1, 2), 2), torch.float64)
