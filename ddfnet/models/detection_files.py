"""The files that a trained `Detector` lives in, see `ddfnet.models.network_files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddfnet.loading import load_weights
from ddfnet.models import network_files
from ddfnet.models.faster_rcnn import Detector
from ddfnet.models.network_files import Weights


def save(network: Detector, file: Path, card: dict[str, Any], weights: Weights | None = None) -> None:
    """Write the weights, with the network's options in the header, and the card beside, see `network_files.save`."""
    network_files.save(network, file, card, {"network": network.options}, weights)


def load(file: Path) -> Detector:
    """The network of a file, in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another model.
    """
    with network_files.opened(file, "detection", "network") as ([options], weights):
        network = Detector(**options)
        load_weights(network, weights)
    return network.eval()
