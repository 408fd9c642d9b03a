"""Classifiers by timm's names: the kind ``classification``, and its form on the Hugging Face Hub, which is timm's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, TypeVar

import timm
from torch import nn

from ddfnet import compat
from ddfnet.models.timm_options import LOADING, check_file_options, check_name
from ddfnet.pretrained import (
    Header,
    PretrainedMixin,
    Weights,
    check_header,
    load_state_dict_checked,
    read,
    reading_weights,
    register_kind,
)
from ddfnet.pretrained.fitting import Budget
from ddfnet.pretrained.options import check_option, choice, integer, number, several, shown
from ddfnet.pretrained.reader import first_line

# Keys of timm's configuration: the inputs that a network expects, and the names of its parts.
_PRETRAINED_CFG = ("pool_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier", "label_names")
# Errors of timm for options that it does not take, and for files of first weights.
_TIMM_ERRORS = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, pickle.UnpicklingError)
_DEFAULT_CLASSES = 1000  # timm's
_PREPROCESSING = {  # rules for the entries of a file
    "size": integer(1, 4096),
    "crop_pct": number(0.01, 1),
    "eval_interpolation": choice("bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"),
    "mean": several(number(-1e6, 1e6)),
    "std": several(number(1e-6, 1e6)),
}
_OLD_NAMES = {"measured_crop": "crop_pct", "measured_interpolation": "eval_interpolation"}  # until 0.1.0
_Network = TypeVar("_Network", bound="TimmPretrainedMixin")


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check the arguments that a file gives to `create_classifier`, see `check_file_options`."""
    check_file_options(arguments.get("name", ""), arguments.get("options"))
    classes = arguments.get("num_classes", 0)
    check_file_options(arguments.get("name", ""), {"num_classes": classes})


def building_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that say how a network is built: without those of its first weights, and its classes."""
    return {name: value for name, value in options.items() if name not in (*LOADING, "num_classes")}


def rename_weights(weights: Weights) -> Weights:
    """Return weights by the names of the package's networks, where they have those of the official code."""
    return compat.load_official(weights) if compat.is_official(weights) else weights


@register_kind("classification", check_options=check_arguments, rename=rename_weights)
def create_classifier(name: str, num_classes: int, options: dict[str, Any] | None = None) -> nn.Module:
    """Create a network by the name that timm has for it.

    Args:
        name: any that ``timm.is_model`` knows, the package's own among them.
        num_classes: number of classes.
        options: further arguments of ``timm.create_model``; a file has only those of `ddfnet.models.timm_options`.

    Raises:
        ValueError: timm does not know the name, or the network does not take an option.
    """
    check_name(name)
    try:
        network: nn.Module = timm.create_model(name, num_classes=num_classes, **(options or {}))
    except _TIMM_ERRORS as error:
        raise ValueError(f"network {name} with {options}: {first_line(error)}") from None
    if not hasattr(type(network), "init_args"):
        own: Any = network
        own.init_args = {"name": name, "num_classes": num_classes, "options": building_options(options or {})}
    return network


def load_classifier(file: Path, name: str) -> nn.Module:
    """Load weights that say nothing of their network but the number of classes.

    They may have the official names, and before the names of the network that of a module around it.

    Args:
        file: see `ddfnet.pretrained.read`.
        name: timm's name of the network.

    Raises:
        ValueError: the file is broken, or its weights are of another network.
    """
    with reading_weights(file):
        return classifier_of(read(file).weights, name)


def classifier_of(weights: Weights, name: str) -> nn.Module:
    """Create the network of these weights, see `load_classifier`.

    Raises:
        ValueError: the weights are of another network.
    """
    weights = rename_weights(weights)
    network = create_classifier(name, _DEFAULT_CLASSES)
    weights = _inner(weights, network)
    classes = _classes(weights, network)
    if classes != _DEFAULT_CLASSES:
        network = create_classifier(name, classes)
    load_state_dict_checked(network, weights)
    return network.eval()


def _inner(weights: Weights, network: nn.Module) -> Weights:
    """Return the weights of the network among those of a module around it, such as Lightning's."""
    first, *_ = own = network.state_dict()
    prefixes = [name.removesuffix(first) for name in weights if name.endswith(f".{first}")]
    if first not in weights and prefixes:
        prefix = min(prefixes, key=len)  # inner blocks may have a layer of the first one's name
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not own.keys() & weights.keys():
        compat.load_official(weights)  # raises: neither ours nor official
    return weights


def _classes(weights: Weights, network: Any) -> int:
    """Return the number of classes of weights: the size of their head, or 0 without one."""
    head = network.get_classifier()
    name = next((f"{own}.weight" for own, each in network.named_modules() if each is head), "")
    return len(weights[name]) if name in weights else 0


def preprocessing_of(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing that a timm configuration asks for, as the header of a file has it."""
    return {
        "size": pretrained_cfg["input_size"][-1],
        "crop_pct": pretrained_cfg["crop_pct"],
        "eval_interpolation": pretrained_cfg["interpolation"],
        "mean": list(pretrained_cfg["mean"]),
        "std": list(pretrained_cfg["std"]),
    }


def complete_preprocessing(given: Any, network: nn.Module) -> dict[str, Any]:
    """Return the preprocessing of images for a network, as `ClassificationData` takes it.

    Args:
        given: preprocessing in the header of its file, or None.
        network: the network, whose timm configuration has the rest.

    Raises:
        ValueError: it is malformed; one line names the entry.
    """
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"its preprocessing must be a dictionary, got {shown(given)}")
    entries: dict[str, Any] = given or {}
    said = {_OLD_NAMES.get(name, name): value for name, value in entries.items() if value is not None}
    for name, value in said.items():
        check_option(name, value, _PREPROCESSING, "preprocessing")
    means, deviations = (len(said.get(name) or ()) for name in ("mean", "std"))
    if means != deviations and means and deviations:
        raise ValueError(f"its preprocessing must have as many means as stds, got {means} and {deviations}")
    config: dict[str, Any] | None = getattr(network, "pretrained_cfg", None)  # type: ignore[assignment]
    return {**(preprocessing_of(config) if config else {}), **said}


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
        self.model_args = building_options(arguments)

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
    def from_hub_config(
        cls: type[_Network], config: dict[str, Any], options: dict[str, Any], weights: Weights
    ) -> _Network:
        name, arguments = config["architecture"], config["model_args"]
        check_header(Header(cls.kind, {"name": name, "num_classes": 0, "options": arguments}))
        said = config["pretrained_cfg"]
        if not isinstance(said, dict):
            raise ValueError(f"its pretrained_cfg must be a dictionary, got {shown(said)}")
        # Others of timm's entries name a place to read from.
        shown_cfg = {
            key: value for key, value in said.items() if key in (*_PRETRAINED_CFG, "input_size", "num_classes")
        }
        with Budget(weights):
            network = timm.create_model(name, pretrained_cfg=shown_cfg, **{**arguments, **options})
        if not isinstance(network, cls):
            raise ValueError(f"its architecture must be a {cls.__name__}, got {name!r}")
        return network
