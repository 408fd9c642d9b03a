"""Filters that the DDF layers of a network predict for an image, and their colours.

A 3x3 layer has nine numbers per pixel. Their three main principal components, fitted to all images at once, are the
colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn import DDF2d


@dataclass(frozen=True)
class LayerFilters:
    """Filters that one layer predicted for one image."""

    layer: str
    spatial: Tensor  # (K, H, W), not combined with the channel filter
    channel: Tensor  # (C, kH, kW)


def record(network: nn.Module, image: Tensor) -> list[LayerFilters]:
    """Run a network on an image and record the filters of its DDF layers.

    Args:
        network: with `DDF2d` layers of one head, in evaluation mode.
        image: (C, H, W), normalised, of any size that the network takes.

    Returns:
        The filters in the order in which the layers ran.
    """
    kept: dict[str, dict[str, Tensor]] = {}
    hooks = []

    def keep(branch: nn.Module, layer: str, name: str) -> None:
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            kept.setdefault(layer, {})[name] = output[0]

        hooks.append(branch.register_forward_hook(hook))

    for layer, module in network.named_modules():
        if isinstance(module, DDF2d) and module.spatial is not None and module.channel is not None:
            keep(module.spatial, layer, "spatial")
            keep(module.channel, layer, "channel")
    try:
        with torch.no_grad():
            network(image.unsqueeze(0))
    finally:
        for hook in hooks:
            hook.remove()
    return [LayerFilters(layer, own["spatial"], own["channel"]) for layer, own in kept.items()]


@dataclass(frozen=True)
class Components:
    """Mean filter of several maps, and the three directions in which their filters differ most."""

    mean: Tensor  # (K,)
    directions: Tensor  # (3, K), unit length
    share: float  # share of the variance in the three directions
    low: Tensor  # (3,), values of the darkest colours
    high: Tensor  # (3,), values of the brightest colours

    @staticmethod
    def fit(maps: Sequence[Tensor]) -> Components:
        """Fit the components of maps (K, H, W)."""
        filters = torch.cat([m.flatten(1) for m in maps], dim=1)
        mean = filters.mean(1)
        variances, vectors = torch.linalg.eigh(torch.cov(filters))
        directions = vectors[:, -3:].flip(1).T
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        directions = directions * largest.sign()  # an eigenvector has no sign, so the largest tap is made positive
        values = (directions @ (filters - mean[:, None])).sort(dim=1).values
        last = values.shape[1] - 1
        low, high = values[:, round(0.01 * last)], values[:, round(0.99 * last)]
        return Components(mean, directions, (variances[-3:].sum() / variances.sum()).item(), low, high)

    def colours(self, spatial: Tensor) -> Tensor:
        """Convert filters (K, H, W) to colours (H, W, 3), 0 to 1."""
        values = torch.einsum("dk,khw->hwd", self.directions, spatial - self.mean[:, None, None])
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1)

    def departure(self, spatial: Tensor) -> Tensor:
        """Return the distance of each filter of (K, H, W) from the mean filter, relative to its norm, (H, W)."""
        return (spatial - self.mean[:, None, None]).norm(dim=0) / self.mean.norm()


def typical_points(spatial: Tensor, count: int) -> list[tuple[int, int]]:
    """Return pixels (y, x) with typical filters: those nearest to the centres of ``count`` clusters.

    Pixels near the edge are left out, because the padding of earlier layers changes their filters.
    """
    from sklearn.cluster import KMeans

    margin = max(1, min(spatial.shape[1:]) // 16)
    calm = F.avg_pool2d(spatial[None], 5, 1, 2, count_include_pad=False)[0]  # a point represents its surroundings
    inner = calm[:, margin:-margin, margin:-margin]
    filters = inner.flatten(1).T
    groups = KMeans(count, n_init=2, random_state=0).fit(filters[:: max(1, len(filters) // 4000)].numpy())
    centres = torch.from_numpy(groups.cluster_centers_).to(filters.dtype)
    nearest = torch.cdist(centres, filters).argmin(1).tolist()
    width = inner.shape[2]
    return sorted((index // width + margin, index % width + margin) for index in nearest)
