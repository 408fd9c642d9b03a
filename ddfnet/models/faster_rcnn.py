"""Faster R-CNN of torchvision on any backbone of timm, with exchangeable upsamplers in its feature pyramid."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from ddfnet.models.fpn import REDUCTIONS, PyramidBackbone
from ddfnet.models.timm_options import check_file_options
from ddfnet.nn.starts import keep_start
from ddfnet.pretrained import PretrainedMixin, register_kind
from ddfnet.pretrained.options import check_option, integer, number, several

_RATIOS = (0.5, 1.0, 2.0)
_POOLED = 7  # height and width of the pooled features of a box
_FILE_OPTIONS = {  # numbers that a file may have
    "width": integer(1, 2**14),
    "head_width": integer(1, 2**16),
    "min_size": several(integer(1, 2**13), alone=True),
    "max_size": integer(1, 2**13),
    "anchor_scale": number(0, 2**13),
}
_COUNT = integer(1, 10**5)
_FILE_RCNN = {
    **dict.fromkeys(("image_mean", "image_std"), several(number(1e-6, 1e6), count=3)),
    "bbox_reg_weights": several(number(1e-6, 1e6), count=4),
    **{f"rpn_{when}_nms_top_n_{mode}": _COUNT for when in ("pre", "post") for mode in ("train", "test")},
    **dict.fromkeys(("rpn_batch_size_per_image", "box_batch_size_per_image", "box_detections_per_img"), _COUNT),
    **{
        f"{part}_{name}": number(0, 1)
        for part in ("rpn", "box")
        for name in ("nms_thresh", "fg_iou_thresh", "bg_iou_thresh", "positive_fraction", "score_thresh")
    },
}
_FORWARDED = ("rpn_", "box_", "image_")  # prefixes of the arguments that torchvision gets unchanged


def check_arguments(arguments: dict[str, Any]) -> None:
    """Check the arguments that a file gives to `Detector`.

    Raises:
        ValueError: an option of the backbone that a file may not have; sizes of images that no memory holds.
    """
    check_file_options(arguments.get("backbone", "resnet50"), arguments.get("backbone_options"))
    for name, rule in _FILE_OPTIONS.items():
        check_option(name, arguments.get(name), {name: rule})
    for name, value in (arguments.get("rcnn") or {}).items():
        check_option(name, value, _FILE_RCNN)


@register_kind("detection", check_options=check_arguments)
class Detector(FasterRCNN, PretrainedMixin):
    """Faster R-CNN with a feature pyramid whose top-down path takes any of `ddfnet.models.upsamplers.UPSAMPLERS`.

    Args:
        classes: names of the classes; labels count them from 1 on, because 0 is the background.
        backbone: network of timm: ``"resnet50.tv_in1k"``, ``"mobilenetv3_small_100"``, ``"ddf_mul_resnet50"`` ...
        upsampler: ``"nearest"``, ``"bilinear"``, ``"deconv"``, ``"pixelshuffle"``, ``"carafe"``, ``"dysample"``,
            ``"ddf"`` or another registered one, see `ddfnet.models.upsamplers.upsampler`.
        width: channels of the pyramid.
        head_width: channels of the two layers that see each box.
        min_size: length of an image's shorter side after scaling, in pixels; training draws from several.
        max_size: largest length of the longer side after scaling, in pixels.
        anchor_scale: side of a level's anchors, in pixels of that level.
        pretrained: whether timm fetches the backbone's weights, or the file with them.
        frozen_stages: number of the backbone's first stages that are frozen, with all layers before them.
        norm: ``"batch"`` trains the backbone's batch normalisation; ``"frozen"`` keeps pretrained statistics and
            weights, which small batches need.
        backbone_options: further arguments of ``timm.create_model``.
        rcnn: further arguments of ``torchvision.models.detection.FasterRCNN``: those that begin with ``rpn_`` or
            ``box_``, ``image_mean`` and ``image_std``.

    Returns:
        From ``forward(images)`` in evaluation mode, with a list of images (3, H, W) from 0 to 1: for each image a
        dictionary of ``boxes`` (n, 4), x0, y0, x1, y1 in pixels, ``labels`` (n,) and ``scores`` (n,).
        From ``forward(images, targets)`` in training mode, with a list of ``{"boxes": (n, 4), "labels": (n,)}``: the
        four losses by name.

    Raises:
        ValueError: an option out of range, or an unknown name.

    Example:
        >>> import torch
        >>> from ddfnet.models.faster_rcnn import Detector
        >>> detector = Detector(["cat"], "mobilenetv3_small_050", "ddf", width=32, min_size=64).eval()
        >>> [found] = detector([torch.rand(3, 64, 80)])
        >>> sorted(found)
        ['boxes', 'labels', 'scores']

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6 and table 6, which name neither the
    kernel size of DDF-Up (3 here) nor the backbone. The paper's network is mmdetection's. This one is torchvision's: it
    pools its last level from the last map, whereas mmdetection's pyramid starts its top-down path at that level.
    """

    def __init__(
        self,
        classes: Sequence[str],
        backbone: str = "resnet50",
        upsampler: str = "ddf",
        *,
        width: int = 256,
        head_width: int = 1024,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        anchor_scale: float = 8.0,
        pretrained: bool | str = False,
        frozen_stages: int = 0,
        norm: str = "batch",
        backbone_options: dict[str, Any] | None = None,
        rcnn: dict[str, Any] | None = None,
    ) -> None:
        names = (classes,) if isinstance(classes, str) else tuple(classes)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"classes must be one name or more, each of them once, got {list(names)}")
        least = min_size if isinstance(min_size, int) else min(min_size, default=0)
        for name, value in (("width", width), ("head_width", head_width), ("anchor_scale", anchor_scale)):
            if value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 < least <= max_size:
            raise ValueError(f"min_size must be from 1 to max_size, {max_size}, got {min_size}")
        if not 0 <= frozen_stages <= len(REDUCTIONS):
            raise ValueError(f"frozen_stages must be from 0 to {len(REDUCTIONS)}, got {frozen_stages}")
        _check_forwarded(rcnn or {})
        sides = [anchor_scale * reduction for reduction in (*REDUCTIONS, 2 * REDUCTIONS[-1])]
        super().__init__(
            PyramidBackbone(
                backbone,
                upsampler,
                width=width,
                pretrained=pretrained,
                frozen_stages=frozen_stages,
                norm=norm,
                options=backbone_options or {},
            ),
            min_size=min_size if isinstance(min_size, int) else tuple(min_size),
            max_size=max_size,
            rpn_anchor_generator=AnchorGenerator(tuple((side,) for side in sides), (_RATIOS,) * len(sides)),
            box_roi_pool=MultiScaleRoIAlign(
                ["0", "1", "2", "3"],
                _POOLED,
                sampling_ratio=2,
                canonical_scale=round(28 * anchor_scale),  # assigns boxes to levels: 224 for anchors of scale 8
            ),
            box_head=TwoMLPHead(width * _POOLED**2, head_width),
            box_predictor=FastRCNNPredictor(head_width, len(names) + 1),
            **(rcnn or {}),
        )
        self.classes = names
        if type(self.rpn.head) is RPNHead:
            for module in self.rpn.head.modules():
                if isinstance(module, nn.Conv2d):
                    keep_start(module, _start_proposals)


def _start_proposals(conv: nn.Conv2d) -> None:
    """Initialize a convolution as torchvision does in the head that proposes regions."""
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


def fasterrcnn_resnet50_fpn(
    upsampler: str = "ddf", *, classes: Sequence[str] | None = None, **options: Any
) -> Detector:
    """Create Faster R-CNN with ResNet-50 and a feature pyramid: the network of the paper's table 6.

    Args:
        upsampler: name of the upsampler of the top-down path, see `Detector`.
        classes: names of the classes; None takes the 80 of COCO.
        options: further arguments of `Detector`.

    Returns:
        The detector. With ``upsampler="nearest"`` it has the weights, by name and shape, and the outputs of
        ``torchvision.models.detection.fasterrcnn_resnet50_fpn`` for as many classes.

    Raises:
        ValueError: as `Detector`.

    Example:
        >>> from ddfnet.models import fasterrcnn_resnet50_fpn
        >>> detector = fasterrcnn_resnet50_fpn("ddf", classes=["RBC", "WBC", "Platelets"])
        >>> f"{sum(p.numel() for p in detector.parameters()) / 1e6:.1f} M parameters"
        '43.0 M parameters'

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, table 6.
    """
    return Detector(coco_classes() if classes is None else classes, "resnet50", upsampler, **options)


def coco_classes() -> list[str]:
    """Return the 80 names of COCO's detection classes in its order, out of torchvision's names of all 91 numbers."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [name for name in names if name not in ("__background__", "N/A")]


def _check_forwarded(arguments: dict[str, Any]) -> None:
    """Refuse arguments that torchvision's network does not take, or that are set here."""
    signature = inspect.signature(FasterRCNN.__init__).parameters
    modules = ("box_roi_pool", "box_head", "box_predictor", "rpn_anchor_generator", "rpn_head")
    allowed = [name for name in signature if name.startswith(_FORWARDED) and name not in modules]
    if unknown := [name for name in arguments if name not in allowed]:
        raise ValueError(f"rcnn must have names among {', '.join(allowed)}, got {', '.join(unknown)}")
