"""Networks in files: one safetensors file with a header, and the model card beside it."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from torch import nn

from ddfnet.files import atomic_write
from ddfnet.pretrained.fitting import Weights, load_state_dict_checked
from ddfnet.pretrained.options import shown
from ddfnet.pretrained.reader import Content, read, reading_weights
from ddfnet.pretrained.registry import _KINDS, Header, build, check_header, header_of, kind_of

_Network = TypeVar("_Network", bound=nn.Module)


def save(
    network: nn.Module,
    file: str | PathLike[str],
    *,
    header: Header | None = None,
    card: dict[str, Any] | None = None,
    weights: Weights | None = None,
) -> None:
    """Write a network to a safetensors file, and its model card beside it, with suffix .json.

    Args:
        network: the network, whose state dict is written.
        file: ``*.safetensors``; written atomically, as is the card.
        header: how the network is built again; None is `header_of` the network.
        card: facts that JSON can hold; None writes no card.
        weights: the state dict, where the network itself holds only this process's share of it.

    Raises:
        ValueError: the network's class is not registered, and there is no header; or it was made with an option that a
            file may not have, so that it could not be loaded; or the header is not such as JSON can hold.
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> from ddfnet.depth import GuidedUpsampler
        >>> from ddfnet.pretrained import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(GuidedUpsampler(4, channels=8), f"{folder}/mine.safetensors")
        ...     load(f"{folder}/mine.safetensors").scale_factor
        4
    """
    from safetensors.torch import save as serialise  # its save_file makes files that only their owner can read

    header = header_of(network) if header is None else header
    if header.init_args is not None and header.kind in _KINDS:
        check_header(header)
    state = network.state_dict() if weights is None else weights
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    try:
        metadata = {name: json.dumps(value) for name, value in header.as_dict().items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header must be such as JSON can hold, numbers and text for example: {error}") from None
    atomic_write(Path(file), serialise(tensors, metadata=metadata))
    if card is not None:
        atomic_write(Path(file).with_suffix(".json"), json.dumps(card, indent=2) + "\n")


@overload
def load(file: str | PathLike[str], kind: type[_Network]) -> _Network: ...
@overload
def load(file: str | PathLike[str], kind: str | None = None) -> nn.Module: ...
def load(file: str | PathLike[str], kind: Any = None) -> Any:
    """Load the network of a file: of `save`, of a checkpoint of ``ddfnet train`` or of timm's ``train.py``.

    Averaged weights are taken where a checkpoint has them.

    Args:
        file: ``*.safetensors``, or a checkpoint, see `ddfnet.pretrained.reader.read`. Code in it is not run.
        kind: the registered class that the network must have, or the name of its kind; None takes any.

    Returns:
        The network, on the CPU and in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another kind; its options are not such as a file may have, or not
            those of its weights; a weight is nan or inf.
        ModuleNotFoundError: safetensors is not installed; the extra ``upsample`` has it.
    """
    return load_with_header(file, kind).network


class Loaded(NamedTuple):
    """Network of a file, its header, and a remark for the user, such as which of several weights were taken."""

    network: Any
    header: Header
    note: str | None


def load_with_header(file: str | PathLike[str], kind: Any = None) -> Loaded:
    """Load the network of a file, as `load` does, and return its header too."""
    name = _name_of(kind)
    with reading_weights(Path(file), _left_by(name)):
        content = read(Path(file))
        header = _header(content, name)
        return Loaded(network_of(header, content.weights), header, content.note)


def network_of(header: Header, weights: Weights) -> nn.Module:
    """Build the network of a header with these weights, in evaluation mode.

    Raises:
        ValueError: as `ddfnet.pretrained.registry.build` and `load_state_dict_checked`.
    """
    network = build(header, weights)
    rename = kind_of(header).rename
    load_state_dict_checked(network, weights if rename is None else rename(weights))
    return network.eval()


def read_header(file: str | PathLike[str], kind: str | None = None) -> Header:
    """Return the header of a file or checkpoint.

    Args:
        file: see `load`.
        kind: the kind that the network must have; None takes any.

    Raises:
        ValueError, ModuleNotFoundError: as `load`.
    """
    with reading_weights(Path(file), _left_by(kind)):
        return _header(read(Path(file)), kind)


def read_card(file: str | PathLike[str]) -> dict[str, Any] | None:
    """Return the model card beside a file, or None where there is none.

    Raises:
        ValueError: the card cannot be read, or is no dictionary.
    """
    card = Path(file).with_suffix(".json")
    try:
        content = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: its card {card} cannot be read: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{file}: its card {card} must hold a dictionary, got {type(content).__name__}")
    return content


def _name_of(kind: Any) -> str | None:
    return kind if kind is None or isinstance(kind, str) else kind.kind


def _left_by(kind: str | None) -> str:
    return "a network that `ddfnet train` left" if kind is None else f"a file that `ddfnet train {kind}` wrote"


def _header(content: Content, kind: str | None) -> Header:
    """Return the header of a file's content, which must be of a kind."""
    if content.header is None:
        raise ValueError(
            "its header has no kind, nothing in it says which network it is of; `ddfnet convert FILE OUT --network "
            "NAME` makes a file that says it"
        )
    if kind is not None and content.header.kind != kind:
        raise ValueError(f"its kind is {shown(content.header.kind)}")
    return content.header
