"""ResNets of timm with a decoupled dynamic filter in place of each block's 3x3 convolution."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, register_notrace_module
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from ddfnet import compat
from ddfnet.models.classifier import TimmPretrainedMixin
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FusedDDF2d
from ddfnet.nn.starts import has_start, keep_start, scale, with_start

_LAYERS = {"18": (2, 2, 2, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
# Options of DDF2d that a network's block_args may have.
_OPTIONS = ("heads", "reduction", "combine", "norm", "norm_eps", "filters", "zero_init", "static")

_Entry = Callable[..., ResNet]
_register: Callable[[_Entry], _Entry] = register_model  # without types in timm

# In the graphs that timm traces these layers stay whole, and thereby one operator each.
for _layer in (DDF2d, DDFUpsample2d, FusedDDF2d):
    register_notrace_module(_layer)


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a block's arguments into those of timm's block and those of DDF2d."""
    return (
        {name: value for name, value in arguments.items() if name not in _OPTIONS},
        {name: value for name, value in arguments.items() if name in _OPTIONS},
    )


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments that a layer shares with the convolution that it replaces."""
    return {
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


class DDFBottleneck(Bottleneck):
    """A bottleneck of timm with DDF2d in place of its 3x3 convolution; it takes DDF2d's options besides timm's."""

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
    """A basic block of timm with DDF2d and a bias-free 1x1 convolution in place of each 3x3 convolution."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs, options = _split(kwargs)
        super().__init__(*args, **kwargs)
        for name in ("conv1", "conv2"):
            conv = getattr(self, name)
            layer = DDFConv2d(
                conv.in_channels, conv.out_channels, bias=False, pointwise=True, **_geometry(conv), **options
            )
            setattr(self, name, layer)


class DepthwiseBottleneck(Bottleneck):
    """A bottleneck of timm with a depthwise convolution in place of its 3x3 convolution."""

    conv2: nn.Conv2d

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conv = self.conv2
        self.conv2 = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            3,
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            groups=conv.in_channels,
            bias=False,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )


MIXERS: dict[str, type[Bottleneck]] = {"conv": Bottleneck, "depthwise": DepthwiseBottleneck, "ddf": DDFBottleneck}
"""Blocks by the name of the layer between their two 1x1 convolutions."""


