"""DDF-Up-Net: guided upsampling of depth maps by one DDF-Up per factor of two."""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.arguments import check_range
from ddfnet.depth import back_projection
from ddfnet.depth.planes import Planes
from ddfnet.depth.samples import local_range
from ddfnet.depth.sizes import Region, pad_region, relative_region, scale_region
from ddfnet.depth.stage import Block, Carried, Stage, channels_last, convs, cut
from ddfnet.depth.valid import valid_depth
from ddfnet.nn.branches import check_map, check_norm
from ddfnet.nn.starts import with_start
from ddfnet.ops.geometry import Combine
from ddfnet.ops.recording import recordable
from ddfnet.pretrained import PretrainedMixin, load, register_kind
from ddfnet.pretrained.options import check_option, integer

_HINTS = 4  # channels that describe the depth, see `_describe`
_RADIUS = 2  # samples on each side, in the window in which the depth is described
_TYPICAL = 1000  # one in so many depths is left out at either end of the range that the network sees
_FILTERS = ("both", "spatial", "channel")
_UPSAMPLERS = ("ddf", "bilinear")


class Level(NamedTuple):
    """Depth (N, 1, H, W) after a stage, and its validity, bool."""

    depth: Tensor
    valid: Tensor


class DepthNetwork(nn.Module):
    """Base of the networks that ``ddfnet train depth`` can train: `GuidedUpsampler`, and any that it is compared with.

    Attributes:
        scale_factor: largest factor, a power of two.
    """

    scale_factor: int

    def upsample(
        self,
        depth: Tensor,
        guide: Tensor,
        valid: Tensor | None = None,
        *,
        scale_factor: int | None = None,
        samples: str = "point",
    ) -> Level:
        """Return the depth at the guide's size, for samples taken in a way of `ddfnet.depth.samples`.

        Args:
            depth: (N, 1, h, w), floating, in any unit.
            guide: (N, 3, s*h, s*w), floating, from 0 to 1.
            valid: (N, 1, h, w), bool; all by default.
            scale_factor: s, a power of two up to the network's own, which is the default.
            samples: way of sampling. Point i lies on pixel ``i*s + (s - 1)//2``; an average in the middle of its block.
        """
        raise NotImplementedError

    def levels(
        self, depth: Tensor, guide: Tensor, valid: Tensor | None = None, *, scale_factor: int | None = None
    ) -> list[Level]:
        """Return the depth of points after each stage, from coarse to fine; one that has no stages is one stage."""
        return [self.upsample(depth, guide, valid, scale_factor=scale_factor)]


class Pixels(NamedTuple):
    """Depth (N, 1, H, W) at pixels, its slope (N, 2, H, W) along y and x or None, and its validity (N, 1, H, W), bool.

    Args:
        depth: depth.
        slope: slope per pixel, where the network carries planes.
        valid: validity.
    """

    depth: Tensor
    slope: Tensor | None
    valid: Tensor


