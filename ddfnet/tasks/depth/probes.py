"""Probes of a network: inputs that it must depend on, and channels that compute nothing."""

from __future__ import annotations

import copy
from types import TracebackType

import torch
from torch import Tensor, nn

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.tasks.depth import baselines
from ddfnet.tasks.depth.baselines import Method

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU)
_ALIVE = 1e-3  # least share of positive activations, and least deviation as a share of the layer's


def with_moved_guide(network: GuidedUpsampler) -> Method:
    """Return the network as a method with its guide in the wrong place: rolled by half its size, along both axes.

    It must do clearly worse than with the guide in place.
    """
    method = baselines.ddfnet(network)

    def moved(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        height, width = guide.shape[1:]
        return method(low, low_valid, guide.roll((height // 2, width // 2), (1, 2)), factor=factor, offset=offset)

    return moved


def without_features(network: GuidedUpsampler) -> Method:
    """Return the network as a method with zeros for the features that each stage hands to the next.

    A stage then has its guide and the depth alone, and must do clearly worse. At 2x there is one stage, and no
    difference.
    """
    cut = copy.deepcopy(network)
    for stage in cut.stages:
        if stage.mix is not None:
            stage.mix = _Zero()
    return baselines.ddfnet(cut)


class _Zero(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features)


class DeadUnits:
    """Context manager that counts the dead channels of a network.

    A path that computes nothing does not show in the loss of a network that has another.

    A channel is dead where fewer than one in a thousand of its activations is positive, or where they vary by less than
    a thousandth of the layer's root mean square: it then is the same as a bias.

    Args:
        network: network whose activation modules (N, C, H, W) -> (N, C, H, W) are watched, but for maps of one pixel,
            which say too little. A layer that runs several times counts once, with its last run.

    Example:
        >>> import torch
        >>> from ddfnet.tasks.depth.probes import DeadUnits
        >>> layer = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.ReLU())
        >>> torch.nn.init.constant_(layer[0].bias, -100.0).shape
        torch.Size([4])
        >>> with DeadUnits(layer) as units:
        ...     _ = layer(torch.randn(1, 1, 8, 8))
        >>> units.share()
        1.0
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.dead: dict[str, tuple[int, int]] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> DeadUnits:
        for name, module in self.network.named_modules():
            if isinstance(module, _ACTIVATIONS):
                self._hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            if output.dim() == 4 and output[0, 0].numel() > 1:
                values = output.detach().float().transpose(0, 1).flatten(1)
                silent = (values > 0).float().mean(1) < _ALIVE
                constant = values.std(1) <= _ALIVE * values.square().mean().sqrt()
                self.dead[name] = int((silent | constant).sum()), len(values)

        return hook

    def share(self) -> float:
        """Return the dead share of all channels that were watched, from 0 to 1."""
        return sum(dead for dead, _ in self.dead.values()) / max(1, sum(all_ for _, all_ in self.dead.values()))

    def layers(self) -> dict[str, float]:
        """Return the dead share of each layer."""
        return {name: dead / channels for name, (dead, channels) in self.dead.items()}
