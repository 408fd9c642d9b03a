"""Depth tool: a depth map, small or with holes, upsampled to the size of an image of the same scene."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ddfnet.arguments import check_range
from ddfnet.depth.alignment import AxisAlignment, align, nearest_valid
from ddfnet.depth.filling import fill_guided, guide_at_samples, near_valid
from ddfnet.depth.samples import SAMPLES, find_samples, valid_range
from ddfnet.depth.sizes import ROWS, covers, tile_slices
from ddfnet.depth.tiling import Part, upsample_tiled
from ddfnet.depth.valid import FILLS, valid_depth

if TYPE_CHECKING:
    import numpy as np

    from ddfnet.depth.network import GuidedUpsampler

    Map = TypeVar("Map", Tensor, np.ndarray[Any, Any])

_EXACT = 2**53  # below it float64 holds every integer
_TILE = 768  # pixels of the guide per side: larger ones leave the caches, of smaller ones more is surroundings


def upsample_depth(
    depth: Map,
    guide: Map,
    *,
    valid: Map | None = None,
    ratio: float | tuple[float, float] | None = None,
    offset: float | tuple[float, float] | None = None,
    samples: str = "auto",
    model: str | Path | GuidedUpsampler = "auto",
    tile: int | None = None,
    fill: str | bool | None = None,
    quality: str = "best",
    sharpness: float = 1.0,
) -> Map:
    r"""Upsample a depth map to the size of an image of the same scene, with its edges where the image's are.

    .. math::
        out_p = \sum_i w_{p,i}\, \bigl(depth_i + g_i (p - p_i)\bigr), \qquad w_{p,i} \ge 0, \quad \sum_i w_{p,i} = 1

    over the valid samples i near pixel p, with weights w that the network predicts and the slope g of each sample's own
    surface (half of it as the slope of the average; see `ddfnet.depth.planes`). Where the samples are averages, the
    result is then brought to give them again, see ``samples``. So for every input:

    - a plane is upsampled as the plane, at any ratio and offset;
    - an output lies between the smallest and the largest valid sample of the 5x5 around it, and is set to the nearer
      one where its plane leaves that range, as one can beyond the outermost samples; a constant map stays that
      constant;
    - samples that are not valid contribute nothing, whatever they hold;
    - what is valid is upsampled as depth is, as a map of ones and zeros: its outline follows the image too. All valid
      around a pixel makes it valid, none makes it not, and a hole stays one, however small, unless ``fill`` closes it;
    - scaling or shifting the valid depths scales or shifts the output, up to rounding (about 1e-6 of the map's range);
    - neither tiles nor threads change the output by more than such rounding.

    Args:
        depth: (h, w), NumPy array or tensor on any device, real numbers of at most 64 bits in any unit, integers
            between -2**53 and 2**53.
        guide: image (H, W, 3), uint8, RGB, array or tensor as ``depth`` is; H >= h and W >= w. Any ratio from 1 up, a
            different one per axis. A map of the guide's size is not upsampled: valid depths stay as they are, to the
            bit, and holes are filled.
        valid: (h, w), bool: where the depth is valid. It decides alone, so that 0 can be a depth; nan, inf and what a
            NumPy mask hides are never valid. None: where depth is not 0. Where another value means missing too:
            ``valid=(depth != 0) & (depth != 65535)``.
        ratio: pixels of the guide per sample, for both axes or (y, x), at least 1. None: H/h and W/w; but with a whole
            ``offset`` the nearest whole number, if there is one, with which the depth map can be every r-th pixel of a
            map of the guide's size.
        offset: pixel of the guide on which the first sample lies, for both axes or (y, x). None: the middle of its
            block, (ratio - 1) / 2. With both, every sample must lie within half a ratio of the guide's pixels.
        samples: way in which the samples were taken from their blocks: ``"point"``, the depth at one place, as taking
            every r-th pixel and many sensors give it; ``"average"``, the mean of the block; ``"bicubic"``, an
            antialiased bicubic reduction, as of Pillow. For the last two the result is brought to give the samples when
            it is reduced again, see `ddfnet.depth.back_projection`, and ``offset`` must be left alone. ``"auto"`` looks
            at the samples beside edges, see `ddfnet.depth.samples.find_samples`; with another offset it is ``"point"``.
        model: ``"auto"`` for the weights that come with the package, a safetensors file of ``ddfnet train depth``, or
            a network.
        tile: pixels of the guide per side that are worked on at once; None is 768. It bounds the memory.
        fill: mend of outputs that are not valid. ``"guided"``, or True: holes are filled with the guide's help,
            see `ddfnet.depth.filling`, on the map's own grid; what is next to a valid sample is the network's.
            ``"nearest"``: the network's where a valid sample is near, and elsewhere the depth of the nearest one.
            ``"none"``, or False: they stay not valid. None: ``"guided"`` for a map of the guide's
            size, which has nothing else to gain, and ``"none"`` for others. Filling is done on the CPU.
        quality: ``"best"``, the average of the network's results for the maps and for the maps transposed, or
            ``"fast"``, the former alone: in half the time, with an error that is one to four percent larger.
        sharpness: power to which the weights of the filters are raised before their sum is made 1, above 0. Above 1
            fewer pixels fly between the two surfaces at an edge, which a point cloud shows; but the error grows, for a
            pixel on the wrong side is further off than one in the middle. See docs/guided.md for figures.

    Returns:
        (H, W) as ``depth`` is, in its unit and dtype. Integers are rounded, to 1 or -1 where that would be 0 and 0 is
        no valid depth. Not valid is 0 for integers and nan for floats.

    Raises:
        ValueError: wrong shapes or devices, a guide that is smaller than the depth map, samples that lie beside it, no
            valid depth, depths that float64 does not hold, a broken model file.
        TypeError: not arrays or tensors alike, a guide that is not uint8, a depth that is not real, a mask that is not
            bool.
        ModuleNotFoundError: the weights need safetensors, and ``fill`` SciPy and PyAMG, which the extra ``upsample``
            has.

    Example:
        >>> import torch, ddfnet
        >>> depth = 1 + torch.rand(24, 32)  # in metres, say
        >>> image = torch.randint(256, (100, 130, 3), dtype=torch.uint8)
        >>> sharp = ddfnet.upsample_depth(depth, image)
        >>> sharp.shape, bool((sharp >= depth.min()).all() and (sharp <= depth.max()).all())
        (torch.Size([100, 130]), True)

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6; see `ddfnet.depth.network`.
    """
    if not isinstance(depth, Tensor):
        options = {"samples": samples, "model": model, "tile": tile, "fill": fill, "quality": quality}
        alignment = {"ratio": ratio, "offset": offset}
        return _upsample_arrays(depth, guide, valid=valid, sharpness=sharpness, **alignment, **options)
    _check(depth, guide, valid, tile)
    if fill not in (*FILLS, True, False, None):
        raise ValueError(f"fill must be 'guided', 'nearest' or 'none', or True or False, got {fill!r}")
    if quality not in ("best", "fast"):
        raise ValueError(f"quality must be 'best' or 'fast', got {quality!r}")
    check_range("sharpness", sharpness, 0, open_low=True)
    axes = align(depth.shape, guide.shape, ratio, offset)
    _check_samples(samples, axes)
    values = depth.double()
    mask = valid_depth(values, valid)
    _check_values(depth, mask)
    same_size = depth.shape == guide.shape[:2]
    if fill is None:
        fill = "guided" if same_size else "none"
    result = torch.empty(guide.shape[:2], dtype=depth.dtype, device=depth.device)
    known = depth
    with torch.inference_mode():
        if fill in ("guided", True) and not mask.all():
            filled = fill_guided(values, mask, guide if same_size else guide_at_samples(guide, axes))
            # The network itself closes what is next to a valid sample, and better than with filled ones at its side.
            known = values = torch.where(mask, values, filled)
            mask = mask | (same_size | ~near_valid(mask))
        zero_is_depth = bool((mask & (values == 0)).any())
        if same_size:
            parts = _own_rows(values, mask)
        else:
            options = {"ensemble": quality == "best", "outline": fill in ("none", False)}
            if samples == "auto":
                samples = find_samples(values, mask) if all(axis.is_centered for axis in axes) else "point"
            network = _network(model, depth.device)
            if sharpness != 1:
                network = network.sharpened(sharpness)
            parts = upsample_tiled(known, mask, guide, axes, network, tile or _TILE, samples=samples, **options)
        if fill == "nearest":
            parts = _fill_nearest(parts, values, mask, axes)
        del values  # the largest map of what comes, where it is not needed
        for part in parts:
            result[part.rows, part.columns] = _convert(part, depth.dtype, zero_is_depth=zero_is_depth)
    return result


def _own_rows(depth: Tensor, valid: Tensor) -> Iterator[Part]:
    """Yield the rows of a map that is not enlarged."""
    for rows in tile_slices(len(depth), ROWS):
        yield Part(rows, slice(0, depth.shape[1]), depth[rows], valid[rows])


def _fill_nearest(
    parts: Iterable[Part], values: Tensor, valid: Tensor, axes: Sequence[AxisAlignment]
) -> Iterator[Part]:
    """Yield the parts with the depth of the nearest valid sample where they are not valid."""
    rows, columns = (axis.nearest_sample(values.device) for axis in axes)
    nearest = None
    for part in parts:
        if not part.valid.all():
            if nearest is None:
                nearest = nearest_valid(values, valid, spacing=(axes[0].ratio, axes[1].ratio))
            own = nearest[rows[part.rows]][:, columns[part.columns]]
            part = part._replace(depth=torch.where(part.valid, part.depth, own), valid=torch.ones_like(part.valid))
        yield part


def _convert(part: Part, dtype: torch.dtype, *, zero_is_depth: bool) -> Tensor:
    """Return a part of the result in its dtype, integers rounded, and marked where it is not valid."""
    values = part.depth
    if not dtype.is_floating_point:
        rounded = values.round()
        if not zero_is_depth:
            # An average of depths of both signs can round to 0, which would say that it is not valid.
            rounded = torch.where(values.abs() < 1, torch.where(values < 0, -1.0, 1.0), rounded)
        values = rounded
    return torch.where(part.valid, values, math.nan if dtype.is_floating_point else 0).to(dtype)


def _check(depth: Tensor, guide: Tensor, valid: Tensor | None, tile: int | None) -> None:
    for name, given in (("depth", depth), ("guide", guide), ("valid", valid)):
        if given is None and name == "valid":
            continue
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor as depth is, got {type(given).__name__}")
        if given.layout != torch.strided:
            raise TypeError(f"{name} must be dense, got {given.layout}; give {name}.to_dense()")
        if given.device != depth.device:
            raise ValueError(
                f"{name} must be on depth's device {depth.device}, got {given.device}; give {name}.to(depth.device)"
            )
    if depth.dtype == torch.bool or depth.is_complex():
        raise TypeError(f"depth must be real numbers, got {depth.dtype}")
    _check_dtypes(guide, valid)
    if depth.dim() != 2 or not depth.numel():
        raise ValueError(f"depth must be (h, w), at least one sample, got {tuple(depth.shape)}")
    if guide.dim() != 3 or guide.shape[2] != 3:
        raise ValueError(f"guide must be (H, W, 3), RGB, got {tuple(guide.shape)}")
    if not covers(guide.shape, depth.shape):
        raise ValueError(
            f"guide must be at least as large as depth {tuple(depth.shape)}, got {tuple(guide.shape[:2])}; "
            "were the two exchanged?"
        )
    if valid is not None and valid.shape != depth.shape:
        raise ValueError(f"valid must be of depth's shape {tuple(depth.shape)}, got {tuple(valid.shape)}")
    if tile is not None and (not isinstance(tile, Integral) or tile < 1):
        raise ValueError(f"tile must be None or a whole number of pixels from 1 on, got {tile!r}")


def _check_samples(samples: str, axes: Sequence[AxisAlignment]) -> None:
    if samples not in ("auto", *SAMPLES):
        ways = ", ".join(map(repr, SAMPLES))
        raise ValueError(f"samples must be 'auto', {ways}, got {samples!r}")
    if samples in ("average", "bicubic") and not all(axis.is_centered for axis in axes):
        offsets = ", ".join(f"{axis.offset:g} at ratio {axis.ratio:g}" for axis in axes)
        raise ValueError(
            f"samples={samples!r} needs each sample in the middle of its block, offset (ratio - 1) / 2, got offset "
            f"{offsets} (y, x); leave offset out, or give samples='point'"
        )


def _check_dtypes(guide: Any, valid: Any) -> None:
    """Check the types of a guide and a mask, tensors or arrays."""
    if (got := str(guide.dtype)).removeprefix("torch.") != "uint8":
        raise TypeError(f"guide must be uint8, 0 to 255, got {got}; scale it to that range and convert it")
    if valid is not None and (got := str(valid.dtype)).removeprefix("torch.") != "bool":
        raise TypeError(f"valid must be bool, got {got}; compare it, as in mask > 0")


def _check_values(depth: Tensor, valid: Tensor) -> None:
    """Check that there are valid depths, and that float64 holds them exactly and their range."""
    if not valid.any():
        raise ValueError(f"depth {tuple(depth.shape)} has no valid sample: all of it is 0, nan, inf or masked out")
    low, high = valid_range(depth, valid)
    if not depth.is_floating_point() and max(-low, high) >= _EXACT:
        raise ValueError(
            f"depth of integers must lie between -2**53 and 2**53, got {low:.0f} to {high:.0f}; subtract what all share"
        )
    if not math.isfinite(high - low):
        raise ValueError(f"depth must have a range that float64 holds, got {low:g} to {high:g}; scale it")


def _network(model: str | Path | GuidedUpsampler, device: torch.device) -> GuidedUpsampler:
    from ddfnet.depth.network import GuidedUpsampler, default_model
    from ddfnet.pretrained import load

    if isinstance(model, str | Path):
        model = default_model() if model == "auto" else load(model, GuidedUpsampler)
    if isinstance(model, GuidedUpsampler):
        parameter = next(model.parameters())
        ready = not model.training and parameter.device == device and parameter.dtype == torch.float32
        # The caller may be in the middle of a training, so its own network stays as it is.
        return model if ready else copy.deepcopy(model).eval().to(device, torch.float32)
    raise TypeError(f"model must be 'auto', a file or a GuidedUpsampler, got {type(model).__name__}")


def _upsample_arrays(depth: Any, guide: Any, *, valid: Any, **options: Any) -> Any:
    """Upsample NumPy arrays, masked ones too."""
    import numpy as np

    for name, given in (("depth", depth), ("guide", guide), ("valid", valid)):
        if not isinstance(given, np.ndarray) and not (given is None and name == "valid"):
            raise TypeError(
                f"{name} must be a NumPy array or a torch.Tensor, as the others are, got {type(given).__name__}"
            )
    if depth.dtype.kind not in "iuf" or depth.dtype.itemsize > 8:
        raise TypeError(f"depth must be real numbers of at most 64 bits, got {depth.dtype}")
    _check_dtypes(guide, valid)
    if np.ma.is_masked(guide):
        raise ValueError("guide must have all its pixels, got a masked array; give guide.data, or guide.filled()")
    if isinstance(valid, np.ma.MaskedArray):
        valid = valid.filled(False)
    if isinstance(depth, np.ma.MaskedArray):
        there = ~np.ma.getmaskarray(depth)
        valid = valid_depth(depth.data) & there if valid is None else there & valid
    tensors = [
        # Torch takes no other byte order, and warns of arrays that must not be written to.
        None
        if given is None
        else torch.from_numpy(np.require(np.asarray(given), given.dtype.newbyteorder("="), ["C", "W"]))
        for given in (depth, guide, valid)
    ]
    assert tensors[0] is not None and tensors[1] is not None
    result = upsample_depth(tensors[0], tensors[1], valid=tensors[2], **options)
    return result.numpy().astype(depth.dtype, copy=False)
