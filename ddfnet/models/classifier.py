"""Classifiers by timm's names: the kind ``classification``, and its form on the Hugging Face Hub, which is timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import timm
from torch import nn

from ddfnet import compat
from ddfnet.pretrained import Header, PretrainedMixin, load_state_dict_checked, reading, register_kind

# Keys of timm's configuration: the inputs that a network expects, and the names of its parts.
_PRETRAINED_CFG = ("pool_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier", "label_names")
# Arguments of an entry point that do not say how the network is built, and the number of classes, which can change.
_NOT_RECORDED = (
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_args",
    "cache_dir",
    "device",
    "dtype",
    "num_classes",
)
_Network = TypeVar("_Network", bound="TimmPretrainedMixin")


@register_kind("classification")
def create_classifier(name: str, num_classes: int, options: dict[str, Any] | None = None) -> nn.Module:
    """Create a network by the name that timm has for it.

    Args:
        name: any that ``timm.is_model`` knows, the package's own among them.
        num_classes: number of classes.
        options: further arguments of ``timm.create_model``.

    Raises:
        ValueError: timm does not know the name, or the network does not take an option.
    """
    if not timm.is_model(name):
        ours = timm.list_models(["ddf_*", "small_resnet*"])
        raise ValueError(f"network must be a name that timm knows, such as {', '.join(ours)}, got {name!r}")
    try:
        network: nn.Module = timm.create_model(name, num_classes=num_classes, **(options or {}))
    except TypeError as error:  # from the constructor, for an argument that it does not take
        raise ValueError(f"network {name} with {options}: {error}") from None
    return network


def load_official_classifier(file: Path, name: str) -> nn.Module:
    """Load the weights of an official DDF-ResNet, which say nothing of their network but the number of classes.

    Args:
        file: see `ddfnet.compat.load_official`.
        name: timm's name of the network.

    Raises:
        ValueError: the file is broken, or its weights are of another network.
    """
    with reading(file):
        weights = compat.load_official(file)
        network = create_classifier(name, len(weights["fc.weight"]) if "fc.weight" in weights else 0)
        load_state_dict_checked(network, weights)
        return network


def preprocessing_of(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing that a timm configuration asks for, as the header of a file has it."""
    return {
        "size": pretrained_cfg["input_size"][-1],
        "crop_pct": pretrained_cfg["crop_pct"],
        "eval_interpolation": pretrained_cfg["interpolation"],
        "mean": list(pretrained_cfg["mean"]),
        "std": list(pretrained_cfg["std"]),
    }


class TimmPretrainedMixin(PretrainedMixin):
    """`PretrainedMixin` for networks of timm's registry, with timm's own ``config.json``.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads the folder too, and so does ``"hf-hub:USER/NAME"``
    on the Hugging Face Hub.
    """

    kind = "classification"
    num_classes: int
    num_features: int
    pretrained_cfg: dict[str, Any]
    global_pool: Any
    model_args: dict[str, Any]

    def record_model_args(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments that an entry point of timm's registry was called with."""
        self.model_args = {name: value for name, value in arguments.items() if name not in _NOT_RECORDED}

    @property
    def init_args(self) -> dict[str, Any]:
        """Arguments of `create_classifier` for the head that the network has now."""
        if not hasattr(self, "model_args"):
            raise ValueError("the network must be one that timm.create_model made, for its name says how it is built")
        options, pool_type = dict(self.model_args), self.global_pool.pool_type
        if pool_type != options.get("global_pool", "avg"):  # reset_classifier changes it
            options["global_pool"] = pool_type
        return {"name": self.pretrained_cfg["architecture"], "num_classes": self.num_classes, "options": options}

    def pretrained_header(self) -> Header:
        return Header(self.kind, self.init_args, {"preprocessing": preprocessing_of(self.pretrained_cfg)})

    def hub_config(self) -> dict[str, Any]:
        init_args = self.init_args
        classes, options = init_args["num_classes"], init_args["options"]
        shown = {name: self.pretrained_cfg[name] for name in _PRETRAINED_CFG if name in self.pretrained_cfg}
        size = [options.get("in_chans", 3), *self.pretrained_cfg["input_size"][1:]]
        return {
            "architecture": init_args["name"],
            "num_classes": classes,
            "num_features": self.num_features,
            "model_args": {**options, "num_classes": classes},
            "pretrained_cfg": {**shown, "input_size": size, "num_classes": classes},
        }

    @classmethod
    def from_hub_config(cls: type[_Network], config: dict[str, Any], options: dict[str, Any]) -> _Network:
        name, shown = config["architecture"], config["pretrained_cfg"]
        network = timm.create_model(name, pretrained_cfg=shown, **{**config["model_args"], **options})
        if not isinstance(network, cls):
            raise ValueError(f"its architecture must be a {cls.__name__}, got {name!r}")
        return network
