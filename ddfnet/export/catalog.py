"""Catalogue of the models that can be exported by name: networks, files of networks, layers, and the operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.export.inputs import Inputs, images, sample_inputs
from ddfnet.family import CARAFE, DySample
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.pretrained import Header, header_of, load_with_header, reading_weights

_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".tar")  # suffixes of files; .tar is that of *.pth.tar


@dataclass(frozen=True)
class Subject:
    """A model and its example inputs.

    Attributes:
        model: the model, in evaluation mode.
        inputs: its inputs at any size, see `ddfnet.export.export`.
        size: height and width at which it is traced.
        step: number that heights and widths must be multiples of.
        note: a remark for the user.
    """

    model: nn.Module
    inputs: Inputs
    size: tuple[int, int]
    step: int = 1
    note: str | None = None


# --- the operator and the layers ------------------------------------------------------------------------------------


class _Operator(nn.Module):
    """A call of the operator as a model."""

    def __init__(self, call: Callable[..., Tensor], **arguments: Any) -> None:
        super().__init__()
        self.call, self.arguments = call, arguments

    def forward(self, input: Tensor, channel_filter: Tensor, spatial_filter: Tensor) -> Tensor:
        return self.call(input, channel_filter, spatial_filter, **self.arguments)


def _ddf() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "channel_filter": torch.randn(batch, 32, 3, 3),
            "spatial_filter": torch.randn(batch, 9, height, width),
        }

    return Subject(_Operator(ddf), inputs, (24, 32))


def _ddf_upsample() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "channel_filter": torch.randn(batch, 4, 32, 3, 3),
            "spatial_filter": torch.randn(batch, 4 * 9, height, width),
        }

    return Subject(_Operator(ddf_upsample, scale_factor=2), inputs, (24, 32))


def _guided_layer() -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        return {
            "input": torch.randn(batch, 32, height, width),
            "guide": torch.rand(batch, 3, 2 * height, 2 * width),
        }

    return Subject(DDFUpsample2d(32, guide_channels=3), inputs, (24, 32))


def _layer(make: Callable[[], nn.Module], channels: int = 32) -> Callable[[], Subject]:
    return lambda: Subject(make(), images(channels), (24, 32))


LAYERS: dict[str, Callable[[], Subject]] = {
    "ddf": _ddf,
    "ddf_upsample": _ddf_upsample,
    "FilterNorm": _layer(lambda: FilterNorm(2, 3, "spatial"), 18),
    "DDF2d": _layer(lambda: DDF2d(32)),
    "DDFConv2d": _layer(lambda: DDFConv2d(32, 48, 3, padding=1)),
    "DDFUpsample2d": _layer(lambda: DDFUpsample2d(32)),
    "DDFUpsample2d-guide": _guided_layer,
    "CARAFE": _layer(lambda: CARAFE(32)),
    "DySample": _layer(lambda: DySample(32)),
}
"""Small examples of each, with random weights."""


# --- networks -------------------------------------------------------------------------------------------------------


def _depth(network: Any, header: Header) -> Subject:
    def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
        scale = network.scale_factor
        return {
            "depth": 1 + 9 * torch.rand(batch, 1, height, width),
            "guide": torch.rand(batch, 3, scale * height, scale * width),
            "valid": torch.rand(batch, 1, height, width) > 0.2,
        }

    return Subject(network, inputs, (12, 16))


def _detection(network: Any, header: Header) -> Subject:
    note = "of a detector the backbone with its pyramid is exported: boxes are chosen by code that no graph holds"
    return Subject(network.backbone, images(3), (128, 192), step=32, note=note)


def _classification(network: nn.Module, header: Header) -> Subject:
    from ddfnet.models.classifier import complete_preprocessing

    side = complete_preprocessing(header.extra.get("preprocessing"), network).get("size")
    return _images(network, header) if side is None else replace(_images(network, header), size=(side, side))


def _images(network: nn.Module, header: Header) -> Subject:
    """Return a network whose one input is images of the size that timm's configuration says."""
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    height, width = (config.get("input_size") or (3, 224, 224))[1:]
    return Subject(network, images(_image_channels(network)), (height, width))


