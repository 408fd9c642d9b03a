"""The files that a trained `GuidedUpsampler` lives in, see `ddfnet.models.network_files`."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import Any

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.loading import load_weights
from ddfnet.models import network_files
from ddfnet.models.network_files import Weights


def save(network: GuidedUpsampler, file: Path, card: dict[str, Any], weights: Weights | None = None) -> None:
    """Write the weights, with the network's options in the header, and the card beside, see `network_files.save`."""
    network_files.save(network, file, card, {"network": network.options}, weights)


def load(file: Path) -> GuidedUpsampler:
    """The network of a file, in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another model.
        ModuleNotFoundError: no safetensors, which the extra ``upsample`` has.
    """
    with network_files.opened(file, "depth", "network") as ([options], weights):
        network = GuidedUpsampler(**options)
        load_weights(network, weights)
    return network.eval()


@functools.cache
def default_model() -> GuidedUpsampler:
    """The network whose weights come with the package: for 2x, 4x, 8x and 16x."""
    with resources.as_file(resources.files("ddfnet.depth") / "weights" / "guided.safetensors") as file:
        return load(file)
