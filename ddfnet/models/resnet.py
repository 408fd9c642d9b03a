"""DDF-ResNets: timm's ResNets with a decoupled dynamic filter in the place of every block's 3x3 convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from ddfnet import compat
from ddfnet.models.hub_timm import TimmHub
from ddfnet.nn import DDF2d, DDFConv2d

_LAYERS = {"18": (2, 2, 2, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
# Of DDF2d; block_args of the model may name them.
_OPTIONS = ("heads", "reduction", "combine", "norm", "filters", "zero_init")

_Entry = Callable[..., ResNet]
_register: Callable[[_Entry], _Entry] = register_model  # which has no types


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A block's arguments: timm's, and DDF2d's."""
    return (
        {name: value for name, value in arguments.items() if name not in _OPTIONS},
        {name: value for name, value in arguments.items() if name in _OPTIONS},
    )


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """What a layer in this convolution's place has in common with it."""
    return {
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


class DDFBottleneck(Bottleneck):
    """timm's bottleneck with DDF2d in the place of its 3x3 convolution; takes DDF2d's options besides timm's."""

    conv2: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, options = _split(kwargs)
        super().__init__(*args, **kwargs)
        conv = self.conv2
        if conv.groups != 1 or conv.in_channels != conv.out_channels:
            raise NotImplementedError(
                f"a DDF bottleneck needs cardinality=1 and block_reduce_first=1, for DDF2d has no groups and keeps the "
                f"channels, got {conv}; use heads for spatial filters that differ between channels"
            )
        self.conv2 = DDF2d(conv.in_channels, **_geometry(conv), **options)


class DDFBasicBlock(BasicBlock):
    """timm's basic block with DDF2d and a bias-free 1x1 convolution in the place of each 3x3 convolution."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, options = _split(kwargs)
        super().__init__(*args, **kwargs)
        for name in ("conv1", "conv2"):
            conv = getattr(self, name)
            layer = DDFConv2d(
                conv.in_channels, conv.out_channels, bias=False, pointwise=True, **_geometry(conv), **options
            )
            setattr(self, name, layer)


class DDFResNet(ResNet, TimmHub):
    """timm's ResNet, which leaves DDF layers the start that they ask for (``zero_init``)."""

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        super().init_weights(*args, **kwargs)  # of every convolution, those that predict filters too
        for layer in self.modules():
            if isinstance(layer, DDF2d):
                layer.begin()


def _ours(weights: dict[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
    """The weights of a file that timm has read, which may have the official names."""
    return compat.load_official(weights) if compat.is_official(weights) else weights


def build(kind: type[DDFResNet], name: str, pretrained: bool, kwargs: dict[str, Any], **own: Any) -> ResNet:
    """What an entry of timm's registry returns: the network, or with ``features_only`` an extractor of features.

    Args:
        kind: its class.
        name: of the entry.
        pretrained: whether it has the weights of a file, which may have the official names, or from where timm's
            configuration says.
        kwargs: of the entry.
        own: arguments of the class that the entry's take the place of.
    """
    model: ResNet = build_model_with_cfg(kind, name, pretrained, pretrained_filter_fn=_ours, **{**own, **kwargs})
    if isinstance(model, DDFResNet):
        model.made_with(kwargs)
    return model


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> ResNet:
    _, combine, depth = name.split("_")
    depth = depth.removeprefix("resnet")
    # The paper names neither structure nor reduction of its ResNet-18; these give the parameters and FLOPs of table 4.
    block, reduction = (DDFBasicBlock, 0.5) if depth == "18" else (DDFBottleneck, 0.2)
    kwargs["block_args"] = {"combine": combine, "reduction": reduction, **(kwargs.get("block_args") or {})}
    return build(DDFResNet, name, pretrained, kwargs, block=block, layers=_LAYERS[depth])


CONFIGURATION = {
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1",
    "classifier": "fc",
    "num_classes": 1000,
    "paper_ids": "arXiv:2104.14107",
    "paper_name": "Decoupled Dynamic Filter Networks",
    "origin_url": "https://github.com/theFoxofSky/ddfnet",
}
default_cfgs = generate_default_cfgs(
    {f"ddf_{combine}_resnet{depth}.untrained": CONFIGURATION for combine in ("mul", "add") for depth in _LAYERS}
)


@_register
def ddf_mul_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """DDF-ResNet-18 (7.69 M parameters, 0.36 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _create("ddf_mul_resnet18", pretrained, kwargs)


@_register
def ddf_mul_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """DDF-ResNet-50 (16.84 M parameters, 2.27 GMACs at 224 px), filters multiplied.

    The rows of the paper's ablations (table 3) are ``block_args``: ``{"filters": "spatial"}``, ``{"norm": "sigmoid"}``,
    ``{"reduction": 0.3}``. No weights are published with this package; `ddfnet.compat.load_official` reads the paper's.

    Args:
        pretrained: with the weights of ``pretrained_cfg_overlay={"file": FILE}``; there are none to fetch.
        kwargs: of ``timm.models.ResNet``; ``block_args`` takes heads, reduction, combine, norm, filters and
            zero_init of `ddfnet.nn.DDF2d` too.

    Returns:
        The network, (N, 3, H, W) to (N, 1000).

    Raises:
        NotImplementedError: ``cardinality`` or ``block_reduce_first`` other than 1.

    Example:
        >>> import timm, torch, ddfnet.models
        >>> model = timm.create_model("ddf_mul_resnet50", num_classes=10, block_args={"norm": "sigmoid"}).eval()
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 10])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 5.1 and figure 4.
    """
    return _create("ddf_mul_resnet50", pretrained, kwargs)


@_register
def ddf_mul_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """DDF-ResNet-101 (28.15 M parameters, 4.04 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _create("ddf_mul_resnet101", pretrained, kwargs)


@_register
def ddf_mul_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """DDF-ResNet-152 (37.46 M parameters, 5.81 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _create("ddf_mul_resnet152", pretrained, kwargs)


@_register
def ddf_add_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """`ddf_mul_resnet18` with the filters added; the two share their state-dict keys."""
    return _create("ddf_add_resnet18", pretrained, kwargs)


@_register
def ddf_add_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """`ddf_mul_resnet50` with the filters added; the two share their state-dict keys."""
    return _create("ddf_add_resnet50", pretrained, kwargs)


@_register
def ddf_add_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """`ddf_mul_resnet101` with the filters added; the two share their state-dict keys."""
    return _create("ddf_add_resnet101", pretrained, kwargs)


@_register
def ddf_add_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """`ddf_mul_resnet152` with the filters added; the two share their state-dict keys."""
    return _create("ddf_add_resnet152", pretrained, kwargs)
