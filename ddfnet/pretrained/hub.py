"""Networks in folders, and in repositories of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import tempfile
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from ddfnet.files import atomic_write
from ddfnet.pretrained.extras import import_extra
from ddfnet.pretrained.fitting import Budget, Weights, load_state_dict_checked
from ddfnet.pretrained.reader import first_line, read
from ddfnet.pretrained.registry import Header, check_header, kind_of
from ddfnet.pretrained.saving import load, save

_Hub = TypeVar("_Hub", bound="PretrainedMixin")

_CONFIG, _WEIGHTS, _README = "config.json", "model.safetensors", "README.md"
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")


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
        import_extra("safetensors", "save_pretrained needs safetensors: pip install 'ddfnet[models]'")
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
        """Load the network of a folder, of a file, or of a repository of the Hugging Face Hub.

        Args:
            source: a folder that `save_pretrained` wrote; a file, see `load`; or a hub id, ``"USER/NAME"``.
            options: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
                huggingface_hub; others replace the arguments that the network was made with. A file takes none.

        Returns:
            The network, on the CPU and in evaluation mode, with the weights that were saved, to the bit.

        Raises:
            ValueError: no such folder, file or id; no ``config.json``; weights of other shapes; otherwise as `load`.
            ModuleNotFoundError: safetensors is not installed, or huggingface_hub for a hub id; the extra ``models`` has
                both.
        """
        if Path(source).is_file():
            return cls._from_file(Path(source), options)
        if not Path(source).is_dir() and not (isinstance(source, str) and _HUB_ID.fullmatch(source)):
            raise ValueError(f"{source}: no such folder, and no hub id, which is USER/NAME")
        try:
            hub_options = {name: options.pop(name) for name in _HUB_OPTIONS if name in options}
            config_file = _fetch(source, _CONFIG, hub_options)
            config = json.loads(config_file.read_text()) if config_file.is_file() else None
            if not isinstance(config, dict):
                raise ValueError(f"there must be a {_CONFIG} with a dictionary")
            weights = read(_fetch(source, _WEIGHTS, hub_options)).weights
            network: Any = cls.from_hub_config(config, options, weights)
            rename = kind_of(network.pretrained_header()).rename
            load_state_dict_checked(network, weights if rename is None else rename(weights))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # broken folders raise errors of many types
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ValueError(
                f"{source}: a folder or hub id that {cls.__name__}.save_pretrained wrote is required ({reason})"
            ) from None
        return network.eval()

    @classmethod
    def _from_file(cls: type[_Hub], file: Path, options: dict[str, Any]) -> _Hub:
        if options:
            raise ValueError(f"{file}: options are for folders and hub ids, got {', '.join(options)}")
        network = load(file, cls.kind)
        if not isinstance(network, cls):
            raise ValueError(f"{file}: its network must be a {cls.__name__}, got {type(network).__name__}")
        return network

    def pretrained_header(self) -> Header:
        """Return the header of the network's files."""
        return Header(self.kind, self.init_args)

    def hub_config(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        config: dict[str, Any] = self.init_args
        return config

    @classmethod
    def from_hub_config(cls: type[_Hub], config: dict[str, Any], options: dict[str, Any], weights: Weights) -> _Hub:
        """Build the network of a ``config.json``, with these options in place of its own.

        Raises:
            ValueError: an option of the file is not such as a file may have, or not of a network of these weights.
        """
        check_header(Header(cls.kind, config))
        with Budget(weights):
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
    return import_extra(
        "huggingface_hub", "repositories of the Hugging Face Hub need huggingface_hub: pip install 'ddfnet[models]'"
    )
