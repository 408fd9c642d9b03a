"""The files that a trained network lives in: safetensors with a model card beside them, and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet import files

Weights = Mapping[str, Tensor]  # by their names in the network

_PREFIX = "network."  # of the network's weights in a checkpoint, among which are the task's other ones


def save(
    network: nn.Module, file: Path, card: dict[str, Any] | None, header: dict[str, Any], weights: Weights | None = None
) -> None:
    """Write the weights, with what makes the network again in the header, and the card beside them, with suffix .json.

    Args:
        network: whose state dict is written.
        file: *.safetensors; written whole or not at all, as is the card.
        card: what JSON can hold; None writes no card.
        header: likewise.
        weights: the state dict, where the network itself holds this process's share of it alone.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save as serialise  # its save_file lets nobody else read the file

    state = network.state_dict() if weights is None else weights
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {name: json.dumps(value) for name, value in header.items()}
    files.atomic_write(file, serialise(tensors, metadata=metadata))
    if card is not None:
        files.atomic_write(file.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


@contextmanager
def opened(file: Path, task: str, *header: str) -> Iterator[tuple[list[Any], dict[str, Tensor]]]:
    """The named parts of the header, and the weights, of a safetensors file or of a checkpoint.

    The latter has its averaged weights, where it has any. In the block the network is made of them: what goes wrong
    there is wrong with the file too.

    Raises:
        ValueError: the file is missing, broken or not of this task.
        ModuleNotFoundError: no safetensors, which the extra ``upsample`` has.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        yield _safetensors(file, header) if file.suffix == ".safetensors" else _checkpoint(file, header)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # what reading a broken file can raise has no end
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        mend = f"a file that `ddfnet train {task}` wrote is required, *.safetensors or *.ckpt"
        raise ValueError(f"{file}: {mend} ({reason})") from None


def of_network(state: Weights) -> dict[str, Tensor]:
    """The network's weights among those of its task, by their names in the network."""
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def card(file: Path) -> dict[str, Any] | None:
    """The model card that lies beside a file, if one does.

    Raises:
        ValueError: it cannot be read.
    """
    beside = file.with_suffix(".json")
    try:
        return json.loads(beside.read_text()) if beside.is_file() else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: its card {beside} cannot be read: {error}") from None


def _safetensors(file: Path, header: tuple[str, ...]) -> tuple[list[Any], dict[str, Tensor]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading weights needs safetensors: pip install 'ddfnet[upsample]'", name=error.name
        ) from error
    try:
        with safe_open(file, "pt") as stream:
            metadata = stream.metadata() or {}
            weights = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return [json.loads(metadata[name]) for name in header], weights
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _checkpoint(file: Path, header: tuple[str, ...]) -> tuple[list[Any], dict[str, Tensor]]:
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    return [checkpoint[name] for name in header], of_network(checkpoint["state_dict"])
