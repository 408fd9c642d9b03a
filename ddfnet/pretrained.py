"""Networks in files, in folders and on the Hugging Face Hub.

A file of a network says what it is: its header has the ``kind`` and the ``init_args`` that build the network again. Any
class joins by one decorator::

    @register_kind("segmentation")
    class Segmenter(nn.Module, PretrainedMixin): ...

after which `save`, `load`, ``ddfnet convert`` and ``ddfnet export`` know it, and it has ``save_pretrained``,
``from_pretrained`` and ``push_to_hub``.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

import torch
from torch import Tensor, nn

from ddfnet.files import atomic_write
from ddfnet.kinds import KIND_MODULES

Weights = Mapping[str, Tensor]  # a state dict

_Factory = TypeVar("_Factory", bound=Callable[..., nn.Module])
_Network = TypeVar("_Network", bound=nn.Module)
_Hub = TypeVar("_Hub", bound="PretrainedMixin")

_CONFIG, _WEIGHTS, _README = "config.json", "model.safetensors", "README.md"
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
_PREFIX = "network."  # before the names of the network's weights in a checkpoint, which has those of metrics too
_SHOWN = 3  # misfits that an error names

_KINDS: dict[str, Callable[..., nn.Module]] = {}


class Header(NamedTuple):
    """Header of a file, from which its network is built again.

    Attributes:
        kind: name that the network's class is registered under.
        init_args: arguments of the class, as JSON can hold them; None for a module that cannot be built again.
        extra: further facts, such as the preprocessing of the images.
    """

    kind: str
    init_args: dict[str, Any] | None
    extra: dict[str, Any] = {}  # noqa: RUF012  (never written to)

    def as_dict(self) -> dict[str, Any]:
        """Return the header as one dictionary, as files and checkpoints have it."""
        return {"kind": self.kind, "init_args": self.init_args, **self.extra}


# --- kinds ----------------------------------------------------------------------------------------------------------


def register_kind(name: str) -> Callable[[_Factory], _Factory]:
    """Register a class of networks, or a function that builds them, under the kind that their files name.

    Networks get the attributes ``kind`` and ``init_args``: the arguments that they were made with, defaults included
    and tuples as lists. An argument called ``pretrained`` is recorded as False, since a file brings its own weights.

    Args:
        name: name of the kind.

    Raises:
        ValueError: the kind belongs to another class.
        TypeError: the class takes ``*args``, which have no names.

    Example:
        >>> from torch import nn
        >>> from ddfnet.pretrained import register_kind
        >>> @register_kind("example")
        ... class Example(nn.Module):
        ...     def __init__(self, width=8):
        ...         super().__init__()
        >>> Example(16).kind, Example(16).init_args
        ('example', {'width': 16})

    Source: the recorded arguments are ``save_hyperparameters`` of Lightning, or the mixin of huggingface_hub.
    """

    def register(factory: _Factory) -> _Factory:
        known = _KINDS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (factory.__module__, factory.__qualname__):
            raise ValueError(f"kind {name!r} is taken by {known.__module__}.{known.__qualname__}; choose another name")
        made: Any = factory
        if isinstance(factory, type):
            made.kind = name
            made.__init__ = _recording_init(made.__init__)
        else:
            made = _recording_call(factory, name)
        _KINDS[name] = made
        registered: _Factory = made
        return registered

    return register


def build(header: Header) -> nn.Module:
    """Build the network of a header, without its weights.

    Raises:
        ValueError: no class is registered for the kind, or the network cannot be built again.
    """
    if header.kind not in _KINDS and header.kind in KIND_MODULES:
        _import(KIND_MODULES[header.kind], f"networks of kind {header.kind!r} need more: pip install 'ddfnet[models]'")
    if header.kind not in _KINDS:
        known = ", ".join(map(repr, sorted({*_KINDS, *KIND_MODULES})))
        raise ValueError(
            f"its kind must be one of {known}, got {header.kind!r}; import the module that registers it with "
            "ddfnet.pretrained.register_kind"
        )
    if header.init_args is None:
        raise ValueError("its header has no init_args: the network was given as a module, not by its name")
    if not isinstance(header.init_args, Mapping):
        raise ValueError(f"its init_args must be a dictionary, got {type(header.init_args).__name__}")
    return _KINDS[header.kind](**header.init_args)


def header_of(network: nn.Module) -> Header:
    """Return the header of a network whose class is registered.

    Raises:
        ValueError: the class is not registered.
    """
    if isinstance(network, PretrainedMixin):
        return network.pretrained_header()
    kind = getattr(network, "kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"the network's class must be registered with ddfnet.pretrained.register_kind, got {type(network).__name__}"
        )
    return Header(str(kind), getattr(network, "init_args"))  # noqa: B009  (nn.Module types it as a tensor)


def _recording_init(init: Callable[..., None]) -> Callable[..., None]:
    arguments = _Arguments(init, skip=1)

    @functools.wraps(init)
    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.init_args = arguments.bind(self, *args, **kwargs)  # last, so that a subclass's own arguments win

    return recording


def _recording_call(function: Callable[..., nn.Module], kind: str) -> Callable[..., nn.Module]:
    arguments = _Arguments(function, skip=0)

    @functools.wraps(function)
    def recording(*args: Any, **kwargs: Any) -> nn.Module:
        network: Any = function(*args, **kwargs)
        if not hasattr(type(network), "init_args"):  # a class may know its own better
            network.kind, network.init_args = kind, arguments.bind(*args, **kwargs)
        return network

    return recording


class _Arguments:
    """Arguments of calls by name, as JSON holds them."""

    def __init__(self, function: Callable[..., Any], skip: int) -> None:
        self.signature, self.skip = inspect.signature(function), skip
        kinds = {each.name: each.kind for each in self.signature.parameters.values()}
        self.open = next((name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)
        if inspect.Parameter.VAR_POSITIONAL in kinds.values():
            raise TypeError(f"{function.__qualname__} must take arguments by name, got *args")

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = dict(list(bound.arguments.items())[self.skip :])
        if self.open is not None:
            named |= named.pop(self.open)
        if "pretrained" in named:
            named["pretrained"] = False
        recorded: dict[str, Any] = _plain(named)
        return recorded


def _plain(value: Any) -> Any:
    """Return a copy with lists for tuples, which is how JSON gives them back."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


