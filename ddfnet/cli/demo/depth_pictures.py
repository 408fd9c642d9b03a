"""What the demo shows of the enlarged depth map: maps, errors, edges up close, and the points seen from the side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddfnet.cli import pictures
from ddfnet.cli.demo.depth import TITLES, Enlarged, Window
from ddfnet.data.depth.synthetic import ComposedScenes
from ddfnet.depth.point_view import point_views

_DEPTHS, _ERRORS = "viridis", "magma"
_NO_DEPTH, _NOT_SCORED = 150, 70  # greys
_SEEN_ASIDE = ("bilinear", "joint-bilateral", "ddfnet")
_COMPOSED = 4
_COMPOSED_SIZE = 256


def shown(enlarged: Enlarged) -> dict[str, Any]:
    """For the page: pictures, and the ends of their scales."""
    scene = enlarged.scene
    guide = scene.guide.permute(1, 2, 0).numpy()
    far, near = enlarged.colour_limits()
    rmse = {row.method: row.rmse for row in enlarged.rows}
    everywhere = torch.ones_like(scene.valid)

    def depths(values: Tensor, valid: Tensor) -> str:
        return pictures.mapped(values, far, near, _DEPTHS, ~valid, _NO_DEPTH)

    def errors(values: Tensor) -> str:
        error = (values - scene.depth).abs()
        return pictures.mapped(error, 0, enlarged.error_limit(), _ERRORS, ~enlarged.scored, _NOT_SCORED)

    def zoom(window: Window) -> dict[str, Any]:
        part = window.slices
        return {
            "photograph": pictures.exact(guide[part]),
            "truth": depths(scene.depth[part], scene.valid[part]),
            "methods": [
                {
                    "title": TITLES[name],
                    "rmse": enlarged.rmse(name, window),
                    "picture": depths(own[part], everywhere[part]),
                }
                for name, own in enlarged.maps.items()
            ],
        }

    truth = torch.where(scene.valid, scene.depth, 0)
    aside = [enlarged.maps[name].numpy() for name in _SEEN_ASIDE] + [truth.numpy()]
    known = scene.depth[scene.valid]
    limits = known.min().item(), known.max().item()
    views = point_views(aside, guide, limits=limits, nearer="large", yaw=35, pitch=14, relief=0.5)
    return {
        "ratio": {row.method: row.ratio for row in enlarged.rows},
        "headers": enlarged.headers(),
        "rows": enlarged.cells(),
        "photograph": pictures.boxed(guide, [(w.top, w.left, w.height, w.width) for w in enlarged.windows]),
        "given": depths(enlarged.low, enlarged.low_valid),
        "ours": depths(enlarged.maps["ddfnet"], everywhere),
        "depth_ramp": pictures.ramp(_DEPTHS),
        "error_ramp": pictures.ramp(_ERRORS),
        "greys": {"no_depth": _NO_DEPTH, "not_scored": _NOT_SCORED},
        "wholes": [
            {
                "title": TITLES[name],
                "rmse": rmse[name],
                "depth": depths(own, everywhere),
                "error": errors(own),
            }
            for name, own in enlarged.maps.items()
        ],
        "zooms": [zoom(window) for window in enlarged.windows],
        "views": [
            {"title": title, "picture": pictures.compressed(view)}
            for title, view in zip([*(TITLES[name] for name in _SEEN_ASIDE), "as measured"], views, strict=True)
        ],
        "composed": _composed(),
    }


def _composed() -> list[dict[str, str]]:
    """The first scenes that `ddfnet train depth` would compose of scikit-image's photographs."""
    scenes = ComposedScenes(_COMPOSED, _COMPOSED_SIZE)
    result = []
    for scene in (scenes[number] for number in range(_COMPOSED)):
        depth, valid = scene["depth"][0], scene["valid"][0]
        low, high = depth.min().item(), depth.max().item()
        result.append(
            {
                "photograph": pictures.compressed(scene["guide"].permute(1, 2, 0).numpy()),
                "depth": pictures.mapped(depth, low, high, _DEPTHS, ~valid, _NO_DEPTH),
            }
        )
    return result
