"""What a depth map can be upsampled with: this package, and what it is compared with, all by one signature.

A method takes the small map ``low`` (h, w), float32, which of its samples are valid (h, w), bool, and the photograph
``guide`` (3, H, W), uint8; sample i lies on pixel ``i * factor + offset``. It gives (H, W), float32, every pixel
filled.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ddfnet.depth.alignment import aligned_bilinear, nearest_valid

# OpenCV's two filters run at full size on the aligned bilinear map. Their windows grow with the factor; the other
# parameters were chosen once, by the errors on the two Middlebury scenes at 4x, 8x and 16x taken together, which
# favours these methods in a comparison on the same scenes.
JOINT_BILATERAL_SIGMA_COLOR = 12.0  # in steps of 8-bit colour
JOINT_BILATERAL_SIGMA_SPACE = 0.5  # in blocks of factor x factor pixels; the window reaches one block to each side
GUIDED_FILTER_RADIUS = 0.5  # in blocks
GUIDED_FILTER_EPS = 5.0  # in squared steps of 8-bit colour


class Method(Protocol):
    """A way to upsample; see the module's first lines."""

    def __call__(self, low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor: ...


def bilinear(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """The reference: `aligned_bilinear`, without the guide."""
    return aligned_bilinear(low, _size(guide), valid=low_valid, ratio=factor, offset=offset)


def bilinear_half_pixel(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """As torch's ``interpolate(align_corners=False)`` and OpenCV's ``resize`` would lay the samples: in the middle of
    their blocks, wherever they were taken. The published bilinear rows under `pac` are made so."""
    return aligned_bilinear(low, _size(guide), valid=low_valid, ratio=factor, offset=(factor - 1) / 2)


def nearest(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """The nearest valid sample, without the guide."""
    filled = nearest_valid(low, low_valid)
    rows, columns = (
        ((torch.arange(large) - offset) / factor).round().long().clamp(0, small - 1)
        for large, small in zip(_size(guide), low.shape, strict=True)
    )
    return filled[rows][:, columns]


def bicubic(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Bicubic upsampling (a = -0.75, as PyTorch and OpenCV have it) with the samples where they lie, without the guide.

    It overshoots at edges. Samples that are not valid are first filled with their nearest valid ones.
    """
    rows, columns = (
        2 * (torch.arange(large) - offset) / factor / max(small - 1, 1) - 1
        for large, small in zip(_size(guide), low.shape, strict=True)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).float()
    # Interpolated around the mean, so that the unit's size does not cost float32's digits.
    filled = nearest_valid(low, low_valid)
    mean = filled.mean()
    samples = (filled - mean)[None, None]
    return functional.grid_sample(samples, grid[None], "bicubic", "border", align_corners=True)[0, 0] + mean


def joint_bilateral(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """OpenCV's joint bilateral filter of the aligned bilinear map, its weights taken from the guide.

    Window 2f+1, sigma f/2 pixels in space and `JOINT_BILATERAL_SIGMA_COLOR` in colour.
    """
    import cv2

    start = bilinear(low, low_valid, guide, factor=factor, offset=offset)
    filtered = cv2.ximgproc.jointBilateralFilter(
        _picture(guide).astype("float32"),  # OpenCV wants both of one depth
        start.numpy(),
        2 * factor + 1,
        JOINT_BILATERAL_SIGMA_COLOR,
        JOINT_BILATERAL_SIGMA_SPACE * factor,
    )
    return torch.from_numpy(filtered)


def guided_filter(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """OpenCV's guided filter of the aligned bilinear map, with the colour guide.

    Window f+1 (radius f/2), `GUIDED_FILTER_EPS` in squared steps of 8-bit colour.
    """
    import cv2

    start = bilinear(low, low_valid, guide, factor=factor, offset=offset)
    radius = max(1, round(GUIDED_FILTER_RADIUS * factor))
    return torch.from_numpy(cv2.ximgproc.guidedFilter(_picture(guide), start.numpy(), radius, GUIDED_FILTER_EPS))


def ddfnet(model: Any = "auto", **options: Any) -> Method:
    """`ddfnet.upsample_depth` as a method.

    Args:
        model: "auto", a file of weights, or a `GuidedUpsampler`.
        options: for `upsample_depth`, such as ``tile``.

    Returns:
        The method.
    """

    def method(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        from ddfnet.depth.upsample import upsample_depth

        picture = guide.permute(1, 2, 0)
        place: dict[str, Any] = {"ratio": factor, "offset": offset}
        return upsample_depth(low, picture, valid=low_valid, model=model, fill=True, **place, **options)

    return method


METHODS: dict[str, Method] = {
    "bilinear": bilinear,
    "bilinear-half-pixel": bilinear_half_pixel,
    "nearest": nearest,
    "bicubic": bicubic,
    "joint-bilateral": joint_bilateral,
    "guided-filter": guided_filter,
    "ddfnet": ddfnet(),
}


def _size(guide: Tensor) -> tuple[int, int]:
    return guide.shape[1], guide.shape[2]


def _picture(guide: Tensor) -> Any:
    return guide.permute(1, 2, 0).contiguous().numpy()