SUBJECTS: dict[str, Callable[[Any, Header], Subject]] = {
    "classification": _classification,
    "depth": _depth,
    "detection": _detection,
}
"""Inputs of networks by their kind, see `ddfnet.pretrained`; a network of another kind takes images."""
NETWORKS = ("GuidedUpsampler", "fasterrcnn_resnet50_fpn")
"""Networks by name, besides those that timm knows."""


def subject(name: str, checkpoint: Path | None = None) -> Subject:
    """Return the model of a name, in evaluation mode.

    Args:
        name: any of `LAYERS` and `NETWORKS`, the name of a network that timm knows, or a file of a network.
        checkpoint: weights for a network that timm knows.

    Raises:
        ValueError: an unknown name; a broken file; weights of another network.
        ModuleNotFoundError: the extra that the network needs is not installed.
    """
    file = Path(name)
    if file.suffix in _WEIGHTS:
        loaded = load_with_header(file)
        with reading_weights(file):
            made = _subject_of(loaded.network, loaded.header)
        notes = [note for note in (loaded.note, made.note) if note is not None]
        made = replace(made, note="; ".join(notes) or None)
    elif name in LAYERS:
        made = LAYERS[name]()
    elif name == "GuidedUpsampler":
        from ddfnet.depth.network import default_model

        made = _subject_of(default_model())
    elif name == "fasterrcnn_resnet50_fpn":
        from ddfnet.models.faster_rcnn import fasterrcnn_resnet50_fpn

        made = _subject_of(fasterrcnn_resnet50_fpn())
    else:
        made = _classifier(name, checkpoint)
        checkpoint = None
    if checkpoint is not None:
        raise ValueError(f"--checkpoint goes with a network of timm's, and {name} is none")
    made.model.eval()
    return made


def _subject_of(network: nn.Module, header: Header | None = None) -> Subject:
    header = header_of(network) if header is None else header
    return SUBJECTS.get(header.kind, _images)(network, header)


def _classifier(name: str, checkpoint: Path | None) -> Subject:
    import timm

    from ddfnet.models.classifier import load_classifier

    if not timm.is_model(name):
        ours = ", ".join((*LAYERS, *NETWORKS, *timm.list_models("ddf_*"), *timm.list_models("small_resnet*")))
        raise ValueError(
            f"MODEL must be a file that `ddfnet train` left, a name that timm knows, or {ours}; got {name!r}"
        )
    if checkpoint is not None:
        return _images(load_classifier(checkpoint, name), Header("classification", None))
    note = "the weights are random; --checkpoint FILE has trained ones"
    subject = replace(_images(timm.create_model(name), Header("classification", None)), note=note)
    _balance_norms(subject)
    return subject


def _balance_norms(made: Subject) -> None:
    """Give the batch norms of a network with random weights the statistics of random images, as training would.

    Without them the activations grow from block to block, and rounding errors with them. Weights that start at zero are
    those at the ends of residual branches, and would hide their blocks from the check. With L such branches they become
    1/sqrt(L). A branch multiplies a relative error by some a, so that L blocks multiply its square by about
    (1 + a^2/L)^L, which is bounded; the 50 blocks of a DDF-ResNet-152 make it 50 to 80 times as large. With ones it
    would be hundreds of thousands of times, and float32 would agree with float64 to one digit or two.
    """
    norms = {module: module.momentum for module in made.model.modules() if isinstance(module, nn.BatchNorm2d)}
    made.model.eval()
    ends = [norm for norm in norms if norm.weight is not None and not norm.weight.any()]
    for norm in ends:
        nn.init.constant_(norm.weight, len(ends) ** -0.5)
    for norm in norms:
        norm.train().momentum = 1.0  # the statistics of one batch
    if norms:
        with torch.no_grad():
            made.model(*sample_inputs(made.inputs, (4, *made.size)).values())
    for norm, momentum in norms.items():
        norm.eval().momentum = momentum


def _image_channels(network: nn.Module) -> int:
    """Return the channels of a network's images."""
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))
