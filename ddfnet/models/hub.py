"""Networks in folders and on the Hugging Face Hub: what gives a network its three methods for that.

Nothing of huggingface_hub is imported before one of them is called: `ddfnet.depth.network` needs torch alone.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ddfnet.models.hub_parcel import Parcel

_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_Network = TypeVar("_Network", bound="Hub")


class Hub:
    """Base of networks with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, which huggingface_hub does.

    A folder has ``config.json``, of which the network is made again; ``model.safetensors``, which the package's other
    readers take too; and ``README.md``, the model card.
    """

    options: dict[str, Any]
    """What the network was made with, as JSON can hold it."""

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> str | None:
        """Write the network to a folder.

        Args:
            save_directory: the folder, made where there is none; its other files stay, a ``README.md`` too.
            options: of ``huggingface_hub.PyTorchModelHubMixin.save_pretrained``; with ``push_to_hub=True`` it goes to
                the hub as well.

        Returns:
            None, or the address of the commit.

        Raises:
            ValueError: the network was made with something that JSON cannot hold; nothing is written.
            OSError: the folder cannot be written to.
            ModuleNotFoundError: no huggingface_hub, which the extra ``models`` has.
        """
        return _parcel().pack(self).save_pretrained(Path(save_directory), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Write the network to a repository of the Hugging Face Hub, which is made where there is none.

        Args:
            repo_id: ``"USER/NAME"``.
            options: of ``huggingface_hub.PyTorchModelHubMixin.push_to_hub``, such as ``private`` and ``token``.

        Returns:
            The address of the commit.

        Raises:
            ValueError, ModuleNotFoundError: as `save_pretrained`; besides what huggingface_hub raises.
        """
        return str(_parcel().pack(self).push_to_hub(repo_id, **options))

    @classmethod
    def from_pretrained(cls: type[_Network], source: str | PathLike[str], **options: Any) -> _Network:
        """The network of a folder, or of a repository of the Hugging Face Hub, on the CPU and in evaluation mode.

        Args:
            source: a folder that `save_pretrained` wrote, which needs no network; or a hub id, ``"USER/NAME"``.
            options: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
                huggingface_hub; others take the place of those that the network was made with.

        Returns:
            The network, with the weights that were saved, to the bit.

        Raises:
            ValueError: no such folder or id; no ``config.json``; weights of other shapes.
            ModuleNotFoundError: no huggingface_hub, which the extra ``models`` has.
        """
        if not Path(source).is_dir() and not (isinstance(source, str) and _ID.fullmatch(source)):
            raise ValueError(f"{source}: no such folder, and no hub id, which is USER/NAME")
        try:
            of_hub = _of_hub(options)
            network: _Network = _parcel().from_pretrained(str(source), kind=cls, options=options, **of_hub).network
        except ModuleNotFoundError:
            raise
        except Exception as error:  # what reading a broken file, or a network, can raise has no end
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{source}: a folder or hub id with what {cls.__name__}.save_pretrained wrote is required ({reason})"
            ) from None
        return network

    def hub_config(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return self.options

    def hub_header(self) -> dict[str, Any]:
        """What the header of ``model.safetensors`` holds, see `ddfnet.models.network_files`."""
        return {"network": self.options}

    @classmethod
    def of_hub_config(cls: type[_Network], config: dict[str, Any], options: dict[str, Any]) -> _Network:
        """The network of a ``config.json``, with these options in the place of its own."""
        return cls(**{**config, **options})


def _parcel() -> type[Parcel]:
    try:
        from ddfnet.models.hub_parcel import Parcel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "save_pretrained, from_pretrained and push_to_hub need huggingface_hub and safetensors: "
            "pip install 'ddfnet[models]'",
            name=error.name,
        ) from error
    return Parcel


def _of_hub(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of the options those that are huggingface_hub's."""
    names = ("revision", "token", "cache_dir", "force_download", "local_files_only")
    return {name: options.pop(name) for name in names if name in options}