# --- files ----------------------------------------------------------------------------------------------------------


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
        ValueError: the network's class is not registered, and there is no header.
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
    state = network.state_dict() if weights is None else weights
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {name: json.dumps(value) for name, value in header.as_dict().items()}
    atomic_write(Path(file), serialise(tensors, metadata=metadata))
    if card is not None:
        atomic_write(Path(file).with_suffix(".json"), json.dumps(card, indent=2) + "\n")


@overload
def load(file: str | PathLike[str], kind: type[_Network]) -> _Network: ...
@overload
def load(file: str | PathLike[str], kind: str | None = None) -> nn.Module: ...
def load(file: str | PathLike[str], kind: Any = None) -> Any:
    """Load the network of a file: of `save`, or of a checkpoint of ``ddfnet train``, with its averaged weights if any.

    Args:
        file: ``*.safetensors`` or ``*.ckpt``. Code in a checkpoint is not run.
        kind: the registered class that the network must have, or the name of its kind; None takes any.

    Returns:
        The network, on the CPU and in evaluation mode.

    Raises:
        ValueError: the file is missing, broken or of another kind.
        ModuleNotFoundError: safetensors is not installed; the extra ``upsample`` has it.
    """
    name = kind if kind is None or isinstance(kind, str) else kind.kind
    with reading(Path(file), _left_by(name)):
        header, weights = _read(Path(file))
        _check_kind(header, name)
        network = build(header)
        load_state_dict_checked(network, weights)
        return network.eval()


def read_header(file: str | PathLike[str], kind: str | None = None) -> Header:
    """Return the header of a file or checkpoint.

    Args:
        file: see `load`.
        kind: the kind that the network must have; None takes any.

    Raises:
        ValueError, ModuleNotFoundError: as `load`.
    """
    with reading(Path(file), _left_by(kind)):
        header, _ = _read(Path(file))
        _check_kind(header, kind)
        return header


def read_card(file: str | PathLike[str]) -> dict[str, Any] | None:
    """Return the model card beside a file, or None where there is none.

    Raises:
        ValueError: the card cannot be read.
    """
    card = Path(file).with_suffix(".json")
    try:
        return json.loads(card.read_text()) if card.is_file() else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: its card {card} cannot be read: {error}") from None


