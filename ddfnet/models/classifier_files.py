"""The files that a trained classifier lives in: safetensors with a model card beside them, and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet import files

_MEND = "a file that `ddfnet train classification` wrote is required, *.safetensors or *.ckpt"


def save(
    network: nn.Module, made_of: dict[str, Any], preprocessing: dict[str, Any], file: Path, card: dict[str, Any]
) -> None:
    """Write the weights, with how the network is made and what it is to be shown in the header, and the card beside.

    Args:
        network: whose state dict is written.
        made_of: timm's ``name`` of it, its ``num_classes`` and its ``options``.
        preprocessing: of pictures, as `ddfnet.tasks.classification.ClassificationData` has it.
        file: *.safetensors; written whole or not at all, as is the card, with suffix .json.
        card: what JSON can hold.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    header = {"network": json.dumps(made_of), "preprocessing": json.dumps(preprocessing)}
    files.write(file, to_bytes(weights, header))
    files.write(file.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


def load(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """What `save` wrote, or what is in a checkpoint, whose weights are the averaged ones where it has them.

    Returns:
        How the network is made, the preprocessing, and its state dict.

    Raises:
        ValueError: the file is missing, broken or of another task.
        ModuleNotFoundError: no safetensors, which the extra ``upsample`` has.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        return _safetensors(file) if file.suffix == ".safetensors" else _checkpoint(file)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # what reading a broken file can raise has no end
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{file}: {_MEND} ({type(error).__name__}: {reason})") from None


def _safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        header = opened.metadata() or {}
        made_of, preprocessing = json.loads(header["network"]), json.loads(header["preprocessing"])
        return made_of, preprocessing, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    about, prefix = checkpoint["classifier"], "network."
    state = checkpoint["state_dict"].items()
    weights = {name.removeprefix(prefix): value for name, value in state if name.startswith(prefix)}
    return about["network"], about["preprocessing"], weights
