"""Methods of depth upsampling: this package and its baselines, with one signature.

A method takes the small map ``low`` (h, w), float32, its validity (h, w), bool, and the image ``guide`` (3, H, W),
uint8; sample i lies on pixel ``i * factor + offset``. It returns (H, W), float32, every pixel filled.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ddfnet.depth.alignment import AxisAlignment, aligned_bilinear, nearest_valid

# OpenCV's two filters run at full size on the aligned bilinear map. Their windows grow with the factor; the other
# parameters were chosen once, by the errors on the two Middlebury scenes at 4x, 8x and 16x taken together, which
# favours these methods in a comparison on the same scenes.
JOINT_BILATERAL_SIGMA_COLOR = 12.0  # in steps of 8-bit colour
JOINT_BILATERAL_SIGMA_SPACE = 0.5  # in blocks of factor x factor pixels; the window reaches one block to each side
GUIDED_FILTER_RADIUS = 0.5  # in blocks
GUIDED_FILTER_EPS = 5.0  # in squared steps of 8-bit colour


class Method(Protocol):
    """Method of upsampling; see the module's docstring."""

    def __call__(self, low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor: ...


def bilinear(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Upsample by `aligned_bilinear`, the reference, without the guide."""
    return aligned_bilinear(low, _size(guide), valid=low_valid, ratio=factor, offset=offset)


def bilinear_half_pixel(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Upsample bilinearly with the samples in the middle of their blocks, wherever they were taken.

    So do torch's ``interpolate(align_corners=False)`` and OpenCV's ``resize``, and the published bilinear rows under
    `pac`.
    """
    return aligned_bilinear(low, _size(guide), valid=low_valid, ratio=factor, offset=(factor - 1) / 2)


def nearest(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Take the nearest valid sample, without the guide."""
    rows, columns = (
        AxisAlignment(samples, pixels, factor, offset).nearest_sample()
        for samples, pixels in zip(low.shape, _size(guide), strict=True)
    )
    return nearest_valid(low, low_valid)[rows][:, columns]


def bicubic(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Upsample bicubically (a = -0.75, as PyTorch and OpenCV do) with the samples where they lie, without the guide.

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


def bicubic_pillow(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Upsample by Pillow's bicubic filter (a = -0.5), without the guide: the bicubic row of published `gdsr` tables.

    The samples lie in the middle of their blocks, wherever they were taken. It overshoots at edges. Samples that are
    not valid are first filled with their nearest valid ones.
    """
    from PIL import Image

    height, width = _size(guide)
    rows, columns = (samples * factor for samples in low.shape)
    small = Image.fromarray(nearest_valid(low, low_valid).numpy())
    blocks = torch.from_numpy(np.array(small.resize((columns, rows), Image.Resampling.BICUBIC)))
    # The last pixels can lie behind the last block, where every f-th pixel was taken.
    return blocks[torch.arange(height).clamp(max=rows - 1)][:, torch.arange(width).clamp(max=columns - 1)]


def joint_bilateral(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Apply OpenCV's joint bilateral filter to the aligned bilinear map, with weights from the guide.

    Window 2f+1, sigma f/2 pixels in space and `JOINT_BILATERAL_SIGMA_COLOR` in colour.
    """
    import cv2

    start = bilinear(low, low_valid, guide, factor=factor, offset=offset)
    filtered = cv2.ximgproc.jointBilateralFilter(
        _image(guide).astype("float32"),  # OpenCV wants both of one depth
        start.numpy(),
        2 * factor + 1,
        JOINT_BILATERAL_SIGMA_COLOR,
        JOINT_BILATERAL_SIGMA_SPACE * factor,
    )
    return torch.from_numpy(filtered)


def guided_filter(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
    """Apply OpenCV's guided filter to the aligned bilinear map, with the colour guide.

    Window f+1 (radius f/2), `GUIDED_FILTER_EPS` in squared steps of 8-bit colour.
    """
    import cv2

    start = bilinear(low, low_valid, guide, factor=factor, offset=offset)
    radius = max(1, round(GUIDED_FILTER_RADIUS * factor))
    return torch.from_numpy(cv2.ximgproc.guidedFilter(_image(guide), start.numpy(), radius, GUIDED_FILTER_EPS))


def ddfnet(model: Any = "auto", **options: Any) -> Method:
    """Return `ddfnet.upsample_depth` as a method.

    Args:
        model: "auto", a file of weights, or a `GuidedUpsampler`.
        options: for `upsample_depth`, such as ``tile``.

    Returns:
        The method.
    """

    def method(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        from ddfnet.depth.upsample import upsample_depth

        image = guide.permute(1, 2, 0)
        alignment: dict[str, Any] = {"ratio": factor, "offset": offset}
        return upsample_depth(low, image, valid=low_valid, model=model, fill=True, **alignment, **options)

    return method


METHODS: dict[str, Method] = {
    "bilinear": bilinear,
    "bilinear-half-pixel": bilinear_half_pixel,
    "nearest": nearest,
    "bicubic": bicubic,
    "bicubic-pillow": bicubic_pillow,
    "joint-bilateral": joint_bilateral,
    "guided-filter": guided_filter,
    "ddfnet": ddfnet(),
}


def _size(guide: Tensor) -> tuple[int, int]:
    return guide.shape[1], guide.shape[2]


def _image(guide: Tensor) -> Any:
    return guide.permute(1, 2, 0).contiguous().numpy()
