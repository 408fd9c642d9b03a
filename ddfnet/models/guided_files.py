"""The files that a trained `GuidedUpsampler` lives in: safetensors with a model card beside them, and checkpoints."""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ddfnet import files
from ddfnet.models.guided import GuidedUpsampler

_MEND = "a file that `ddfnet train guided` wrote is required, *.safetensors or *.ckpt"


def save(network: GuidedUpsampler, file: Path, card: dict[str, Any]) -> None:
    """Write the weights, with the network's options in the header, and the card beside them, with suffix .json.

    Args:
        network: whose state dict is written.
        file: *.safetensors; written whole or not at all, as is the card.
        card: what JSON can hold.
    """
    from safetensors.torch import save as serialise  # its save_file lets nobody else read the file

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    files.write(file, serialise(weights, metadata={"network": json.dumps(network.options)}))
    files.write(file.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


def load(file: Path) -> GuidedUpsampler:
    """The network of a safetensors file or of a checkpoint, the latter with its averaged weights, in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another model.
        ModuleNotFoundError: no safetensors, which the extra ``upsample`` has.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        options, weights = _safetensors(file) if file.suffix == ".safetensors" else _checkpoint(file)
        network = GuidedUpsampler(**options)
        network.load_state_dict(weights)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # what reading a broken checkpoint can raise has no end
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{file}: {_MEND} ({type(error).__name__}: {reason})") from None
    return network.eval()


@functools.cache
def shipped() -> GuidedUpsampler:
    """The network whose weights come with the package: for 2x, 4x, 8x and 16x."""
    with resources.as_file(resources.files("ddfnet.models") / "weights" / "guided.safetensors") as file:
        return load(file)


def card(file: Path) -> dict[str, Any] | None:
    """The model card that lies beside a file, if one does."""
    beside = file.with_suffix(".json")
    return json.loads(beside.read_text()) if beside.is_file() else None


def _safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading weights needs safetensors: pip install 'ddfnet[upsample]'", name=error.name
        ) from error
    try:
        with safe_open(file, "pt") as opened:
            options = json.loads((opened.metadata() or {})["network"])
            return options, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    prefix = "network."
    state = checkpoint["state_dict"].items()
    return checkpoint["network"], {name.removeprefix(prefix): value for name, value in state if name.startswith(prefix)}
