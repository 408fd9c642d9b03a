"""Upsampling with decoupled dynamic filters, one for each sub-pixel of the enlarged map."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn import starts
from ddfnet.nn.branches import ChannelBranch, SpatialBranch, check_channels, check_map
from ddfnet.ops import ddf_upsample
from ddfnet.ops.geometry import Combine, Pair, accumulate_dtype, odd_pair, pair
from ddfnet.ops.recording import recordable

SOFT = 0.045  # share of all pixels of a window alike in softmax filters that begin as an interpolation


class DDFUpsample2d(nn.Module):
    r"""Upsampling with filters predicted from the map itself or from a guide: the DDF-Up module.

    .. math::
        y = \mathrm{ddf\_upsample}(x, D^{ch}, D^{sp}), \qquad D^{sp} = \mathrm{norm}(W_{sp}\, g)

    with filters of their own for the s*s sub-pixels of a pixel. The channel filters are predicted from x, the spatial
    filters from g: a 3x3 depthwise convolution x' of x or, with ``guide_channels``, the guide; with ``from_map`` from
    both, ``norm(W_sp g + W_x x')``.

    Args:
        channels: C of the input (N, C, H, W), from 1 on.
        scale_factor: an int or (h, w), from 1 on.
        guide_channels: Cg of the guide (N, Cg, h, w); None is no guide.
        kernel_size: taps, an odd int or (h, w).
        heads: spatial filters per sub-pixel, each for channels/heads channels in a row; divides ``channels``.
        reduction: width of the channel branch's bottleneck as a share of ``channels``, above 0; at least one wide.
        combine: how the two filters meet, tap by tap, ``"mul"`` or ``"add"``.
        norm: how predicted filters are normalised, see `DDF2d`.
        guide_at: where the guide is read: ``"input"`` resizes it to x, and one pixel of it predicts the filters of all
            the sub-pixels; ``"output"`` resizes it to the enlarged map, and each sub-pixel's filters are predicted from
            its own pixel. Both have the same parameters.
        from_map: predict spatial filters from the map besides the guide.
        padding_mode: ``"zeros"`` around the map, or its border repeated (``"replicate"``), which leaves the borders of
            an enlarged map as bright as the rest.
        init: ``"nearest"`` or ``"bilinear"`` initialises the layer as that interpolation (``align_corners=False``),
            which learns to adapt: the weights that predict the filters are zero at first. It needs ``norm="none"``, or
            ``"softmax"``, and for bilinear interpolation three taps or more and ``padding_mode="replicate"``. With
            ``"softmax"``, here of the spatial filters alone, the layer begins near the interpolation, for no tap is
            zero. None is random.
        device: device of the parameters.
        dtype: dtype of the parameters.

    ``forward(x, guide=None)`` takes a guide of any size and resizes it bilinearly, with antialiasing.

    Returns:
        (N, C, s*H, s*W).

    Raises:
        ValueError: a wrong option; one tap with ``norm="filter"``; an input or guide of another shape; a guide without
            ``guide_channels``, or none with it.
        TypeError: an input or guide that is not a tensor; a guide that is not floating; a size that is not an int.

    Example:
        >>> import torch
        >>> from ddfnet.nn import DDFUpsample2d
        >>> DDFUpsample2d(32)(torch.randn(2, 32, 20, 30)).shape
        torch.Size([2, 32, 40, 60])
        >>> joint = DDFUpsample2d(1, scale_factor=4, guide_channels=3, guide_at="output")
        >>> joint(torch.randn(2, 1, 20, 30), guide=torch.rand(2, 3, 80, 120)).shape
        torch.Size([2, 1, 80, 120])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6 and figure 5. In its code each
    sub-pixel has a depthwise convolution of its own (`ddfnet.compat.DDFUpPack`); here they share one.
    ``guide_at="output"`` is ours.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: Pair = 2,
        *,
        guide_channels: int | None = None,
        kernel_size: Pair = 3,
        heads: int = 1,
        reduction: float = 0.2,
        combine: str = "mul",
        norm: str = "filter",
        guide_at: str = "input",
        from_map: bool = False,
        padding_mode: str = "zeros",
        init: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels, heads)
        if guide_channels is not None and guide_channels < 1:
            raise ValueError(f"guide_channels must be None or at least 1, got {guide_channels}")
        if guide_at not in ("input", "output"):
            raise ValueError(f"guide_at must be 'input' or 'output', got {guide_at!r}")
        if guide_at == "output" and guide_channels is None:
            raise ValueError("guide_at='output' needs a guide: give guide_channels")
        if from_map and guide_channels is None:
            raise ValueError("from_map=True adds to a guide: give guide_channels, or leave from_map out")
        self.channels, self.guide_channels, self.heads = channels, guide_channels, heads
        self.combine = Combine(combine)
        self.guide_at = guide_at
        self.scale_factor = pair("scale_factor", scale_factor, 1)
        self.kernel_size = odd_pair("kernel_size", kernel_size)
        if padding_mode not in ("zeros", "replicate"):
            raise ValueError(f"padding_mode must be 'zeros' or 'replicate', got {padding_mode!r}")
        self.padding_mode = padding_mode
        subpixels = self.scale_factor[0] * self.scale_factor[1]
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"nonlinearity": "linear", **factory}
        spatial_fill = channel_fill = None
        if init is not None:
            self._check_init(init, norm)
            geometry = self.scale_factor, self.kernel_size, heads
            spatial_fill = functools.partial(_fill_interpolation, init=init, geometry=geometry, norm=norm)
            channel_fill = functools.partial(nn.init.constant_, val=self.combine.identity)

        self.depthwise: nn.Conv2d | None = None
        if guide_channels is None or from_map:
            self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, **factory)
        width, groups = guide_channels or channels, 1
        if guide_at == "output":
            width, groups = width * subpixels, subpixels  # one group per sub-pixel
        self.spatial = SpatialBranch(
            width,
            subpixels * heads,
            self.kernel_size,
            groups=groups,
            fill=spatial_fill,
            beside=channels if from_map else None,
            norm=norm,
            **options,
        )
        channel_norm = "none" if init is not None else norm
        self.channel = ChannelBranch(
            channels,
            self.kernel_size,
            num_sets=subpixels,
            reduction=reduction,
            fill=channel_fill,
            norm=channel_norm,
            **options,
        )

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        check_map("the input of DDFUpsample2d", x, self.channels)
        channel = self.channel(x).unflatten(1, (-1, self.channels))
        spatial = self._spatial(x, guide)
        (around_y, around_x), (sh, sw) = (k // 2 for k in self.kernel_size), self.scale_factor
        replicate = self.padding_mode == "replicate"
        if replicate:
            x, spatial = (_replicate(each, around_y, around_x) for each in (x, spatial))
        y = ddf_upsample(
            x,
            channel,
            spatial,
            scale_factor=self.scale_factor,
            kernel_size=self.kernel_size,
            combine=self.combine,
        )
        if replicate:  # cut off the results of the added pixels
            height, width = y.shape[2:]
            y = y[:, :, around_y * sh : height - around_y * sh, around_x * sw : width - around_x * sw]
        return y

    def _check_init(self, init: str, norm: str) -> None:
        if init not in ("nearest", "bilinear"):
            raise ValueError(f"init must be 'nearest', 'bilinear' or None, got {init!r}")
        if norm not in ("none", "softmax"):
            raise ValueError(
                f"init={init!r} needs norm='none' or 'softmax', because another norm changes the filters, got {norm!r}"
            )
        if init == "bilinear" and (min(self.kernel_size) < 3 or self.padding_mode != "replicate"):
            raise ValueError(
                "init='bilinear' needs a kernel of 3 taps or more and padding_mode='replicate', got "
                f"kernel_size={self.kernel_size} and padding_mode={self.padding_mode!r}"
            )

    def _spatial(self, x: Tensor, guide: Tensor | None) -> Tensor:
        if self.guide_channels is None:
            assert self.depthwise is not None
            _check_no_guide(guide)
            filters: Tensor = self.spatial(self.depthwise(x))
            return filters
        _check_guide(guide, x, self.guide_channels)
        assert guide is not None
        around = None if self.depthwise is None else self.depthwise(x)
        joint: Tensor = self.spatial(self._resized(guide, x), around)
        return joint

    def _resized(self, guide: Tensor, x: Tensor) -> Tensor:
        """Return the guide at the size of x, with the pixels of sub-pixels as channels if it is read there."""
        height, width = x.shape[2:]
        if self.guide_at == "input":
            return resize(guide, height, width)
        sh, sw = self.scale_factor
        return to_subpixel_major(resize(guide, height * sh, width * sw), (sh, sw))

    def extra_repr(self) -> str:
        guide = f", guide_channels={self.guide_channels}, guide_at={self.guide_at!r}" if self.guide_channels else ""
        guide += ", from_map=True" * (self.spatial.beside is not None)
        return (
            f"{self.channels}, scale_factor={self.scale_factor}, kernel_size={self.kernel_size}, heads={self.heads}, "
            f"combine={self.combine!r}{guide}"
        )


def _fill_interpolation(
    bias: Tensor, init: str, geometry: tuple[tuple[int, int], tuple[int, int], int], norm: str
) -> None:
    """Fill a bias with the spatial filters of an interpolation, (s*s*heads*K,), for scale factor, kernel and heads."""
    scale_factor, kernel_size, heads = geometry
    rows, columns = (_axis_taps(scale, kernel, init) for scale, kernel in zip(scale_factor, kernel_size, strict=True))
    taps = torch.einsum("ak,bl->abkl", rows, columns).flatten(0, 1)  # sub-pixels, rows, columns
    if norm == "softmax":
        taps = (taps + SOFT / taps[0].numel()).log()  # a tap of zero would have no gradient
    starts.fill(bias, taps[:, None].expand(-1, heads, -1, -1).flatten())


def _axis_taps(scale: int, kernel: int, init: str) -> Tensor:
    """Return the taps from which each sub-pixel is interpolated along one axis, (scale, kernel)."""
    taps = torch.zeros(scale, kernel)
    # Pixels from the center of the pixel to that of the sub-pixel.
    offsets = (torch.arange(scale) + 0.5) / scale - 0.5
    if init == "nearest":
        offsets = torch.zeros(scale)
    for tap in range(kernel):
        taps[:, tap] = (1 - (offsets - (tap - kernel // 2)).abs()).clamp(min=0)
    return taps


@recordable
def _check_no_guide(guide: Any) -> None:
    if guide is not None:
        raise ValueError("this DDFUpsample2d takes no guide: give it guide_channels when you build it")


@recordable
def _check_guide(guide: Any, x: Tensor, channels: int) -> None:
    if guide is None:
        raise ValueError(f"this DDFUpsample2d needs a guide (N, {channels}, h, w): call it with (x, guide)")
    check_map("the guide of DDFUpsample2d", guide, channels)
    if guide.shape[0] != x.shape[0]:
        raise ValueError(f"the guide must have N = {x.shape[0]} as the input has, got {tuple(guide.shape)}")
    if guide.shape[2] < 1 or guide.shape[3] < 1:
        raise ValueError(f"the guide must have at least one pixel, got {tuple(guide.shape)}")
    if not guide.is_floating_point():
        raise TypeError(f"the guide must be floating, got {guide.dtype}; convert it, as in guide.to(x.dtype) / 255")


@recordable
def _replicate(x: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the border pixels of a map on each side; PyTorch refuses a map without samples."""
    if 0 in x.shape[2:]:
        return x  # the operator says what is wrong
    if not x.shape[0]:
        return x.new_empty(*x.shape[:2], x.shape[2] + 2 * rows, x.shape[3] + 2 * columns)
    return F.pad(x, (columns, columns, rows, rows), mode="replicate")


def to_subpixel_major(x: Tensor, scale: tuple[int, int]) -> Tensor:
    """Reorder (N, C, sh*H, sw*W) to (N, sh*sw*C, H, W), sub-pixel major as `ddf_upsample` takes it."""
    n, c, height, width = x.shape
    sh, sw = scale
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        # By slices, whose derivatives are slower in eager mode: a convolution saves the permuted view, and Inductor
        # (torch 2.14.1) cannot lower a saved view with symbolic strides.
        return torch.cat([x[:, :, row::sh, column::sw] for row in range(sh) for column in range(sw)], 1)
    subpixels = x.reshape(n, c, height // sh, sh, width // sw, sw).permute(0, 3, 5, 1, 2, 4)
    return subpixels.reshape(n, sh * sw * c, height // sh, width // sw)


@recordable
def resize(guide: Tensor, height: int, width: int) -> Tensor:
    """Resize a map bilinearly, with antialiasing where it shrinks."""
    if guide.shape[2:] == (height, width):
        return guide
    # PyTorch has no antialiasing in half types on the CPU.
    resized = F.interpolate(guide.to(accumulate_dtype(guide.dtype)), (height, width), mode="bilinear", antialias=True)
    return resized.to(guide.dtype)
