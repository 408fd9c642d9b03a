"""A ResNet for pictures of 32x32 pixels, timm's but for its stem, with a layer of choice for every block's 3x3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from ddfnet.models.resnet import CONFIGURATION, DDFBottleneck, DDFResNet, build

_Entry = Callable[..., ResNet]
_register: Callable[[_Entry], _Entry] = register_model  # which has no types


class DepthwiseBottleneck(Bottleneck):
    """timm's bottleneck with a depthwise convolution in the place of its 3x3 convolution."""

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
"""The block that has each layer between its two 1x1 convolutions, by the layer's name."""


class SmallResNet(DDFResNet):
    """timm's ResNet for small pictures: three stages, and a 3x3 stem without pooling.

    Args:
        mixer: what lies between a block's 1x1 convolutions: ``"conv"`` (3x3), ``"depthwise"`` (depthwise 3x3) or
            ``"ddf"`` (`ddfnet.nn.DDF2d`, whose options ``block_args`` takes). Nothing else depends on it.
        layers: blocks of each stage.
        channels: of each stage's mixers; four times as many leave its blocks.
        stem_stride: 2, or 1 for images of fewer than 16 pixels, such as digits of 8x8.
        kwargs: of ``timm.models.ResNet``; ``block_args={"attn_layer": "se"}`` is squeeze and excitation.

    Returns:
        From ``forward(x)`` with x (N, 3, H, W): the logits, (N, num_classes).

    Raises:
        ValueError: no such mixer; not three stages.
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
        self.conv1 = nn.Conv2d(in_chans, stem.out_channels, 3, stem_stride, padding=1, bias=False, **where)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does all others
        self.maxpool = nn.Identity()
        self.layer4 = nn.Identity()  # which forward calls


default_cfgs = generate_default_cfgs(
    {"small_resnet23.untrained": {**CONFIGURATION, "input_size": (3, 32, 32), "pool_size": (4, 4), "crop_pct": 1.0}}
)


@_register
def small_resnet23(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """A bottleneck ResNet for 32x32 pixels (8.2 MMACs, 0.36 M parameters; with convolutions 14.2 and 0.57 M).

    Its stages have 1, 3 and 3 blocks on maps of 16, 8 and 4 pixels a side, so that DDF takes 0.58 of the
    multiply-accumulates and 0.64 of the parameters of the convolutions, as in ResNet-50 (0.56 and 0.66).

    Args:
        pretrained: with the weights of ``pretrained_cfg_overlay={"file": FILE}``; there are none to fetch.
        kwargs: ``mixer``, ``block_args`` and others of `SmallResNet`.

    Returns:
        The network, (N, 3, 32, 32) to (N, num_classes).

    Raises:
        ValueError: no such mixer.

    Example:
        >>> import timm, torch, ddfnet.models
        >>> model = timm.create_model("small_resnet23", num_classes=10, mixer="ddf", block_args={"combine": "add"})
        >>> model.eval()(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])

    Source: ours, after He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """
    return build(SmallResNet, "small_resnet23", pretrained, kwargs)
