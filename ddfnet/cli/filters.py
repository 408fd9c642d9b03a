"""What the DDF layers of a network do to a photograph: the filters that they predict from it, made visible.

The spatial filters of a layer have as many numbers a pixel as taps, nine for 3x3. Their principal components, fitted to
all photographs at once, give three of them that tell most: those are the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn import DDF2d


@dataclass(frozen=True)
class Filters:
    """What one layer predicted for one photograph."""

    layer: str
    spatial: Tensor  # (K, H, W), before the channel filter meets it
    channel: Tensor  # (C, kH, kW)


def record(network: nn.Module, picture: Tensor) -> list[Filters]:
    """Run a network on a picture and keep the filters of its DDF layers.

    Args:
        network: with `DDF2d` layers of one head, in evaluation mode.
        picture: (C, H, W), normalised, of any size that the network can take.

    Returns:
        Filters in the order in which the layers ran.
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
            network(picture.unsqueeze(0))
    finally:
        for hook in hooks:
            hook.remove()
    return [Filters(layer, own["spatial"], own["channel"]) for layer, own in kept.items()]


@dataclass(frozen=True)
class Components:
    """The mean filter of several maps, and the three directions in which their filters differ most."""

    mean: Tensor  # (K,)
    directions: Tensor  # (3, K), unit length
    share: float  # of the variance that the three hold
    low: Tensor  # (3,), where a colour begins
    high: Tensor  # (3,), where it is full

    @staticmethod
    def fit(maps: Sequence[Tensor]) -> Components:
        """The components of maps (K, H, W)."""
        filters = torch.cat([m.flatten(1) for m in maps], dim=1)
        mean = filters.mean(1)
        variances, vectors = torch.linalg.eigh(torch.cov(filters))
        directions = vectors[:, -3:].flip(1).T
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        directions = directions * largest.sign()  # an eigenvector has no sign: the largest tap counts as positive
        values = (directions @ (filters - mean[:, None])).sort(dim=1).values
        last = values.shape[1] - 1
        low, high = values[:, round(0.01 * last)], values[:, round(0.99 * last)]
        return Components(mean, directions, (variances[-3:].sum() / variances.sum()).item(), low, high)

    def colours(self, spatial: Tensor) -> Tensor:
        """(K, H, W) -> (H, W, 3), from 0 to 1."""
        values = torch.einsum("dk,khw->hwd", self.directions, spatial - self.mean[:, None, None])
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1)

    def departure(self, spatial: Tensor) -> Tensor:
        """(K, H, W) -> (H, W): the distance of each pixel's filter from the mean, as a share of that one's length."""
        return (spatial - self.mean[:, None, None]).norm(dim=0) / self.mean.norm()


def typical_points(spatial: Tensor, count: int) -> list[tuple[int, int]]:
    """Pixels (y, x) whose filters stand for many others: the ones nearest to the centres of ``count`` groups.

    Pixels near the edge are left out, for there the padding of earlier layers can be seen.
    """
    from sklearn.cluster import KMeans

    margin = max(1, min(spatial.shape[1:]) // 16)
    calm = F.avg_pool2d(spatial[None], 5, 1, 2, count_include_pad=False)[0]  # a point stands for its surroundings
    inner = calm[:, margin:-margin, margin:-margin]
    filters = inner.flatten(1).T
    groups = KMeans(count, n_init=2, random_state=0).fit(filters[:: max(1, len(filters) // 4000)].numpy())
    centres = torch.from_numpy(groups.cluster_centers_).to(filters.dtype)
    nearest = torch.cdist(centres, filters).argmin(1).tolist()
    width = inner.shape[2]
    return sorted((index // width + margin, index % width + margin) for index in nearest)
