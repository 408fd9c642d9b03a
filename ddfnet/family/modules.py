"""Layers of other papers that load the weights of the code that they are known by."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.arguments import check_choice
from ddfnet.family.functional import dysample, involution
from ddfnet.family.taps import tap_views, window_geometry
from ddfnet.nn.branches import TapSoftmax, check_map
from ddfnet.nn.starts import with_start
from ddfnet.ops import ddf, ddf_upsample
from ddfnet.ops.geometry import Pair, default_padding, odd_pair, pair
from ddfnet.ops.recording import recordable


class CARAFE(nn.Module):
    r"""Upsampling by content-aware reassembly: softmax filters predicted from the map, the same for all channels.

    .. math::
        y = \mathrm{ddf\_upsample}(x, 1, D^{sp}), \qquad D^{sp} = \mathrm{softmax}(W_e * (W_c\, x))

    where :math:`W_c` is a 1x1 convolution that compresses the channels, and :math:`W_e` a convolution that predicts
    the K taps of each of the s*s sub-pixels of a pixel. Each filter is positive with sum 1.

    Args:
        channels: C of the input (N, C, H, W), from 1 on.
        scale_factor: s, an int or (h, w), from 1 on.
        up_kernel: taps of the predicted filters, an odd int or (h, w).
        up_group: filters per sub-pixel, each for C/up_group channels in a row; divides C.
        encoder_kernel: taps of the convolution that predicts them, an odd int or (h, w).
        encoder_dilation: pixels between those taps, an int or (h, w).
        compressed_channels: channels between the two convolutions, from 1 on.
        device: device of the parameters.
        dtype: dtype of the parameters.

    ``load_state_dict`` takes the weights of ``mmcv.ops.CARAFEPack``, whose arguments these are, as well as its own:
    mmcv's have other names and the predicted taps in another order, and are renamed and reordered as they are loaded.

    Returns:
        (N, C, s*H, s*W).

    Raises:
        ValueError: a wrong option; an input of another shape.
        TypeError: an input that is not a tensor; a size that is not an int.

    Example:
        >>> import torch
        >>> from ddfnet.family import CARAFE
        >>> layer = CARAFE(32, scale_factor=2)  # layer.load_state_dict(mmcv_layer.state_dict())
        >>> layer(torch.randn(2, 32, 8, 10)).shape
        torch.Size([2, 32, 16, 20])

    Source: Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019; the defaults are those of mmcv.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: Pair = 2,
        up_kernel: Pair = 5,
        up_group: int = 1,
        encoder_kernel: Pair = 3,
        encoder_dilation: Pair = 1,
        compressed_channels: int = 64,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        if up_group < 1 or channels % up_group:
            raise ValueError(f"up_group must divide channels, got {up_group=} and {channels=}")
        if compressed_channels < 1:
            raise ValueError(f"compressed_channels must be at least 1, got {compressed_channels}")
        self.channels, self.up_group = channels, up_group
        self.scale_factor = pair("scale_factor", scale_factor, 1)
        self.up_kernel = odd_pair("up_kernel", up_kernel)
        encoder = odd_pair("encoder_kernel", encoder_kernel)
        dilation = pair("encoder_dilation", encoder_dilation, 1)
        filters, taps = math.prod(self.scale_factor) * up_group, math.prod(self.up_kernel)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.compress = with_start(nn.Conv2d(channels, compressed_channels, 1, **factory), _start_compress)
        padding = default_padding(encoder, dilation)
        encode = nn.Conv2d(compressed_channels, filters * taps, encoder, padding=padding, dilation=dilation, **factory)
        self.encode = with_start(encode, _start_encode)
        self.norm = TapSoftmax(filters, taps)

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of CARAFE", x, self.channels)
        filters = self.norm(self.encode(self.compress(x)))
        return ddf_upsample(x, None, filters, scale_factor=self.scale_factor, kernel_size=self.up_kernel)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for theirs, ours in (("channel_compressor", "compress"), ("content_encoder", "encode")):
            for part in ("weight", "bias"):
                value = state_dict.pop(f"{prefix}{theirs}.{part}", None)
                if value is None:
                    continue
                if ours == "encode":
                    # mmcv's channels are tap by tap, and of a tap sub-pixel by sub-pixel; here sub-pixels come first.
                    value = value.unflatten(0, (-1, math.prod(self.scale_factor))).transpose(0, 1).flatten(0, 1)
                state_dict[f"{prefix}{ours}.{part}"] = value
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, scale_factor={self.scale_factor}, up_kernel={self.up_kernel}, up_group={self.up_group}"
        )


