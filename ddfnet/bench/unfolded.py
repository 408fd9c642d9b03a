"""Operators of `ddfnet.family` in their common form without a kernel, which stores all windows by ``F.unfold``."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def windows(x: Tensor, k: int, *, stride: int = 1, padding: int | None = None) -> Tensor:
    """Return the windows (N, C, k*k, Ho, Wo) of a map (N, C, H, W), k*k times its size."""
    n, c, h, w = x.shape
    p = (k - 1) // 2 if padding is None else padding
    size = [(length + 2 * p - k) // stride + 1 for length in (h, w)]
    return F.unfold(x, k, padding=p, stride=stride).view(n, c, k * k, *size)


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    enlarged = F.interpolate(windows(features, kernel_size).flatten(1, 2), scale_factor=scale_factor, mode="nearest")
    taps = enlarged.unflatten(1, (group_size, -1, kernel_size**2))
    return (taps * masks.unflatten(1, (group_size, 1, -1))).sum(3).flatten(1, 2)


def involution(x: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    weights = weight.unflatten(1, (-1, 1, kernel_size**2))
    taps = windows(x, kernel_size).unflatten(1, (weights.shape[1], -1))
    return (taps * weights).sum(3).flatten(1, 2)


def adaptive_conv(input: Tensor, filters: Tensor) -> Tensor:
    taps = windows(input, filters.shape[-1], padding=0)
    return (taps * filters.flatten(3).permute(0, 3, 1, 2)[:, None]).sum(2)


def joint_bilateral(x: Tensor, guide: Tensor, kernel_size: int, sigma_space: float, sigma_range: float) -> Tensor:
    if x.shape[2:] != guide.shape[2:]:
        x = F.interpolate(x, guide.shape[2:], mode="nearest")
    unlike = (windows(guide, kernel_size) - guide[:, :, None]).square().sum(1) / (2 * sigma_range**2)
    steps = torch.arange(kernel_size) - kernel_size // 2
    away = (steps[:, None] ** 2 + steps**2).flatten().to(x) / (2 * sigma_space**2)
    outside = windows(torch.ones_like(guide[:, :1]), kernel_size)[:, 0] == 0
    weights = (-unlike - away[:, None, None]).masked_fill(outside, -math.inf).softmax(1)
    return (windows(x, kernel_size) * weights[:, None]).sum(2)


def pac(x: Tensor, guide: Tensor, weight: Tensor) -> Tensor:
    k = weight.shape[-1]
    alike = (-(windows(guide, k) - guide[:, :, None]).square().sum(1) / 2).exp()
    return (windows(x, k) * alike[:, None] * weight.view(-1, k * k, 1, 1)).sum(2)


def pac_transpose(x: Tensor, guide: Tensor, weight: Tensor, *, padding: int, **_: Any) -> Tensor:
    """Compute the authors' form: the map spread with zeros, at stride 2."""
    n, c, h, w = x.shape
    spread, first = x.new_zeros(n, c, *guide.shape[2:]), weight.shape[-1] // 2 - padding
    spread[:, :, first : first + 2 * h - 1 : 2, first : first + 2 * w - 1 : 2] = x
    return pac(spread, guide, weight.flip(2, 3))


def kernel_prediction(frames: Tensor, kernels: Tensor, kernel_size: int) -> Tensor:
    taps = windows(frames.flatten(0, 1), kernel_size).unflatten(0, frames.shape[:2])
    return (taps * kernels[:, :, None]).sum(3).mean(1)


def dynamic_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    return (windows(x, weight.shape[-1]) * weight.flatten(2)[..., None, None]).sum(2)


def local_mean(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    counts = windows(torch.ones_like(x[:1, :1]), kernel_size, stride=stride).sum(2)
    return windows(x, kernel_size, stride=stride).sum(2) / counts


def local_softmax(x: Tensor, logits: Tensor, kernel_size: int, stride: int) -> Tensor:
    outside = windows(torch.ones_like(x[:1, :1]), kernel_size, stride=stride) == 0
    weights = windows(logits, kernel_size, stride=stride).masked_fill(outside, -math.inf).softmax(2)
    return (windows(x, kernel_size, stride=stride) * weights).sum(2)