def _fan_out(conv: nn.Conv2d | DDF2d) -> None:
    """Initialize the weight of a convolution, or a static one, as timm does in a ResNet."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]


class DDFResNet(ResNet, TimmPretrainedMixin):
    """A ResNet of timm that keeps the initial filters that DDF layers ask for (``zero_init``).

    ``reset_parameters`` of each of its modules initialises it as ``init_weights`` does.
    """

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def init_weights(self, zero_init_last: bool = True, **kwargs: Any) -> None:
        super().init_weights(zero_init_last, **kwargs)  # initialises the convolutions that predict filters too
        for layer in self.modules():
            if isinstance(layer, DDF2d):
                layer.reset_zero_init()
                if layer.static:  # as the depthwise convolution that it begins as
                    with_start(layer, _fan_out)
            elif isinstance(layer, nn.Conv2d) and not has_start(layer):
                keep_start(layer, _fan_out)
            elif isinstance(layer, (BasicBlock, Bottleneck)):
                last = layer.bn3 if isinstance(layer, Bottleneck) else layer.bn2
                if zero_init_last and getattr(last, "weight", None) is not None:
                    keep_start(last, functools.partial(scale, value=0.0))


class SmallResNet(DDFResNet):
    """A ResNet of timm for small images: three stages, and a 3x3 stem without pooling.

    Args:
        mixer: the layer between a block's 1x1 convolutions: ``"conv"`` (3x3), ``"depthwise"`` (depthwise 3x3) or
            ``"ddf"`` (`ddfnet.nn.DDF2d`, whose options ``block_args`` takes). Nothing else depends on it.
        layers: number of blocks per stage.
        channels: channels of each stage's mixers; its blocks have four times as many outputs.
        stem_stride: 2, or 1 for images of fewer than 16 pixels, such as digits of 8x8.
        kwargs: further arguments of ``timm.models.ResNet``; ``block_args={"attn_layer": "se"}`` is squeeze and
            excitation.

    Returns:
        From ``forward(x)`` with x (N, 3, H, W): the logits, (N, num_classes).

    Raises:
        ValueError: an unknown mixer; not three stages.
    """

    conv1: Any

    def __init__(
        self,
        mixer: str = "ddf",
        layers: tuple[int, ...] = (1, 3, 3),
        channels: tuple[int, ...] = (16, 32, 96),
        in_chans: int = 3,
        stem_stride: int = 2,
        **kwargs: Any,
    ) -> None:
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {', '.join(map(repr, MIXERS))}, got {mixer!r}")
        if len(layers) != 3 or len(channels) != 3:
            raise ValueError(f"layers and channels must name three stages, got {layers=} and {channels=}")
        super().__init__(MIXERS[mixer], tuple(layers), in_chans=in_chans, channels=tuple(channels), **kwargs)
        stem: nn.Conv2d = self.conv1
        where: Any = {"device": stem.weight.device, "dtype": stem.weight.dtype}
        conv = nn.Conv2d(in_chans, stem.out_channels, 3, stem_stride, padding=1, bias=False, **where)
        self.conv1 = with_start(conv, _fan_out)
        self.maxpool = nn.Identity()
        self.layer4 = nn.Identity()  # forward calls it


def _convert_weights(weights: dict[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
    """Rename the weights of a file that timm has read where they have the official names."""
    return compat.load_official(weights) if compat.is_official(weights) else weights


def _build(cls: type[DDFResNet], name: str, pretrained: bool, kwargs: dict[str, Any], **defaults: Any) -> ResNet:
    """Build the network of an entry point, or with ``features_only`` an extractor of its features.

    Args:
        cls: the class of the network.
        name: name of the entry point.
        pretrained: whether to load weights from where timm's configuration says; a file may have the official names.
        kwargs: arguments of the entry point.
        defaults: arguments of the class, which those of the entry point override, ``block_args`` one by one.
    """
    block_args = {**defaults.pop("block_args", {}), **(kwargs.get("block_args") or {})}
    arguments = {**defaults, **kwargs, "block_args": block_args}
    model: ResNet = build_model_with_cfg(cls, name, pretrained, pretrained_filter_fn=_convert_weights, **arguments)
    if isinstance(model, DDFResNet):
        model.record_model_args(kwargs)
    return model


def _build_ddf(name: str, pretrained: bool, kwargs: dict[str, Any]) -> ResNet:
    _, combine, depth = name.split("_")
    depth = depth.removeprefix("resnet")
    # The paper names neither structure nor reduction of its ResNet-18; these give the parameters and FLOPs of table 4.
    block, reduction = (DDFBasicBlock, 0.5) if depth == "18" else (DDFBottleneck, 0.2)
    block_args = {"combine": combine, "reduction": reduction, "norm_eps": compat.EPS}
    return _build(DDFResNet, name, pretrained, kwargs, block=block, layers=_LAYERS[depth], block_args=block_args)


_CFG = {
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
    {
        **{f"ddf_{combine}_resnet{depth}.untrained": _CFG for combine in ("mul", "add") for depth in _LAYERS},
        "small_resnet23.untrained": {**_CFG, "input_size": (3, 32, 32), "pool_size": (4, 4), "crop_pct": 1.0},
    }
)


@_register
def ddf_mul_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create DDF-ResNet-18 (7.69 M parameters, 0.36 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _build_ddf("ddf_mul_resnet18", pretrained, kwargs)


@_register
def ddf_mul_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create DDF-ResNet-50 (16.84 M parameters, 2.27 GMACs at 224 px), filters multiplied.

    The rows of the paper's ablations (table 3) are ``block_args``: ``{"filters": "spatial"}``, ``{"norm": "sigmoid"}``,
    ``{"reduction": 0.3}``. No weights are published with this package; `ddfnet.compat.load_official` reads the paper's.

    Args:
        pretrained: load the weights of ``pretrained_cfg_overlay={"file": FILE}``; there are none to fetch.
        kwargs: further arguments of ``timm.models.ResNet``; ``block_args`` takes heads, reduction, combine, norm,
            norm_eps (by default 1e-10, as the paper's code), filters and zero_init of `ddfnet.nn.DDF2d` too.

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
    return _build_ddf("ddf_mul_resnet50", pretrained, kwargs)


@_register
def ddf_mul_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create DDF-ResNet-101 (28.15 M parameters, 4.04 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _build_ddf("ddf_mul_resnet101", pretrained, kwargs)


@_register
def ddf_mul_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create DDF-ResNet-152 (37.46 M parameters, 5.81 GMACs at 224 px), filters multiplied. See `ddf_mul_resnet50`."""
    return _build_ddf("ddf_mul_resnet152", pretrained, kwargs)


@_register
def ddf_add_resnet18(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create `ddf_mul_resnet18` with the filters added; both have the same state-dict keys."""
    return _build_ddf("ddf_add_resnet18", pretrained, kwargs)


@_register
def ddf_add_resnet50(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create `ddf_mul_resnet50` with the filters added; both have the same state-dict keys."""
    return _build_ddf("ddf_add_resnet50", pretrained, kwargs)


@_register
def ddf_add_resnet101(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create `ddf_mul_resnet101` with the filters added; both have the same state-dict keys."""
    return _build_ddf("ddf_add_resnet101", pretrained, kwargs)


@_register
def ddf_add_resnet152(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create `ddf_mul_resnet152` with the filters added; both have the same state-dict keys."""
    return _build_ddf("ddf_add_resnet152", pretrained, kwargs)


@_register
def small_resnet23(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Create a bottleneck ResNet for 32x32 pixels (8.2 MMACs, 0.36 M parameters; with convolutions 14.2 and 0.57 M).

    Its stages have 1, 3 and 3 blocks on maps of 16x16, 8x8 and 4x4 pixels, so that DDF takes 0.58 of the
    multiply-accumulates and 0.64 of the parameters of the convolutions, as in ResNet-50 (0.56 and 0.66).

    Args:
        pretrained: load the weights of ``pretrained_cfg_overlay={"file": FILE}``; there are none to fetch.
        kwargs: ``mixer``, ``block_args`` and others of `SmallResNet`.

    Returns:
        The network, (N, 3, 32, 32) to (N, num_classes).

    Raises:
        ValueError: an unknown mixer.

    Example:
        >>> import timm, torch, ddfnet.models
        >>> model = timm.create_model("small_resnet23", num_classes=10, mixer="ddf", block_args={"combine": "add"})
        >>> model.eval()(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])

    Source: ours, after He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """
    return _build(SmallResNet, "small_resnet23", pretrained, kwargs)