def strip_prefix(state: Weights) -> dict[str, Tensor]:
    """Return the network's weights among those of its Lightning module, by their names in the network."""
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def load_state_dict_checked(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a state dict that fits the network exactly; with any other the network stays as it is.

    ``load_state_dict`` reports misfits in hundreds of lines, after it has loaded whatever fits.

    Args:
        network: network of any kind.
        weights: tensors by name, of any floating type: the network keeps its own.

    Raises:
        ValueError: the weights do not fit; one line says where.

    Example:
        >>> from torch import nn
        >>> from ddfnet.pretrained import load_state_dict_checked
        >>> load_state_dict_checked(nn.Linear(2, 3), nn.Linear(2, 4).state_dict())
        Traceback (most recent call last):
        ValueError: the weights do not fit this Linear: weight must be (3, 2), got (4, 2); bias must be (3,), got (4,)
    """
    misfits = list(_misfits(network.state_dict(), weights))
    if misfits:
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ValueError(f"the weights do not fit this {type(network).__name__}: {'; '.join(misfits[:_SHOWN])}{more}")
    network.load_state_dict(weights)


def _misfits(expected: Mapping[str, Any], weights: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weights of another shape, then the missing ones, then the unknown ones."""
    for name in expected:
        own, given = expected[name], weights.get(name)
        if name in weights and not isinstance(given, Tensor):
            yield f"{name} must be a tensor, got {type(given).__name__}"
        elif name in weights and given.shape != own.shape:  # type: ignore[union-attr]
            yield f"{name} must be {tuple(own.shape)}, got {tuple(given.shape)}"  # type: ignore[union-attr]
    yield from (f"{name} is missing" for name in expected if name not in weights)
    yield from (f"{name} is unknown" for name in weights if name not in expected)


@contextmanager
def reading(file: Path, wanted: str | None = None) -> Iterator[None]:
    """Turn any error of reading a file, or of building its network, into a ValueError of one line.

    Args:
        file: the file, which must exist.
        wanted: the file that is required; None where the error says it.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # broken files raise errors of many types
        text = str(error).strip().partition("\n")[0]
        if "eights only" in text:  # torch advises to run the code
            text = "it must hold weights alone, and code in it is not run"
        if wanted is None:
            raise ValueError(f"{file}: {text}") from None
        reason = f"{type(error).__name__}: {text}"
        raise ValueError(f"{file}: {wanted} is required, *.safetensors or *.ckpt ({reason})") from None


def _left_by(kind: str | None) -> str:
    return "a network that `ddfnet train` left" if kind is None else f"a file that `ddfnet train {kind}` wrote"


def _check_kind(header: Header, kind: str | None) -> None:
    if kind is not None and header.kind != kind:
        raise ValueError(f"its kind is {header.kind!r}")


def _read(file: Path) -> tuple[Header, dict[str, Tensor]]:
    if file.suffix == ".safetensors":
        metadata, weights = _read_safetensors(file)
        return _parse_header(metadata), weights
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    return _parse_header(checkpoint.get("header", checkpoint)), strip_prefix(checkpoint["state_dict"])


def _read_safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    safetensors = _import("safetensors", "reading weights needs safetensors: pip install 'ddfnet[upsample]'")
    with safetensors.safe_open(file, "pt") as stream:
        metadata = {name: _from_json(value) for name, value in (stream.metadata() or {}).items()}
        return metadata, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def _from_json(text: str) -> Any:
    """Parse a value of a file's header; other programs' values are plain text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parse_header(header: Mapping[str, Any]) -> Header:
    if "kind" not in header:
        return _infer_header(header)
    extra = {name: value for name, value in header.items() if name not in ("kind", "init_args", "format")}
    return Header(header["kind"], header.get("init_args"), extra)


def _infer_header(header: Mapping[str, Any]) -> Header:
    """Infer the header of a file written before 0.1.0, which has no kind. To be removed after that release.

    Such a file has the arguments under ``network``, and a classifier's the ``preprocessing`` beside them.
    """
    if "network" not in header:
        raise ValueError("its header has no kind")
    arguments = header["network"]
    extra = {name: header[name] for name in ("preprocessing", "provenance") if name in header}
    if "preprocessing" in extra and (arguments is None or "name" in arguments):
        return Header("classification", arguments, extra)
    if isinstance(arguments, Mapping):
        for kind, argument in (("detection", "classes"), ("depth", "scale_factor")):
            if argument in arguments:
                return Header(kind, dict(arguments), extra)
    raise ValueError("its header has no kind, and its network is of none that is known")


# --- folders and the hub --------------------------------------------------------------------------------------------


class PretrainedMixin:
    """Methods of registered networks that write and read folders and repositories of the Hugging Face Hub.

    A folder has ``config.json``, from which the network is built again; ``model.safetensors``, which `load` reads too;
    and ``README.md``, the model card. huggingface_hub is imported for repositories alone.
    """

    kind: ClassVar[str]
    init_args: Any  # a dictionary; a property in some classes

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Write the network to a folder.

        Args:
            save_directory: the folder, made if need be; its other files stay, and a ``README.md`` that is there.
            push_to_hub: whether to write it to the hub as well.
            repo_id: repository, see `push_to_hub`; None takes the name of the folder.
            options: further arguments of `push_to_hub`.

        Returns:
            None, or the address of the commit.

        Raises:
            ValueError: JSON cannot hold an argument that the network was made with; nothing is written.
            OSError: the folder cannot be written to.
            ModuleNotFoundError: safetensors is not installed; the extra ``models`` has it.
        """
        folder, header = Path(save_directory), self.pretrained_header()
        try:
            config = json.dumps(self.hub_config(), indent=2) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the network's arguments must be such as JSON can hold, numbers and text for example: {error}"
            ) from None
        _import("safetensors", "save_pretrained needs safetensors: pip install 'ddfnet[models]'")
        folder.mkdir(parents=True, exist_ok=True)
        network: Any = self
        save(network, folder / _WEIGHTS, header=header)
        atomic_write(folder / _CONFIG, config)
        if not (folder / _README).exists():
            cls = type(self)
            atomic_write(folder / _README, _MODEL_CARD.format(module=_public_module(cls), cls=cls.__name__))
        return self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None, **options: Any
    ) -> str:
        """Write the network to a repository of the Hugging Face Hub, which is made if need be.

        Args:
            repo_id: ``"USER/NAME"``.
            private: whether a new repository is private.
            token: the user's token; None takes the one that huggingface_hub has stored.
            options: further arguments of ``huggingface_hub.HfApi.upload_folder``, such as ``commit_message``,
                ``revision`` and ``create_pr``.

        Returns:
            The address of the commit.

        Raises:
            ValueError: as `save_pretrained`; besides the errors of huggingface_hub.
            ModuleNotFoundError: huggingface_hub is not installed; the extra ``models`` has it.
        """
        api = _huggingface_hub().HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=repo_id, repo_type="model", folder_path=Path(folder), **options))

    @classmethod
    def from_pretrained(cls: type[_Hub], source: str | PathLike[str], **options: Any) -> _Hub:
        """Load the network of a folder, or of a repository of the Hugging Face Hub.

        Args:
            source: a folder that `save_pretrained` wrote; or a hub id, ``"USER/NAME"``.
            options: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
                huggingface_hub; others replace the arguments that the network was made with.

        Returns:
            The network, on the CPU and in evaluation mode, with the weights that were saved, to the bit.

        Raises:
            ValueError: no such folder or id; no ``config.json``; weights of other shapes.
            ModuleNotFoundError: safetensors is not installed, or huggingface_hub for a hub id; the extra ``models`` has
                both.
        """
        if not Path(source).is_dir() and not (isinstance(source, str) and _HUB_ID.fullmatch(source)):
            raise ValueError(f"{source}: no such folder, and no hub id, which is USER/NAME")
        try:
            hub_options = {name: options.pop(name) for name in _HUB_OPTIONS if name in options}
            config_file = _fetch(source, _CONFIG, hub_options)
            config = json.loads(config_file.read_text()) if config_file.is_file() else None
            if not isinstance(config, dict):
                raise ValueError(f"there must be a {_CONFIG} with a dictionary")
            network: Any = cls.from_hub_config(config, options)
            _, weights = _read_safetensors(_fetch(source, _WEIGHTS, hub_options))
            load_state_dict_checked(network, weights)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # broken folders raise errors of many types
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{source}: a folder or hub id that {cls.__name__}.save_pretrained wrote is required ({reason})"
            ) from None
        return network.eval()

    def pretrained_header(self) -> Header:
        """Return the header of the network's files."""
        return Header(self.kind, self.init_args)

    def hub_config(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        config: dict[str, Any] = self.init_args
        return config

    @classmethod
    def from_hub_config(cls: type[_Hub], config: dict[str, Any], options: dict[str, Any]) -> _Hub:
        """Build the network of a ``config.json``, with these options in place of its own."""
        return cls(**{**config, **options})


_MODEL_CARD = """---
library_name: ddfnet
tags:
- ddfnet
---

# {cls}

A network of ddfnet, decoupled dynamic filters for PyTorch (Zhou et al., CVPR 2021).

```python
from {module} import {cls}

network = {cls}.from_pretrained("FOLDER or USER/NAME")
```

`config.json` has the arguments that it was made with, `model.safetensors` the weights.
"""


def _public_module(cls: type) -> str:
    """Return the shortest module path that has this class: ``ddfnet.models`` for ``ddfnet.models.resnet``."""
    parent = cls.__module__.rpartition(".")[0]
    return parent if parent and getattr(import_module(parent), cls.__name__, None) is cls else cls.__module__


def _fetch(source: str | PathLike[str], name: str, hub_options: dict[str, Any]) -> Path:
    if Path(source).is_dir():
        return Path(source) / name
    return Path(_huggingface_hub().hf_hub_download(str(source), name, **hub_options))


def _huggingface_hub() -> ModuleType:
    return _import(
        "huggingface_hub", "repositories of the Hugging Face Hub need huggingface_hub: pip install 'ddfnet[models]'"
    )


def _import(package: str, needed: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(needed, name=error.name) from error
