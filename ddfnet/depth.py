"""The depth tool: a small or holed depth map and a photograph in, a sharp depth map of the photograph's size out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

    from ddfnet.models.guided import GuidedUpsampler

    Map = TypeVar("Map", Tensor, np.ndarray[Any, Any])

from ddfnet.data.alignment import nearest_valid

Pair = tuple[float, float]
Size = Sequence[int]

_TILE = 1024  # pixels of the guide a side; what a tile needs besides is as much again
_NEAR = 2  # low-resolution pixels: no output lies further from a sample that it is made of


def upsample_depth(
    depth: Map,
    guide: Map,
    *,
    valid: Map | None = None,
    offset: float | Pair | None = None,
    model: str | Path | GuidedUpsampler = "auto",
    tile: int | None = None,
    fill: bool = False,
) -> Map:
    r"""Enlarge a depth map to the size of a photograph of the same scene, with its edges where the photograph's are.

    .. math::
        out_p = \sum_i w_{p,i}\, depth_i, \qquad w_{p,i} \ge 0, \quad \sum_i w_{p,i} = 1

    over the valid samples i near pixel p, with weights that the network predicts. So for every input:

    - an output lies between the smallest and the largest valid sample of the 5x5 around it; a constant map stays that
      constant;
    - samples that are not valid contribute nothing, whatever they hold. An output is not valid only where no valid
      sample is near, and with ``fill`` nowhere;
    - scaling or shifting the valid depths scales or shifts the output, up to rounding (about 1e-6 of the map's range);
    - neither tiles nor threads change the output by more than such rounding.

    Args:
        depth: (h, w), NumPy array or tensor on any device, real numbers in any unit.
        guide: (H, W, 3), uint8, RGB, an array or tensor as ``depth`` is; H >= h and W >= w. Any ratio from 1 up,
            another for each axis. At ratio 1 valid depths stay as they are, and holes are filled.
        valid: (h, w), bool: where the depth is. Depths that are 0, nan or inf are never valid.
        offset: the guide's pixel, for both axes or (y, x), on which the first sample lies. None: the middle of its
            block, (ratio - 1) / 2. Where a depth map is every r-th pixel of a larger one from a whole ``offset`` on,
            the ratio is exactly r, else H/h and W/w.
        model: ``"auto"`` for the weights that come with the package, a safetensors file of ``ddfnet train guided``, or
            a network.
        tile: pixels of the guide, a side, that are worked on at once; None is 1024. It bounds the memory.
        fill: give outputs that are not valid the depth of the nearest sample that is.

    Returns:
        (H, W) as ``depth`` is, in its unit and dtype; integers are rounded. Not valid is 0 for integers and nan for
        floats.

    Raises:
        ValueError: another shape, a guide that is smaller than the depth map, no valid depth, a broken model file.
        TypeError: not arrays or tensors alike, a guide that is not uint8, a depth that is not real, a mask of another
            type than bool.
        ModuleNotFoundError: the weights need safetensors, which the extra ``upsample`` has.

    Example:
        >>> import torch, ddfnet
        >>> depth = 1 + torch.rand(24, 32)  # in metres, say
        >>> photograph = torch.randint(256, (100, 130, 3), dtype=torch.uint8)
        >>> sharp = ddfnet.upsample_depth(depth, photograph)
        >>> sharp.shape, bool((sharp >= depth.min()).all() and (sharp <= depth.max()).all())
        (torch.Size([100, 130]), True)

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6; see `ddfnet.models.guided`.
    """
    if not isinstance(depth, Tensor):
        return _by_arrays(depth, guide, valid=valid, offset=offset, model=model, tile=tile, fill=fill)
    _check(depth, guide, valid, tile)
    values = depth.double()
    known = values.isfinite() & (values != 0)
    if valid is not None:
        known &= valid
    if not known.any():
        raise ValueError(f"depth {tuple(depth.shape)} has no valid sample: all of it is 0, nan, inf or masked out")
    network = _network(model).to(depth.device)
    places = _places(depth.shape, guide.shape, offset)
    with torch.inference_mode():
        result, reached = _enlarge(torch.where(known, values, 0), known, guide, places, network, tile or _TILE)
        if depth.shape == guide.shape[:2]:
            result, reached = torch.where(known, values, result), reached | known
        if fill and not reached.all():
            rows, columns = (place.nearest_sample() for place in places)
            nearest = nearest_valid(values, known, spacing=(places[0].ratio, places[1].ratio))
            result = torch.where(reached, result, nearest[rows][:, columns])
            reached = torch.ones_like(reached)
    result = torch.where(reached, result, math.nan if depth.is_floating_point() else 0)
    return (result if depth.is_floating_point() else result.round()).to(depth.dtype)


@dataclass(frozen=True)
class _Place:
    """How one axis of the samples lies over the guide's: sample i on pixel ``i*ratio + offset``."""

    samples: int
    pixels: int
    ratio: float
    offset: float

    def nearest_sample(self) -> Tensor:
        """Of each of the guide's pixels."""
        own = (torch.arange(self.pixels, dtype=torch.float64) - self.offset) / self.ratio
        return own.round().long().clamp(0, self.samples - 1)


class _Grid(NamedTuple):
    """One axis of what the network is given and gives: ``factor`` pixels a sample, which lies on number ``first``."""

    place: _Place
    factor: int

    @property
    def first(self) -> int:
        return (self.factor - 1) // 2

    @property
    def offset(self) -> float:
        """The guide's pixel of sample 0: to the whole pixel where the two grids have the same step.

        Half a pixel of displacement is less than what interpolating the guide would blur.
        """
        if self.place.ratio == self.factor:
            return self.first + math.ceil(self.place.offset - self.first - 0.5)
        return self.place.offset

    def in_guide(self, start: int, stop: int) -> Tensor:
        """Where the grid's pixels from start to stop lie, in pixels of the guide."""
        own = torch.arange(start, stop, dtype=torch.float64) - self.first
        return (self.offset + own * (self.place.ratio / self.factor)).clamp(0, self.place.pixels - 1)

    def nearest(self) -> Tensor:
        """The grid's pixel nearest to each of the guide's.

        Not an interpolation between pixels, which would put points between the two sides of an edge.
        """
        own = torch.arange(self.place.pixels, dtype=torch.float64) - self.offset
        pixel = (own * (self.factor / self.place.ratio) - 1e-9).round().long() + self.first
        return pixel.clamp(0, self.place.samples * self.factor - 1)


def _enlarge(
    values: Tensor, known: Tensor, guide: Tensor, places: list[_Place], network: GuidedUpsampler, tile: int
) -> tuple[Tensor, Tensor]:
    """The depth (H, W), float64, and where there is one; in several passes where the ratio is above the network's."""
    ratio = max(place.ratio for place in places)
    factor = min(2 ** max(1, math.ceil(math.log2(ratio) - 1e-9)), network.scale_factor)
    grids = [_Grid(place, factor) for place in places]
    if ratio <= factor:
        wanted = [grid.nearest() for grid in grids]
        return _by_tiles(values, known, guide, grids, wanted, network, tile)
    wanted = [torch.arange(place.samples * factor) for place in places]
    values, known = _by_tiles(values, known, guide, grids, wanted, network, tile)
    finer = [
        _Place(len(pixels), grid.place.pixels, step, grid.offset - grid.first * step)
        for pixels, grid in zip(wanted, grids, strict=True)
        for step in [grid.place.ratio / factor]
    ]
    return _enlarge(values, known, guide, finer, network, tile)


def _by_tiles(
    values: Tensor,
    known: Tensor,
    guide: Tensor,
    grids: list[_Grid],
    wanted: list[Tensor],
    network: GuidedUpsampler,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """The network's output at the wanted rows and columns of its grid, a tile at a time.

    A tile is given as many samples around it as can change its outputs. What the network draws from the whole map, the
    depth's range and the average of its features, is found first.
    """
    factor, device = grids[0].factor, values.device
    lowest, highest = values[known].min(), values[known].max()
    span = (highest - lowest) if highest > lowest else torch.ones_like(lowest)
    scaled = torch.where(known, (values - lowest) / span, 0).float()[None, None]
    there = known.float()[None, None]
    height, width = known.shape
    steps = [max(1, round(tile / max(grid.place.ratio, 1))) for grid in grids]
    boxes = list(itertools.product(_cuts(height, steps[0]), _cuts(width, steps[1])))

    context = torch.zeros((), dtype=torch.float64)
    for rows, columns in boxes:
        outer = [_wider(cut, network.target_reach, size) for cut, size in ((rows, height), (columns, width))]
        features = network.features(scaled[..., outer[0], outer[1]], there[..., outer[0], outer[1]])
        inner = features[..., _within(rows, outer[0]), _within(columns, outer[1])]
        context = context + inner.sum((2, 3), keepdim=True, dtype=torch.float64)
    context = (context / known.numel()).float()

    result = torch.empty(len(wanted[0]), len(wanted[1]), dtype=torch.float64, device=device)
    reached = torch.empty(result.shape, dtype=torch.bool, device=device)
    for rows, columns in boxes:
        outer = [_wider(cut, network.reach, size) for cut, size in ((rows, height), (columns, width))]
        # Where the wanted pixels lie that this tile's samples are enlarged to; they ascend.
        own = [
            slice(*torch.searchsorted(pixels, torch.tensor([cut.start * factor, cut.stop * factor])).tolist())
            for pixels, cut in zip(wanted, (rows, columns), strict=True)
        ]
        picked = [
            (pixels[part] - cut.start * factor).to(device) for pixels, part, cut in zip(wanted, own, outer, strict=True)
        ]
        positions = [
            grid.in_guide(cut.start * factor, cut.stop * factor) for grid, cut in zip(grids, outer, strict=True)
        ]
        picture = _sample(guide, positions[0], positions[1])
        inputs = (scaled[..., outer[0], outer[1]], there[..., outer[0], outer[1]])
        *_, level = network.scaled_levels(*inputs, picture, context, factor)
        depth = level.depth[0, 0][picked[0]][:, picked[1]].double() * span + lowest
        # Rounding could leave the range of the samples by a last digit.
        low, high = _range(values, known, outer)
        samples = [pixels // factor for pixels in picked]
        low, high = (bound[samples[0]][:, samples[1]] for bound in (low, high))
        result[own[0], own[1]] = torch.minimum(torch.maximum(depth, low), high)
        reached[own[0], own[1]] = level.valid[0, 0][picked[0]][:, picked[1]]
    return result, reached


def _range(values: Tensor, known: Tensor, outer: list[slice]) -> tuple[Tensor, Tensor]:
    """The smallest and the largest valid sample of the 5x5 around each sample of a box."""
    own, there = values[outer[0], outer[1]][None], known[outer[0], outer[1]][None]
    window = (2 * _NEAR + 1, 1, _NEAR)
    high = F.max_pool2d(own.masked_fill(~there, -math.inf), *window)
    low = -F.max_pool2d((-own).masked_fill(~there, -math.inf), *window)
    return low[0], high[0]


def _cuts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _wider(cut: slice, by: int, size: int) -> slice:
    return slice(max(cut.start - by, 0), min(cut.stop + by, size))


def _within(cut: slice, outer: slice) -> slice:
    return slice(cut.start - outer.start, cut.stop - outer.start)


def _sample(guide: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The guide at these positions, bilinearly: (1, 3, rows, columns), float32, from 0 to 1."""
    picture = guide
    for dimension, positions in enumerate((rows, columns)):
        first, last = int(positions[0]), math.ceil(positions[-1])
        picture = picture.narrow(dimension, first, last + 1 - first)
        low = positions.floor().long()
        share = (positions - low).float().to(guide.device).reshape([-1, 1, 1] if dimension == 0 else [1, -1, 1])
        low = (low - first).to(guide.device)
        below = picture.index_select(dimension, low)
        if share.any():
            above = picture.index_select(dimension, (low + 1).clamp(max=last - first))
            below = below + share * (above.float() - below)
        picture = below
    return (picture / 255).permute(2, 0, 1)[None]


def _places(small: Size, large: Size, offset: float | Pair | None) -> list[_Place]:
    """The two axes. The ratio is a whole number where the samples are just those of a strided subsampling."""
    if offset is None:
        return [_Place(n, m, m / n, (m / n - 1) / 2) for n, m in zip(small, large[:2], strict=True)]
    starts = offset if isinstance(offset, tuple | list) else (offset, offset)
    if len(starts) != 2 or not all(isinstance(start, int | float) and math.isfinite(start) for start in starts):
        raise ValueError(f"offset must be a number or (y, x), in pixels of the guide, got {offset!r}")
    places = []
    for n, m, start in zip(small, large[:2], starts, strict=True):
        whole = round(m / n)
        strided = float(start).is_integer() and 0 <= start < m and -((start - m) // whole) == n
        places.append(_Place(n, m, float(whole) if strided else m / n, float(start)))
    return places


def _check(depth: Tensor, guide: Tensor, valid: Tensor | None, tile: int | None) -> None:
    for name, given in (("guide", guide), ("valid", valid)):
        if given is not None and not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor as depth is, got {type(given).__name__}")
    if depth.dtype == torch.bool or depth.is_complex():
        raise TypeError(f"depth must be real numbers, got {depth.dtype}")
    if depth.dim() != 2 or not depth.numel():
        raise ValueError(f"depth must be (h, w), at least one sample, got {tuple(depth.shape)}")
    if guide.dtype != torch.uint8:
        raise TypeError(f"guide must be uint8, 0 to 255, got {guide.dtype}")
    if guide.dim() != 3 or guide.shape[2] != 3:
        raise ValueError(f"guide must be (H, W, 3), RGB, got {tuple(guide.shape)}")
    if guide.shape[0] < depth.shape[0] or guide.shape[1] < depth.shape[1]:
        raise ValueError(
            f"guide must be at least as large as depth {tuple(depth.shape)}, got {tuple(guide.shape[:2])}; "
            "were the two exchanged?"
        )
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"valid must be bool, got {valid.dtype}; compare it, as in mask > 0")
    if valid is not None and valid.shape != depth.shape:
        raise ValueError(f"valid must be of depth's shape {tuple(depth.shape)}, got {tuple(valid.shape)}")
    if tile is not None and (not isinstance(tile, int) or tile < 1):
        raise ValueError(f"tile must be None or a whole number of pixels from 1 on, got {tile!r}")


def _network(model: str | Path | GuidedUpsampler) -> GuidedUpsampler:
    from ddfnet.models import guided_files
    from ddfnet.models.guided import GuidedUpsampler

    if isinstance(model, GuidedUpsampler):
        return model.eval()
    if isinstance(model, str | Path):
        return guided_files.shipped() if model == "auto" else guided_files.load(Path(model))
    raise TypeError(f"model must be 'auto', a file or a GuidedUpsampler, got {type(model).__name__}")


def _by_arrays(depth: Any, guide: Any, *, valid: Any, **options: Any) -> Any:
    """The same for NumPy's arrays, of more dtypes than tensors calculate with."""
    import numpy as np

    for name, given in (("depth", depth), ("guide", guide), ("valid", valid)):
        if not isinstance(given, np.ndarray) and not (given is None and name == "valid"):
            raise TypeError(
                f"{name} must be a NumPy array or a torch.Tensor, as the others are, got {type(given).__name__}"
            )
    if depth.dtype.kind not in "iuf":
        raise TypeError(f"depth must be real numbers, got {depth.dtype}")
    tensors = [
        None if given is None else torch.from_numpy(np.ascontiguousarray(given))
        for given in (depth.astype(np.float64), guide, valid)
    ]
    assert tensors[0] is not None and tensors[1] is not None
    result = upsample_depth(tensors[0], tensors[1], valid=tensors[2], **options).numpy()
    if depth.dtype.kind in "iu":
        result = np.nan_to_num(np.round(result), nan=0)
    return result.astype(depth.dtype)
