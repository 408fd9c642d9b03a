"""Forms of the dynamic depthwise layer to choose from, in `small_resnet23`, for ``ddfnet --import``.

ddfnet --import reproduce/learning/forms.py train classification --config reproduce/table3/cifar10.yaml \
    --data.path cifar10-validation.tar --model.network form_resnet23 \
    --model.network_options '{"block_args": {"channel": "filter"}}'
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from ddfnet import ddf
from ddfnet.models.resnet import MIXERS, SmallResNet
from ddfnet.nn import DDF2d
from ddfnet.nn.filter_norm import filter_norm

KERNEL, TAPS = 3, 9
_NAMES = ("channel", "spatial", "heads", "reduction", "static", "spatial_gate", "channel_start", "normalized", "small")


class Form(nn.Module):
    r"""Filter a map by a static depthwise weight that predicted filters change.

    .. math::
        y = \mathrm{ddf}(x,\ W + a\, N(W_2\, \mathrm{relu}(W_1\, \mathrm{pool}(x))),\ 1 + b\, N(W_{sp}\, x))

    with gates a and b that start with zeros, so that the layer starts as the depthwise convolution.

    Args:
        channels: C.
        stride: pixels.
        channel: N of the channel filter: ``"filter"`` (FilterNorm), ``"tanh"`` or ``"none"``; ``""`` for no filter.
        spatial: N of the spatial filter, likewise.
        heads: spatial filters per pixel.
        reduction: width of the bottleneck as a share of C.
        static: have W; without it the filters are the gated predictions alone, and a starts with noise, b with ones.
        spatial_gate: ``"tap"``, one b per head and tap; ``"shared"``, the same divided by the square root of the number
            of channels that share it; ``"one"``, one number.
        channel_start: value of a at first.
        normalized: predict from the map less its mean, over its deviation, per channel and sample.
        small: start the predictions small, with a deviation of 0.01, not as a convolution in a ResNet.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        channel: str = "filter",
        spatial: str = "filter",
        heads: int = 1,
        reduction: float = 0.2,
        static: bool = True,
        spatial_gate: str = "tap",
        channel_start: float = 0.0,
        normalized: bool = False,
        small: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.stride, self.heads, self.normalized = channels, stride, heads, normalized
        self.kinds = {"channel": channel, "spatial": spatial}
        self.static, self.spatial_gate, self.small = static, spatial_gate, small
        if static:
            self.weight = nn.Parameter(torch.empty(channels, 1, KERNEL, KERNEL))
            nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        if channel:
            width = max(1, int(channels * reduction))
            self.reduce, self.expand = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels * TAPS, 1)
            self.channel_gate = nn.Parameter(torch.full((channels * TAPS,), channel_start))
            if not static:
                nn.init.normal_(self.channel_gate, std=(2 / TAPS) ** 0.5)
        if spatial:
            self.predict = nn.Conv2d(channels, heads * TAPS, 1, stride)
            count = 1 if spatial_gate == "one" else heads * TAPS
            self.gate = nn.Parameter(torch.full((count,), 0.0 if static else 1.0))

    def reset_zero_init(self) -> None:
        """Initialize the predictions again, after timm's initialisation of all convolutions."""
        if self.small:
            for name in ("expand", "predict"):
                if (layer := getattr(self, name, None)) is not None:
                    nn.init.normal_(layer.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        seen = x
        if self.normalized:
            deviation, mean = torch.std_mean(x, (2, 3), keepdim=True)
            seen = (x - mean) / (deviation + 1e-5)
        channel = spatial = None
        if self.kinds["channel"]:
            found = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).flatten(1).float()
            channel = self._norm(found, c, "channel") * self.channel_gate
            channel = channel.reshape(n, c, KERNEL, KERNEL)
        if self.static:
            weight = self.weight[:, 0].expand(n, -1, -1, -1)
            channel = weight if channel is None else weight + channel
        if self.kinds["spatial"]:
            gate = self.gate
            if self.spatial_gate == "shared":
                gate = gate / (c / self.heads) ** 0.5
            spatial = self._norm(self.predict(seen).float(), self.heads, "spatial") * gate[:, None, None]
            if self.static:
                spatial = spatial + 1
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        filters = (None if each is None else each.to(dtype) for each in (channel, spatial))
        return ddf(x.to(dtype), *filters, kernel_size=KERNEL, stride=self.stride, padding=1)

    def _norm(self, found: Tensor, filters: int, kind: str) -> Tensor:
        norm = self.kinds[kind]
        if norm == "filter":
            return filter_norm(found, filters, TAPS, kind, 1.0, None, 1e-6)
        return found.tanh() if norm == "tanh" else found


class Sum(nn.Module):
    """Return a depthwise convolution plus a gated DDF layer: two layers in the place of one."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, KERNEL, stride, 1, groups=channels, bias=False)
        self.ddf = DDF2d(channels, KERNEL, stride)
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(x) + self.gate[:, None, None] * self.ddf(x)


class FormBottleneck(Bottleneck):
    """Bottleneck of timm with a `Form` in place of its 3x3 convolution, or with ``sum=True`` a `Sum`."""

    conv2: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in _NAMES if name in kwargs}
        summed = kwargs.pop("sum", False)
        super().__init__(*args, **kwargs)
        conv = self.conv2
        self.conv2 = (
            Sum(conv.in_channels, conv.stride[0]) if summed else Form(conv.in_channels, conv.stride[0], **options)
        )

    def zero_init_last(self) -> None:
        super().zero_init_last()  # timm calls it of each block, after all convolutions were initialised
        if isinstance(self.conv2, Form):
            self.conv2.reset_zero_init()


MIXERS["form"] = FormBottleneck


_CFG = {"first_conv": "conv1", "classifier": "fc"}
default_cfgs = generate_default_cfgs({"form_resnet23": _CFG, "started_resnet23": _CFG})


@register_model
def form_resnet23(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    """Build `small_resnet23` of these blocks, under its own name, for their options are none of the package's."""
    network: SmallResNet = build_model_with_cfg(SmallResNet, "form_resnet23", pretrained, mixer="form", **kwargs)
    network.record_model_args(kwargs)
    return network


@register_model
def started_resnet23(
    pretrained: bool = False, predict: str = "timm", scale: str = "timm", **kwargs: Any
) -> SmallResNet:
    """Build `small_resnet23` with other starts of what predicts filters.

    Args:
        pretrained: as of every entry point.
        predict: ``"torch"`` gives the convolutions that predict filters PyTorch's own start, ``"timm"`` leaves timm's.
        scale: ``"depthwise"`` makes the scales of channel filters as small as depthwise weights are here.
        kwargs: options of `SmallResNet`.
    """
    network: SmallResNet = build_model_with_cfg(SmallResNet, "started_resnet23", pretrained, **kwargs)
    network.record_model_args({"predict": predict, "scale": scale, **kwargs})
    for layer in network.modules():
        if isinstance(layer, DDF2d):
            if predict == "torch":
                for part in layer.modules():
                    if isinstance(part, nn.Conv2d):
                        part.reset_parameters()
            if scale == "depthwise":
                nn.init.normal_(layer.channel.norm.scale, std=(2 / TAPS / layer.channels) ** 0.5)
    return network