def _start_compress(conv: nn.Conv2d) -> None:
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


def _start_encode(conv: nn.Conv2d) -> None:
    """Initialize a convolution so that all filters are nearly averages."""
    nn.init.normal_(conv.weight, std=1e-3)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


class DySample(nn.Module):
    r"""Upsampling by learnt point samples: each output pixel says where on the map it is interpolated.

    .. math::
        y = \mathrm{dysample}(x, \Delta), \qquad \Delta = \tfrac14\,(W x + b) \quad \text{or} \quad
        \Delta = \tfrac12\, \sigma(W_s\, x) \odot (W x + b)

    with 1x1 convolutions; see `ddfnet.family.dysample`. It begins nearly as bilinear interpolation.

    Args:
        channels: C of the input (N, C, H, W).
        scale: s, from 1 on.
        style: ``"lp"``, offsets predicted at the input's size; ``"pl"``, from the pixels shuffled to the output's size,
            which has fewer parameters and needs C to be divided by s*s.
        groups: groups of channels that share their places; divides C.
        dyscope: second form, in which how far a place may move depends on the map (DySample+).
        device: device of the parameters.
        dtype: dtype of the parameters.

    ``load_state_dict`` takes the weights of the authors' ``DySample``, whose arguments these are.

    Returns:
        (N, C, s*H, s*W).

    Raises:
        ValueError: a wrong option; an input of another shape.
        TypeError: an input that is not a tensor.

    Example:
        >>> import torch
        >>> from ddfnet.family import DySample
        >>> DySample(32)(torch.randn(2, 32, 8, 10)).shape
        torch.Size([2, 32, 16, 20])

    Source: Liu et al., Learning to Upsample by Learning to Sample, ICCV 2023, section 3.2.
    """

    def __init__(
        self,
        channels: int,
        scale: int = 2,
        style: str = "lp",
        groups: int = 4,
        dyscope: bool = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("style", style, ("lp", "pl"))
        for name, value in (("scale", scale), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide channels, got {groups=} and {channels=}")
        if style == "pl" and channels % scale**2:
            raise ValueError(f"style='pl' needs channels that scale*scale divides, got {scale=} and {channels=}")
        self.channels, self.scale, self.style, self.groups = int(channels), int(scale), style, int(groups)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        pixels = scale**2
        sizes = (channels, 2 * groups * pixels) if style == "lp" else (channels // pixels, 2 * groups)
        self.offset = with_start(nn.Conv2d(*sizes, 1, **factory), _start_encode)
        self.scope = with_start(nn.Conv2d(*sizes, 1, bias=False, **factory), _start_scope) if dyscope else None

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of DySample", x, self.channels)
        shuffled = _shuffle(x, self.scale) if self.style == "pl" else x
        offset = self.offset(shuffled)
        offset = offset / 4 if self.scope is None else offset * self.scope(shuffled).sigmoid() / 2
        if self.style == "pl":
            offset = _unshuffle(offset, self.scale)
        return dysample(x, offset, self.scale).to(offset.dtype)  # a half type under autocast

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        state_dict.pop(f"{prefix}init_pos", None)  # the authors' places without offsets, which follow from the scale
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"{self.channels}, scale={self.scale}, style={self.style!r}, groups={self.groups}"


def _shuffle(x: Tensor, scale: int) -> Tensor:
    """Return ``F.pixel_shuffle(x, scale)``, whose gradient raises for an empty batch in torch 2.14.1."""
    return x.unflatten(1, (-1, scale, scale)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def _unshuffle(x: Tensor, scale: int) -> Tensor:
    """Return ``F.pixel_unshuffle(x, scale)``, likewise."""
    return x.unflatten(3, (-1, scale)).unflatten(2, (-1, scale)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _start_scope(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)


class _ConvModule(nn.Module):
    """mmcv's block: a 1x1 convolution, then a batch norm and ReLU where it has no bias."""

    def __init__(self, channels: int, out_channels: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x))


class Involution(nn.Module):
    r"""RedNet's involution: its arguments, its weights, its results, on any device.

    .. math::
        y = \mathrm{involution}(x, W_2\, \mathrm{relu}(\mathrm{bn}(W_1\, x_{\downarrow})))

    with :math:`x_\downarrow` the map, averaged over stride x stride pixels.

    Args:
        channels: C of the input (N, C, H, W), a multiple of ``group_channels``.
        kernel_size: taps per side, odd.
        stride: pixels; divides H and W.
        group_channels: channels that share a filter.
        reduction: divisor of the channels between the two convolutions.

    Returns:
        (N, C, H/stride, W/stride).

    Raises:
        ValueError: channels that are no multiple, an even kernel, a stride that does not divide the map, an input of
            another shape; TypeError: no tensor.

    Example:
        >>> import torch
        >>> from ddfnet.family import Involution
        >>> layer = Involution(64, kernel_size=7, stride=2)  # layer.load_state_dict(rednet_layer.state_dict())
        >>> layer(torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 64, 7, 7])

    Source: Li et al., Involution: Inverting the Inherence of Convolution for Visual Recognition, CVPR 2021; keys of
    d-li14/involution.
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int, group_channels: int = 16, reduction: int = 4
    ) -> None:
        super().__init__()
        if channels % group_channels or channels < reduction:
            raise ValueError(
                f"channels must be a multiple of group_channels and at least reduction, got {channels=}, "
                f"{group_channels=}, {reduction=}"
            )
        odd_pair("kernel_size", kernel_size)
        pair("stride", stride, 1)
        self.channels, self.kernel_size, self.stride = channels, kernel_size, stride
        self.conv1 = _ConvModule(channels, channels // reduction, norm=True)
        self.conv2 = _ConvModule(channels // reduction, kernel_size**2 * (channels // group_channels), norm=False)

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of Involution", x, self.channels)
        _check_divides(self.stride, x)
        smaller = x if self.stride == 1 else F.avg_pool2d(x, self.stride)
        return involution(x, self.conv2(self.conv1(smaller)), self.kernel_size, self.stride)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class JBU(nn.Module):
    r"""FeatUp's joint bilateral upsampler with a learnt range kernel: its weights and results without its extension.

    .. math::
        w_{pq} \propto e^{-\lVert p - q \rVert^2 / 2 \sigma^2}\,
        \mathrm{softmax}_q\left(\tau \langle f(g_p), f(g_q) \rangle\right), \qquad
        y_p = \sum_q (w_{pq} + 0.1\, h(w_p, g_p)_q)\; \mathrm{bicubic}(x)_q

    with reflected borders, and distances in half widths of the window.

    Args:
        guidance_dim: Cg of the guide (N, Cg, H, W).
        feat_dim: C of the features (N, C, h, w); no weight depends on it.
        key_dim: channels of f.
        scale: has no effect: the result has the guide's size.
        radius: radius of the window, which has 2*radius + 1 taps per side.

    ``forward(source, guidance)``:

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: features or a guide of another shape, a guide smaller than the window, another N; TypeError as
            `ddfnet.ddf`.

    Example:
        >>> import torch
        >>> from ddfnet.family import JBU
        >>> layer = JBU(3, 16, 32)  # layer.load_state_dict(...) of a JBULearnedRange
        >>> layer(torch.randn(1, 16, 8, 8), torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 16, 16, 16])

    Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024, section 3.2; keys
    of its ``JBULearnedRange``.
    """

    def __init__(self, guidance_dim: int, feat_dim: int, key_dim: int, scale: int = 2, radius: int = 3) -> None:
        super().__init__()
        self.guidance_dim, self.feat_dim = guidance_dim, feat_dim
        self.radius, self.diameter = radius, 2 * radius + 1
        taps = self.diameter**2
        self.range_temp = nn.Parameter(torch.empty(()))
        self.range_proj = _mlp(guidance_dim, key_dim)
        self.fixup_proj = _mlp(guidance_dim + taps, taps)
        self.sigma_spatial = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize temperature and width as FeatUp does: the temperature is the exponential of 0, the width 1."""
        nn.init.zeros_(self.range_temp)
        nn.init.ones_(self.sigma_spatial)

    def forward(self, source: Tensor, guidance: Tensor) -> Tensor:
        check_map("the features of JBU", source, self.feat_dim)
        check_map("the guide of JBU", guidance, self.guidance_dim)
        _check_guide(source, guidance, self.radius)
        size = (guidance.shape[2], guidance.shape[3])
        filters = self._range(guidance) * _nearness(self.sigma_spatial, self.diameter)
        filters = filters / filters.sum(1, keepdim=True).clamp(1e-7)
        filters = filters + 0.1 * self.fixup_proj(torch.cat([filters, guidance], 1))
        larger = F.interpolate(source, size, mode="bicubic", align_corners=False)
        return ddf(self._padded(larger), None, filters, kernel_size=self.diameter, padding=0)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, [self.radius] * 4, mode="reflect")

    def _range(self, guide: Tensor) -> Tensor:
        """Return how alike the projected guide is at each tap, (N, K, H, W)."""
        keys, temperature = self.range_proj(guide), self.range_temp.exp().clamp(1e-4, 1e4)
        return (temperature * _products(keys, self._padded(keys), self.diameter)).softmax(1)


class JBUStack(nn.Module):
    """FeatUp's upsampler by a factor of sixteen: four `JBU` in a row, each by two, and a correction.

    Args:
        feat_dim: C of the features (N, C, h, w).

    ``forward(source, guidance)`` with a guide (N, 3, H, W) of any size, averaged to that of each step:

    Returns:
        (N, C, 16*h, 16*w).

    Raises:
        ValueError, TypeError: as `JBU`.

    Example:
        >>> import torch
        >>> from ddfnet.family import JBUStack
        >>> stack = JBUStack(8).eval()  # stack.load_state_dict(...) of FeatUp's JBUStack
        >>> stack(torch.randn(1, 8, 4, 4), torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 8, 64, 64])

    Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024; keys of its
    ``JBUStack``.
    """

    def __init__(self, feat_dim: int) -> None:
        super().__init__()
        self.feat_dim = feat_dim
        self.up1, self.up2, self.up3, self.up4 = (JBU(3, feat_dim, 32) for _ in range(4))
        self.fixup_proj = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(feat_dim, feat_dim, 1))

    def forward(self, source: Tensor, guidance: Tensor) -> Tensor:
        check_map("the features of JBUStack", source, self.feat_dim)
        check_map("the guide of JBUStack", guidance, 3)
        for up in (self.up1, self.up2, self.up3, self.up4):
            source = up(source, F.adaptive_avg_pool2d(guidance, (2 * source.shape[2], 2 * source.shape[3])))
        return source + 0.1 * self.fixup_proj(source)


@recordable
def _check_divides(stride: int, x: Tensor) -> None:
    if x.shape[2] % stride or x.shape[3] % stride:
        raise ValueError(f"stride={stride} must divide the map, got {tuple(x.shape)}")


@recordable
def _check_guide(source: Tensor, guidance: Tensor, radius: int) -> None:
    if min(guidance.shape[2:]) <= radius or source.shape[0] != guidance.shape[0]:
        raise ValueError(
            f"the guide must be (N, Cg, H, W) with N = {source.shape[0]}, H and W above {radius}, got "
            f"{tuple(guidance.shape)}"
        )


@recordable
def _products(keys: Tensor, padded: Tensor, diameter: int) -> Tensor:
    """Return the scalar product of each pixel's key and that at each tap, (N, K, H, W)."""
    geometry = window_geometry((padded.shape[2], padded.shape[3]), diameter, padding=0)
    return torch.stack([(view * keys).sum(1) for view in tap_views(padded, geometry)], 1)


@recordable
def _nearness(sigma: Tensor, diameter: int) -> Tensor:
    """Return the nearness of each tap, (K, 1, 1)."""
    away = torch.linspace(-1, 1, diameter, device=sigma.device, dtype=sigma.dtype)
    squares = away[:, None] ** 2 + away**2
    return (-squares / (2 * sigma**2)).exp().reshape(-1, 1, 1)


def _mlp(channels: int, out_channels: int) -> nn.Sequential:
    """Return FeatUp's two 1x1 convolutions."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(out_channels, out_channels, 1)
    )
