"""What can be exported by name: networks, trained ones in their files, layers, and the operator itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ddfnet
from ddfnet.export.inputs import Inputs, pictures
from ddfnet.loading import load_weights


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and what it is given.

    Attributes:
        model: the model.
        inputs: see `ddfnet.export.export`.
        size: height and width at which it is traced.
        step: what heights and widths must be multiples of.
        note: what a user should know of it.
    """

    model: nn.Module
    inputs: Inputs
    size: tuple[int, int]
    step: int = 1
    note: str | None = None


class _Operator(nn.Module):
    """A call of the operator as a model."""

    def __init__(self, call: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.call, self.options = call, options

    def forward(self, input: Tensor, channel_filter: Tensor, spatial_filter: Tensor) -> Tensor:
        return self.call(input, channel_filter, spatial_filter, **self.options)


def _ddf() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "channel_filter": torch.randn(batch, 32, 3, 3),
            "spatial_filter": torch.randn(batch, 9, height, width),
        }

    return Subject(_Operator(ddfnet.ddf), inputs, (24, 32))


def _ddf_upsample() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "channel_filter": torch.randn(batch, 4, 32, 3, 3),
            "spatial_filter": torch.randn(batch, 4 * 9, height, width),
        }

    return Subject(_Operator(ddfnet.ddf_upsample, scale_factor=2), inputs, (24, 32))


def _guided_layer() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "guide": torch.rand(batch, 3, 2 * height, 2 * width),
        }

    return Subject(ddfnet.nn.DDFUpsample2d(32, guide_channels=3), inputs, (24, 32))


def _layer(make: Callable[[], nn.Module], channels: int = 32) -> Callable[[], Subject]:
    return lambda: Subject(make(), pictures(channels), (24, 32))


LAYERS: dict[str, Callable[[], Subject]] = {
    "ddf": _ddf,
    "ddf_upsample": _ddf_upsample,
    "FilterNorm": _layer(lambda: ddfnet.nn.FilterNorm(2, 3, "spatial"), 18),
    "DDF2d": _layer(lambda: ddfnet.nn.DDF2d(32)),
    "DDFConv2d": _layer(lambda: ddfnet.nn.DDFConv2d(32, 48, 3, padding=1)),
    "DDFUpsample2d": _layer(lambda: ddfnet.nn.DDFUpsample2d(32)),
    "DDFUpsample2d-guide": _guided_layer,
    "CARAFE": _layer(lambda: ddfnet.nn.CARAFE(32)),
}
"""Small examples of each, with random weights."""
NETWORKS = ("GuidedUpsampler", "fasterrcnn_resnet50_fpn")
"""Besides what timm knows."""


def subject(name: str, checkpoint: Path | None = None) -> Subject:
    """The model of this name, in evaluation mode.

    Args:
        name: of `LAYERS`, of `NETWORKS`, of a network that timm knows, or a file that ``ddfnet train`` left.
        checkpoint: weights for a network that timm knows.

    Raises:
        ValueError: no such name; a file that is none; weights of another network.
        ModuleNotFoundError: without the extra that the network needs.
    """
    file = Path(name)
    if file.suffix in (".safetensors", ".ckpt"):
        made = _file(file)
    elif name in LAYERS:
        made = LAYERS[name]()
    elif name == "GuidedUpsampler":
        from ddfnet.depth import weights_files

        made = _guided(weights_files.default_model())
    elif name == "fasterrcnn_resnet50_fpn":
        from ddfnet.models.faster_rcnn import fasterrcnn_resnet50_fpn

        made = _detector(fasterrcnn_resnet50_fpn())
    else:
        made = _classifier(name, checkpoint)
        checkpoint = None
    if checkpoint is not None:
        raise ValueError(f"--checkpoint goes with a network of timm's, and {name} is none")
    made.model.eval()
    return made


def _guided(network: Any) -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        scale = network.scale_factor
        return {
            "depth": 1 + 9 * torch.rand(batch, 1, height, width),
            "guide": torch.rand(batch, 3, scale * height, scale * width),
            "valid": torch.rand(batch, 1, height, width) > 0.2,
        }

    return Subject(network, inputs, (12, 16))


def _detector(network: Any) -> Subject:
    note = "of a detector the backbone with its pyramid is exported: boxes are chosen by code that no graph holds"
    return Subject(network.backbone, pictures(3), (128, 192), step=32, note=note)


def _file(file: Path) -> Subject:
    """A network of any task; which, its file does not say in so many words."""
    from ddfnet.depth import weights_files
    from ddfnet.models import classifier_files

    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    reasons = []
    try:
        network, _, preprocessing = classifier_files.load(file)
        side = int(preprocessing.get("size") or 224)
        return Subject(network, pictures(_channels(network)), (side, side))
    except ValueError as error:
        reasons.append(error)
    try:
        return _guided(weights_files.load(file))
    except ValueError as error:
        reasons.append(error)
    from ddfnet.models import detection_files

    try:
        return _detector(detection_files.load(file))
    except ValueError as error:
        reasons.append(error)
    why = str(reasons[0]).rpartition(" (")[2].rstrip(")")
    raise ValueError(f"{file}: a network that `ddfnet train` left is required, *.safetensors or *.ckpt ({why})")


def _classifier(name: str, checkpoint: Path | None) -> Subject:
    import timm

    import ddfnet.models  # noqa: F401  (registers ours)

    if checkpoint is not None and not checkpoint.is_file():
        raise ValueError(f"{checkpoint}: no such file")
    if not timm.is_model(name):
        ours = ", ".join((*LAYERS, *NETWORKS, *timm.list_models("ddf_*"), *timm.list_models("small_resnet*")))
        raise ValueError(
            f"MODEL must be a file that `ddfnet train` left, a name that timm knows, or {ours}; got {name!r}"
        )
    note, network = None, timm.create_model(name)
    if checkpoint is None:
        note = "the weights are random; --checkpoint FILE has trained ones"
        for module in network.modules():  # some start at zero, which would hide their blocks from the check
            if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
                nn.init.ones_(module.weight)
    else:
        weights = _weights(checkpoint)
        head = next((f"{own}.weight" for own, each in network.named_modules() if each is network.get_classifier()), "")
        if head in weights:
            network = timm.create_model(name, num_classes=len(weights[head]))
        try:
            load_weights(network, weights)
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}; weights of {name} are required") from None
    config = getattr(network, "pretrained_cfg", None) or {}
    _, height, width = config.get("input_size") or (3, 32, 32)  # small_resnet23's
    return Subject(network, pictures(_channels(network)), (height, width), note=note)


def _channels(network: nn.Module) -> int:
    """Of a network's pictures."""
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


def _weights(file: Path) -> dict[str, Tensor]:
    """A state dict in timm's names, from safetensors or from what ``torch.load`` reads without running code."""
    from timm.models import load_state_dict

    from ddfnet import compat

    try:
        weights: dict[str, Tensor] = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # what reading a broken file can raise has no end
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{file}: a file of weights is required ({type(error).__name__}: {reason})") from None
    try:
        return compat.load_official(weights)
    except ValueError:
        return weights  # not the official names, then