_FILE_OPTIONS = {  # numbers that a file may have
    "scale_factor": integer(2, 2**10),
    "channels": integer(2, 2**12),
    "guide_channels": integer(2, 2**12),
    "kernel_size": integer(3, 31),
    "blocks": integer(0, 2**8),
    "coarse_blocks": integer(0, 2**8),
}


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check the sizes that a file gives to `GuidedUpsampler`."""
    for name, rule in _FILE_OPTIONS.items():
        check_option(name, arguments.get(name), {name: rule})


@register_kind("depth", check_options=check_arguments)
class GuidedUpsampler(DepthNetwork, PretrainedMixin):
    r"""Network that upsamples a depth map with filters predicted from it and from an image of the same scene.

    .. math::
        t_s = \mathrm{trunk}(f_s, g_s), \qquad D^{sp}_s = \mathrm{softmax}(W_s\, t_s), \\
        d_{s+1} = \mathrm{ddf\_upsample}(d_s, -, D^{sp}_s), \qquad
        f_{s+1} = \mathrm{ddf\_upsample}(t_s, D^{ch}_s, D^{sp}_s)

    for each factor of two, where g is the guidance branch's map at the stage's input size and f the target branch's
    features. The depth is carried from stage to stage by filters that are positive with sum 1, so that every output is
    an average of valid depths near it: constants stay, nothing overshoots, and a pixel whose filter chooses one side of
    an edge is on that side. ``carry=False`` is the form of the paper, in which the features alone bring the depth to
    the prediction head. The head predicts the difference to bilinear interpolation, in units of the range of the depths
    nearby; each stage has one, so that a training can supervise the depth at every size. Without either it hardly
    learns. In this form the output has no such bounds.

    One network serves several factors: the finest stages of an 8x network are a 4x network, and are trained as one
    where a training draws its factor step by step.

    Args:
        scale_factor: the largest factor, a power of two from 2 on.
        channels: channels of the features.
        guide_channels: channels of the guidance branch.
        kernel_size: kernel size of all filters, odd.
        blocks: residual blocks per trunk.
        coarse_blocks: residual blocks per trunk of the stages before the last, where they cost a quarter and less; None
            for as many as ``blocks``.
        filters: filters of the features' DDF-Up, ``"both"``, ``"spatial"`` or ``"channel"``.
        combine: combine mode of the two, ``"mul"`` or ``"add"``.
        norm: normalisation of the features' spatial filters, see `DDF2d`. With ``"softmax"`` they are those that carry
            the depth; with another the features have spatial filters of their own. ``"filter"`` normalises the channel
            filters too; otherwise a channel filter is a learnt one plus a prediction from the pooled target features.
        carry: whether the softmax filters carry the depth.
        upsampler: ``"ddf"``, or ``"bilinear"`` for the plain network that DDF-Up is compared with: features and depth
            are upsampled bilinearly, and the trunks, which read the same guide, add corrections to the depth. It has no
            filters, so ``filters``, ``combine``, ``norm`` and ``carry`` must be left alone.

    ``forward(depth, guide, valid=None, *, scale_factor=None)`` takes depth (N, 1, h, w), floating, in any unit; a guide
    (N, 3, s*h, s*w), floating, from 0 to 1; which depths are valid, (N, 1, h, w), bool, all of them by default, and
    never nan or inf; and s, a power of two up to the network's own, which is the default. The value of an invalid depth
    does not matter. Sample i of the depth lies on pixel ``i*s + (s - 1)//2`` of the guide.

    Returns:
        `Level`: the depth (N, 1, s*h, s*w) in the same unit, in float32, 0 where no valid depth is near; and where it
        is valid, bool.

    Raises:
        ValueError: a wrong option; wrong shapes.
        TypeError: an argument that is not a tensor, or not floating.

    Example:
        >>> import torch
        >>> from ddfnet.depth.network import GuidedUpsampler
        >>> network = GuidedUpsampler(scale_factor=4)
        >>> depth, valid = network(torch.rand(2, 1, 24, 32), torch.rand(2, 3, 96, 128))
        >>> depth.shape
        torch.Size([2, 1, 96, 128])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6, figure 6b and table 7: one DDF-Up
    per factor of two between a target branch, a guidance branch and a prediction head. Channels, kernel sizes and the
    resolution of the guide are open there; the carried depth is ours.
    """

    def __init__(
        self,
        scale_factor: int = 8,
        *,
        channels: int = 32,
        guide_channels: int = 32,
        kernel_size: int = 3,
        blocks: int = 1,
        coarse_blocks: int | None = None,
        filters: str = "both",
        combine: str = "mul",
        norm: str = "softmax",
        carry: bool = True,
        upsampler: str = "ddf",
    ) -> None:
        super().__init__()
        stages = scale_factor.bit_length() - 1 if isinstance(scale_factor, int) else 0
        if stages < 1 or scale_factor != 2**stages:
            raise ValueError(f"scale_factor must be a power of two from 2 on, got {scale_factor!r}")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size}")
        if filters not in _FILTERS:
            raise ValueError(f"filters must be 'both', 'spatial' or 'channel', got {filters!r}")
        if upsampler not in _UPSAMPLERS:
            raise ValueError(f"upsampler must be 'ddf' or 'bilinear', got {upsampler!r}")
        Combine(combine)  # raises where there is no such mode
        check_norm(norm)
        for name, value in (("channels", channels), ("guide_channels", guide_channels)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        for name, count in (("blocks", blocks), ("coarse_blocks", coarse_blocks)):
            if count is not None and count < 0:
                raise ValueError(f"{name} must not be negative, got {count}")
        if upsampler == "bilinear" and (filters, combine, norm, carry) != ("both", Combine.mul, "softmax", True):
            raise ValueError(
                "upsampler='bilinear' has no filters: leave filters, combine, norm and carry as they are, "
                f"got {filters=}, {combine=}, {norm=}, {carry=}"
            )
        self.scale_factor = scale_factor
        self.target = nn.Sequential(*convs(_HINTS, channels, channels, channels))
        self.guidance = nn.ModuleList([nn.Sequential(*convs(12, guide_channels, guide_channels))])
        for _ in range(stages - 1):
            self.guidance.append(nn.Sequential(*convs(guide_channels, guide_channels, guide_channels, stride=2)))
        head = not carry and upsampler == "ddf"
        options: dict[str, Any] = {"filters": filters, "combine": combine, "norm": norm, "kernel_size": kernel_size}
        counts = [blocks] + [blocks if coarse_blocks is None else coarse_blocks] * (stages - 1)
        self.stages = nn.ModuleList(
            # The last stage returns the depth itself, or the features that its head reads.
            Stage(channels, guide_channels, count, carry, upsampler, features_too=number > 0 or head, **options)
            for number, count in enumerate(counts)
        )
        # The heads of the coarse stages serve the training alone: their outputs are not handed on.
        self.heads = nn.ModuleList([_head(channels) for _ in range(stages)]) if head else None

    def forward(
        self, depth: Tensor, guide: Tensor, valid: Tensor | None = None, *, scale_factor: int | None = None
    ) -> Level:
        return self.levels(depth, guide, valid, scale_factor=scale_factor)[-1]

    def levels(
        self, depth: Tensor, guide: Tensor, valid: Tensor | None = None, *, scale_factor: int | None = None
    ) -> list[Level]:
        """Return the depth after each stage, from coarse to fine; the last is what `forward` returns."""
        scale_factor = self.scale_factor if scale_factor is None else scale_factor
        scaled, mask, lowest, span = self._scaled(depth, guide, valid, scale_factor)
        return [
            Level(torch.where(level.valid, level.depth * span + lowest, 0), level.valid)
            for level in self.scaled_levels(scaled, mask, guide, self.context(scaled, mask), scale_factor)
        ]

    def upsample(
        self,
        depth: Tensor,
        guide: Tensor,
        valid: Tensor | None = None,
        *,
        scale_factor: int | None = None,
        samples: str = "point",
    ) -> Level:
        """Return the depth of the finest stage as `ddfnet.upsample_depth` makes it: of planes, and fitted to averages.

        Args:
            depth, guide, valid, scale_factor: those of ``forward``.
            samples: way in which the samples were taken, see `ddfnet.depth.samples`. Of averages, sample i lies in the
                middle of its block; points lie where ``forward`` has them.
        """
        scale_factor = self.scale_factor if scale_factor is None else scale_factor
        scaled, mask, lowest, span = self._scaled(depth, guide, valid, scale_factor)
        found = self.scaled_pixels(scaled, mask, guide, self.context(scaled, mask), scale_factor, samples)
        upsampled = found.depth
        if samples == "point" and found.slope is not None:
            # The planes have the sample in the middle of its block, 0.5 pixels below and right of its pixel.
            upsampled = upsampled + found.slope.sum(1, keepdim=True) / 2
        return Level(torch.where(found.valid, upsampled * span + lowest, 0), found.valid)

    def sharpened(self, sharpness: float) -> GuidedUpsampler:
        r"""Return a copy whose filters are sharper.

        .. math::
            w_i = \frac{e^{\beta l_i}}{\sum_j e^{\beta l_j}}

        of the logits l of each filter. A larger :math:`\beta` moves the weight to the samples that the network thinks
        most likely, and so to one side of an edge. The filters stay positive with sum 1.

        Args:
            sharpness: :math:`\beta`, above 0; 1 is the network as it was trained.

        Raises:
            ValueError: another number; a network whose filters do not carry the depth, see `carries_depth`.

        Example:
            >>> import torch
            >>> from ddfnet.depth.network import GuidedUpsampler
            >>> network = GuidedUpsampler(scale_factor=4)
            >>> sharp = network.sharpened(4)
            >>> bool(sharp.stages[0].logits.bias.equal(4 * network.stages[0].logits.bias))
            True
        """
        check_range("sharpness", sharpness, 0, open_low=True)
        if not self.carries_depth:
            options = ", ".join(f"{name}={self.init_args[name]!r}" for name in ("carry", "upsampler"))
            raise ValueError(f"sharpness needs a network whose filters carry the depth, got one of {options}")
        other = copy.deepcopy(self)
        with torch.no_grad():
            for stage in other.stages:
                for parameter in cast(nn.Conv2d, stage.logits).parameters():
                    parameter.mul_(sharpness)
        return other

    def begin_with(self, trained: GuidedUpsampler) -> None:
        """Copy the weights of a network of the same options, which may have fewer coarse blocks.

        The blocks that it lacks come first in their trunks and begin without a residual.

        Raises:
            ValueError: the options differ.
        """
        own, theirs = self.init_args, trained.init_args
        blocks, others = ([cast(Stage, stage).blocks for stage in each.stages] for each in (self, trained))
        more = [len(mine) - len(other) for mine, other in zip(blocks, others, strict=False)]
        free = ("coarse_blocks",) if min(more) >= 0 else ()
        if different := [
            f"{name} = {theirs[name]!r}" for name in theirs if name not in free and theirs[name] != own[name]
        ]:
            raise ValueError(f"the network must have the options of its weights, {', '.join(different)}")
        weights = {}
        for name, weight in trained.state_dict().items():
            if (found := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(.*)", name)) is not None:
                number, block = int(found[1]), int(found[2])
                name = f"stages.{number}.blocks.{block + more[number]}.{found[3]}"
            weights[name] = weight
        self.load_state_dict(weights, strict=False)
        with torch.no_grad():
            for trunk, new in zip(blocks, more, strict=True):
                for each in trunk[:new]:
                    cast(Block, each).second.weight.zero_()

    def context(self, scaled: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the target features, (N, C, 1, 1), from which the channel filters are predicted.

        Args:
            scaled: depth (N, 1, h, w), from 0 to 1 over the map's `typical_range`, 0 where it is not valid. What lies
                beyond that range is seen as its end.
            mask: (N, 1, h, w), 1 where the depth is valid and 0 elsewhere.
        """
        return self.features(scaled, mask).mean((2, 3), keepdim=True)

    def features(self, scaled: Tensor, mask: Tensor) -> Tensor:
        """Return the features of the target branch, (N, C, h, w); for the arguments see `context`."""
        features: Tensor = self.target(_describe(_held(scaled), mask).to(self._dtype))
        return features

    def scaled_levels(
        self, scaled: Tensor, mask: Tensor, guide: Tensor, context: Tensor, scale_factor: int
    ) -> Iterator[Level]:
        """Yield the depth after each stage, for callers that work in tiles: nothing here depends on the whole map."""
        for depth, valid, _ in self._after_stages(scaled, scaled, mask, guide, context, scale_factor):
            assert not isinstance(depth, Planes)
            yield Level(depth, valid > 0)

    def scaled_pixels(
        self,
        scaled: Tensor,
        mask: Tensor,
        guide: Tensor,
        context: Tensor,
        scale_factor: int,
        samples: str = "point",
        wanted: Region | None = None,
    ) -> Pixels:
        """Return the depth at the pixels of the finest stage, for callers that work in tiles.

        Each sample lies in the middle of its block. A network that `carries_depth` carries its plane, so that a plane
        is upsampled as the plane, see `ddfnet.depth.planes`. Where the samples are averages, the map is brought to give
        them again, see `ddfnet.depth.back_projection`.

        Args:
            scaled, mask, guide, context, scale_factor: those of `scaled_levels`.
            samples: one of `ddfnet.depth.samples.SAMPLES`.
            wanted: samples at whose pixels the depth is wanted, the whole map by default. The result has these alone,
                and each stage computes no more than they need: the surroundings of a tile cost little.
        """
        size = mask.shape[2:]
        if wanted is None:
            wanted = slice(0, size[0]), slice(0, size[1])
        kernel_size = self.init_args["kernel_size"]
        # The back-projection and the heads read around what is wanted.
        reach = back_projection.receptive_radius(samples, kernel_size) + (self.heads is not None)
        near = pad_region(wanted, reach, size)
        first: Carried = Planes.at_samples(scaled, mask) if self.carries_depth else scaled
        filters = []
        for after in self._after_stages(first, scaled, mask, guide, context, scale_factor, near):
            found, valid, taps = after
            filters.append(taps)
        depth, slope = (found.at_pixels(), found.slope) if isinstance(found, Planes) else (found, None)
        known = valid > 0
        if samples != "point":
            own = scaled[(..., *near)], mask[(..., *near)]
            depth = back_projection.back_project(depth, known, *own, filters, kernel_size, samples)
        inner = (..., *scale_region(relative_region(wanted, near), scale_factor))
        return Pixels(depth[inner], None if slope is None else slope[inner], known[inner])

    def _after_stages(
        self,
        carried: Carried,
        scaled: Tensor,
        mask: Tensor,
        guide: Tensor,
        context: Tensor,
        scale_factor: int,
        wanted: Region | None = None,
    ) -> Iterator[tuple[Carried, Tensor, Tensor]]:
        """Yield of each stage the depth or planes, their validity, and the filters.

        With ``wanted`` those of these samples alone. A stage is given what they depend on from there on, which is less
        and less: the finest stage, which costs most, sees few pixels around.
        """
        stages = scale_factor.bit_length() - 1
        maps = [self.guidance[0](channels_last(F.pixel_unshuffle(guide - 0.5, 2)).to(self._dtype))]
        for number in range(1, stages):
            maps.append(self.guidance[number](maps[-1]))
        features = self.features(scaled, mask)
        steps = scaled if self.heads is None else _nearby(scaled, mask, radius=1)[1]  # unit of the heads
        held: Region = (slice(0, mask.shape[2]), slice(0, mask.shape[3]))  # in pixels of the stage's grid
        for number in reversed(range(stages)):
            image = maps.pop()
            if wanted is not None:
                size = [length << (stages - 1 - number) for length in scaled.shape[2:]]
                seen = pad_region(wanted, self._stage_radius(number), size)
                inner = (..., *relative_region(seen, held))
                carried, mask, features, image = cut(carried, inner), mask[inner], features[inner], image[(..., *seen)]
                held = scale_region(seen, 2)
            guided = torch.cat([features, image], 1)
            del features, image  # in the last trunk, at the peak, they would count
            carried, mask, features, taps = self.stages[number](carried, mask, guided, context)
            depth = carried
            if self.heads is not None:
                steps = F.interpolate(steps, scale_factor=2, mode="nearest")
                step = steps if wanted is None else steps[(..., *held)]
                before = cast(Tensor, carried)
                depth = before + (self.heads[number](features) * step).to(before.dtype)
            if wanted is None:
                yield depth, mask, taps
            else:
                own, wanted = (..., *relative_region(wanted, seen)), scale_region(wanted, 2)
                inner = (..., *relative_region(wanted, held))
                yield cut(depth, inner), mask[inner], taps[own]

    def _stage_radius(self, number: int) -> int:
        """Return the receptive radius of the output from this stage on, in pixels of its grid."""
        radius = 0
        for own in self._stage_radii[: number + 1]:
            radius = -(-radius // 2) + own
        return radius

    @property
    def _dtype(self) -> torch.dtype:
        """Type of the weights, in which the convolutions compute; the depth itself is carried in float32."""
        return next(self.parameters()).dtype

    @property
    def carries_depth(self) -> bool:
        """True where filters alone make the depth, so that the output is an average of samples."""
        return self.heads is None and all(stage.correction is None for stage in self.stages)

    @property
    def target_receptive_radius(self) -> int:
        """Receptive radius of `features`, in low-resolution pixels."""
        return _RADIUS + 3

    @property
    def receptive_radius(self) -> int:
        """Receptive radius of an output at any factor, in low-resolution pixels."""
        stages = sum(own * 2.0**-number for number, own in enumerate(reversed(self._stage_radii)))
        return self.target_receptive_radius + math.ceil(stages) + 1

    @property
    def _stage_radii(self) -> list[int]:
        return [cast(Stage, stage).receptive_radius for stage in self.stages]

    def receptive_radius_for(self, samples: str) -> int:
        """Return the receptive radius of `scaled_pixels`, in low-resolution pixels."""
        return self.receptive_radius + back_projection.receptive_radius(samples, self.init_args["kernel_size"])

    def _scaled(
        self, depth: Tensor, guide: Tensor, valid: Tensor | None, scale_factor: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the depth from 0 to 1 and its mask, see `context`, and the range that it was scaled by."""
        self._check(depth, guide, valid, scale_factor)
        depth = depth.float()
        mask = valid_depth(depth, valid, missing=()).to(depth.dtype)
        lowest, span = (each[:, None] for each in typical_range(depth[:, 0], mask[:, 0] > 0))
        return torch.where(mask > 0, (depth - lowest) / span, 0), mask, lowest, span

    def _check(self, depth: Tensor, guide: Tensor, valid: Tensor | None, scale_factor: int) -> None:
        if not isinstance(scale_factor, int) or scale_factor not in (2**n for n in range(1, len(self.stages) + 1)):
            raise ValueError(
                f"scale_factor must be a power of two from 2 to this network's {self.scale_factor}, got {scale_factor}"
            )
        _check_maps(depth, guide, valid, scale_factor)


@functools.cache
def default_model() -> GuidedUpsampler:
    """Return the network whose weights come with the package: for 2x, 4x, 8x and 16x."""
    return load(Path(__file__).parent / "weights" / "guided.safetensors", GuidedUpsampler)


def typical_range(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower end and the width of the range in which nearly all valid depths of each map lie.

    It leaves out the lowest and the highest thousandth, at least one sample each: a single wrong sample, however large,
    must not change how all others are seen. A range of nothing else than one value is that of all valid depths.

    Args:
        depth: (N, h, w), floating.
        valid: (N, h, w), bool.

    Returns:
        Two of (N, 1, 1) in depth's dtype, the width above 0; 0 and 1 where no sample is valid, and a width of 1 where
        all are equal.
    """
    count = valid.flatten(1).sum(1, keepdim=True)
    ordered = torch.where(valid, depth, math.inf).flatten(1).sort(1).values
    left_out = (count // _TYPICAL).clamp(min=1)
    last = (count - 1).clamp(min=0)
    ends = []
    for out in (left_out, torch.zeros_like(left_out)):
        low = ordered.gather(1, torch.minimum(out, last))
        high = ordered.gather(1, (last - out).clamp(min=0))
        ends.append((low, high - low))
    (low, span), (lowest, integer) = ends
    low, span = torch.where(span > 0, low, lowest), torch.where(span > 0, span, integer)
    low, span = torch.where(count > 0, low, 0), torch.where((count > 0) & (span > 0), span, 1)
    return low[..., None], span[..., None]


def typical_range_of_parts(parts: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Return what `typical_range` does of one map, whose valid depths come in parts: it holds a thousandth of them.

    Args:
        parts: depths (n,) of the map's parts, all valid.
        count: how many they are together, at least 1.

    Returns:
        Lower end and width, of no dimension.
    """
    left_out = max(count // _TYPICAL, 1)
    lowest: Tensor | None = None
    for part in parts:
        if lowest is None:
            lowest = highest = part[:0]
        # Both from the end outwards in: the first of each is the extreme.
        lowest, highest = (
            (together := torch.cat([kept, part])).topk(min(left_out + 1, len(together)), largest=largest).values
            for kept, largest in ((lowest, False), (highest, True))
        )
    assert lowest is not None
    out = min(left_out, count - 1)
    low, span = lowest[out], highest[out] - lowest[out]
    if not span > 0:
        low, span = lowest[0], highest[0] - lowest[0]
    return low, torch.where(span > 0, span, 1)


@recordable
def _check_maps(depth: Tensor, guide: Tensor, valid: Tensor | None, scale_factor: int) -> None:
    check_map("depth", depth, 1)
    check_map("guide", guide, 3)
    for name, given in (("depth", depth), ("guide", guide)):
        if not given.is_floating_point():
            raise TypeError(f"{name} must be floating, got {given.dtype}; convert it, as in {name}.float()")
    batch, _, height, width = depth.shape
    expected = (batch, 3, height * scale_factor, width * scale_factor)
    if guide.shape != expected or not depth.numel():
        raise ValueError(
            f"guide must be (N, 3, s*h, s*w) with s = {scale_factor} for depth {tuple(depth.shape)}, got "
            f"{tuple(guide.shape)}; ddfnet.upsample_depth takes any sizes"
        )
    if valid is not None and not isinstance(valid, Tensor):
        raise TypeError(f"valid must be a torch.Tensor, got {type(valid).__name__}")
    if valid is not None and (valid.dtype != torch.bool or valid.shape != depth.shape):
        raise ValueError(
            f"valid must be bool and of depth's shape {tuple(depth.shape)}, got {valid.dtype} {tuple(valid.shape)}"
        )


def _held(scaled: Tensor) -> Tensor:
    """Return ``scaled.clamp(0, 1)``.

    Not by ``clamp``: of two on one value, as of `GuidedUpsampler.context` and the features, onnxscript 0.7.2 loses the
    bounds of the second, and the exported file does not load.
    """
    return torch.minimum(scaled.relu(), scaled.new_ones(()))


def _describe(scaled: Tensor, mask: Tensor) -> Tensor:
    """Return the depth as features (N, 4, h, w): value, rank in its neighbourhood, range of that, and validity.

    The rank tells on which side of an edge a pixel lies, however small the step is beside the range of the whole map.
    """
    lowest, step = _nearby(scaled, mask, _RADIUS)
    rank = torch.where(mask > 0, (scaled - lowest) / (step + 1e-3) - 0.5, 0)
    return channels_last(torch.cat([scaled * mask, rank, torch.log1p(20 * step), mask], 1))


def _nearby(scaled: Tensor, mask: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Return the lowest valid depth around each sample, and the range of the valid depths there; 0 where none is."""
    valid = mask > 0
    lowest, highest = local_range(scaled, valid, radius)
    return lowest, torch.where(valid, highest - lowest, 0)


def _head(channels: int) -> nn.Conv2d:
    """Return a convolution from features to a correction of bilinear interpolation, close to 0 at first."""
    return with_start(nn.Conv2d(channels, 1, 3, padding=1), _start_head)


def _start_head(head: nn.Conv2d) -> None:
    nn.init.normal_(head.weight, std=1e-2)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
