"""The files that a trained classifier lives in, see `ddfnet.models.network_files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ddfnet.loading import load_weights
from ddfnet.models import network_files
from ddfnet.models.network_files import Weights


def create(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """A network by timm's name for it.

    Args:
        name: that timm knows, the package's own among them.
        num_classes: results.
        options: of ``timm.create_model``.

    Raises:
        ValueError: timm does not know it, or it does not know an option.
    """
    import timm

    import ddfnet.models.small  # noqa: F401  (registers it, and the ddf_*)

    if not timm.is_model(name):
        ours = timm.list_models("ddf_*") + timm.list_models("small_resnet*")
        raise ValueError(f"network must be a name that timm knows, such as {', '.join(ours)}, got {name!r}")
    try:
        network: nn.Module = timm.create_model(name, num_classes=num_classes, **options)
    except TypeError as error:  # an argument that a class does not take
        raise ValueError(f"network {name} with {options}: {error}") from None
    return network


def save(
    network: nn.Module,
    made_of: dict[str, Any] | None,
    preprocessing: dict[str, Any],
    file: Path,
    card: dict[str, Any],
    weights: Weights | None = None,
) -> None:
    """Write the weights, with how the network is made and what it is to be shown in the header, and the card beside.

    Args:
        network: whose state dict is written.
        made_of: arguments of `create`; None for a module of the user's, which `load` cannot make again.
        preprocessing: of pictures, as `ddfnet.tasks.classification.data.ClassificationData` has it.
        file: see `network_files.save`.
        card: likewise.
        weights: likewise.
    """
    network_files.save(network, file, card, {"network": made_of, "preprocessing": preprocessing}, weights)


def preprocessing(shown: dict[str, Any]) -> dict[str, Any]:
    """What a network is to be shown by its configuration of timm's, its ``pretrained_cfg``, in the terms of `save`."""
    return {
        "size": shown["input_size"][-1],
        "measured_crop": shown["crop_pct"],
        "measured_interpolation": shown["interpolation"],
        "mean": list(shown["mean"]),
        "std": list(shown["std"]),
    }


def load(file: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The network of a file, in evaluation mode, how it is made, and the preprocessing.

    Raises:
        ValueError: the file is missing, broken or of another task, or its network has no name that timm knows.
    """
    with network_files.opened(file, "classification", "network", "preprocessing") as (header, weights):
        made_of, preprocessing = header
        if made_of is None:
            raise ValueError("its network must be one that timm knows by its name, got a module")
        network = create(**made_of)
        load_weights(network, weights)
    return network.eval(), made_of, preprocessing
