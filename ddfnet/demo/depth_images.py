"""Images of the upsampled depth map for the page: maps, errors, close-ups, and points seen from the side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddfnet.data.depth.synthetic import ComposedScenes
from ddfnet.demo import images
from ddfnet.demo.depth import TITLES, Crop, UpsampledDepth
from ddfnet.depth.point_view import point_views

_DEPTHS, _ERRORS = "viridis", "magma"
_NO_DEPTH, _NOT_SCORED = 150, 70  # greys
_SEEN_ASIDE = ("bilinear", "joint-bilateral", "ddfnet")
_COMPOSED = 4
_COMPOSED_SIZE = 256


def shown(upsampled: UpsampledDepth) -> dict[str, Any]:
    """Return the contents of the page: images, and the ends of their scales."""
    scene = upsampled.scene
    guide = scene.guide.permute(1, 2, 0).numpy()
    far, near = upsampled.colour_limits()
    rmse = {row.method: row.rmse for row in upsampled.rows}
    everywhere = torch.ones_like(scene.valid)

    def depths(values: Tensor, valid: Tensor) -> str:
        return images.mapped(values, far, near, _DEPTHS, ~valid, _NO_DEPTH)

    def errors(values: Tensor) -> str:
        error = (values - scene.depth).abs()
        return images.mapped(error, 0, upsampled.error_limit(), _ERRORS, ~upsampled.scored, _NOT_SCORED)

    def zoom(box: Crop) -> dict[str, Any]:
        part = box.slices
        return {
            "photograph": images.png(guide[part]),
            "truth": depths(scene.depth[part], scene.valid[part]),
            "methods": [
                {
                    "title": TITLES[name],
                    "rmse": upsampled.rmse(name, box),
                    "image": depths(own[part], everywhere[part]),
                }
                for name, own in upsampled.maps.items()
            ],
        }

    truth = torch.where(scene.valid, scene.depth, 0)
    aside = [upsampled.maps[name].numpy() for name in _SEEN_ASIDE] + [truth.numpy()]
    known = scene.depth[scene.valid]
    limits = known.min().item(), known.max().item()
    views = point_views(aside, guide, limits=limits, nearer="large", yaw=35, pitch=14, relief=0.5)
    return {
        "ratio": {row.method: row.ratio for row in upsampled.rows},
        "headers": upsampled.headers(),
        "rows": upsampled.cells(),
        "photograph": images.boxed(guide, [(b.top, b.left, b.height, b.width) for b in upsampled.boxes]),
        "given": depths(upsampled.low, upsampled.low_valid),
        "ours": depths(upsampled.maps["ddfnet"], everywhere),
        "depth_ramp": images.ramp(_DEPTHS),
        "error_ramp": images.ramp(_ERRORS),
        "greys": {"no_depth": _NO_DEPTH, "not_scored": _NOT_SCORED},
        "wholes": [
            {
                "title": TITLES[name],
                "rmse": rmse[name],
                "depth": depths(own, everywhere),
                "error": errors(own),
            }
            for name, own in upsampled.maps.items()
        ],
        "zooms": [zoom(box) for box in upsampled.boxes],
        "views": [
            {"title": title, "image": images.jpeg(view)}
            for title, view in zip([*(TITLES[name] for name in _SEEN_ASIDE), "as measured"], views, strict=True)
        ],
        "composed": _composed(),
    }


def _composed() -> list[dict[str, str]]:
    """Draw the first synthetic scenes of `ddfnet train depth`, of scikit-image's photographs."""
    scenes = ComposedScenes(_COMPOSED, _COMPOSED_SIZE)
    result = []
    for scene in (scenes[number] for number in range(_COMPOSED)):
        depth, valid = scene["depth"][0], scene["valid"][0]
        low, high = depth.min().item(), depth.max().item()
        result.append(
            {
                "photograph": images.jpeg(scene["guide"].permute(1, 2, 0).numpy()),
                "depth": images.mapped(depth, low, high, _DEPTHS, ~valid, _NO_DEPTH),
            }
        )
    return result
