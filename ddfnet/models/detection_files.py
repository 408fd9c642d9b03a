"""The files that a trained `Detector` lives in: safetensors with a model card beside them, and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ddfnet import files
from ddfnet.models.detection import Detector

_MEND = "a file that `ddfnet train detection` wrote is required, *.safetensors or *.ckpt"


def save(network: Detector, file: Path, card: dict[str, Any]) -> None:
    """Write the weights, with the network's options in the header, and the card beside them, with suffix .json.

    Args:
        network: whose state dict is written.
        file: *.safetensors; written whole or not at all, as is the card.
        card: what JSON can hold.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save as serialise

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    files.write(file, serialise(weights, metadata={"network": json.dumps(network.options)}))
    files.write(file.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


def load(file: Path) -> Detector:
    """The network of a safetensors file or of a checkpoint, the latter with its averaged weights, in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another model.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        options, weights = _safetensors(file) if file.suffix == ".safetensors" else _checkpoint(file)
    except Exception as error:  # what reading a broken checkpoint can raise has no end
        raise ValueError(f"{file}: {_MEND} ({_reason(error)})") from None
    if not isinstance(options, dict) or "classes" not in options:
        raise ValueError(f"{file}: {_MEND}; this is another network's")
    try:
        network = Detector(**options)
        network.load_state_dict(weights)
    except Exception as error:
        raise ValueError(f"{file}: {_MEND} ({_reason(error)})") from None
    return network.eval()


def card(file: Path) -> dict[str, Any] | None:
    """The model card that lies beside a file, if one does."""
    beside = file.with_suffix(".json")
    return json.loads(beside.read_text()) if beside.is_file() else None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        options = json.loads((opened.metadata() or {})["network"])
        return options, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    prefix = "network."
    state = checkpoint["state_dict"].items()
    return checkpoint["network"], {name.removeprefix(prefix): value for name, value in state if name.startswith(prefix)}
