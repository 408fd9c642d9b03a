"""Networks that timm makes, in folders and on the Hugging Face Hub, in the form that timm reads as well."""

from __future__ import annotations

from typing import Any, TypeVar

from ddfnet.models import classifier_files
from ddfnet.models.hub import Hub

# Of timm's configuration: what a network is to be shown, and what its parts are called.
_SHOWN = ("pool_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier", "label_names")
# Of an entry: what does not say how the network is made, and the number of classes, which can change.
_OF_THE_CALL = (
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_args",
    "cache_dir",
    "device",
    "dtype",
    "num_classes",
)
_Network = TypeVar("_Network", bound="TimmHub")


class TimmHub(Hub):
    """`Hub` for classifiers of timm's, whose ``config.json`` is timm's.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads the folder too, and so does ``"hf-hub:USER/NAME"``
    on the Hugging Face Hub.
    """

    num_classes: int
    num_features: int
    pretrained_cfg: dict[str, Any]
    global_pool: Any

    def made_with(self, arguments: dict[str, Any]) -> None:
        """Keep what an entry of timm's registry was called with."""
        self.options = {name: value for name, value in arguments.items() if name not in _OF_THE_CALL}

    def _made_of(self) -> dict[str, Any]:
        """Arguments of `ddfnet.models.classifier_files.create`, for the head that the network has now."""
        if not hasattr(self, "options"):
            raise ValueError("the network must be one that timm.create_model made, for its name says how it is made")
        options = {**self.options, "global_pool": self.global_pool.pool_type}
        return {"name": self.pretrained_cfg["architecture"], "num_classes": self.num_classes, "options": options}

    def hub_config(self) -> dict[str, Any]:
        made_of = self._made_of()
        classes, options = made_of["num_classes"], made_of["options"]
        shown = {name: self.pretrained_cfg[name] for name in _SHOWN if name in self.pretrained_cfg}
        size = [options.get("in_chans", 3), *self.pretrained_cfg["input_size"][1:]]
        return {
            "architecture": made_of["name"],
            "num_classes": classes,
            "num_features": self.num_features,
            "model_args": {**options, "num_classes": classes},
            "pretrained_cfg": {**shown, "input_size": size, "num_classes": classes},
        }

    def hub_header(self) -> dict[str, Any]:
        return {"network": self._made_of(), "preprocessing": classifier_files.preprocessing(self.pretrained_cfg)}

    @classmethod
    def of_hub_config(cls: type[_Network], config: dict[str, Any], options: dict[str, Any]) -> _Network:
        import timm  # whose import is what brings our networks, and this file with them

        name, shown = config["architecture"], config["pretrained_cfg"]
        network = timm.create_model(name, pretrained_cfg=shown, **{**config["model_args"], **options})
        if not isinstance(network, cls):
            raise ValueError(f"its architecture must be a {cls.__name__}, got {name!r}")
        return network
