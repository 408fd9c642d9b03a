"""Feature pyramids with exchangeable upsamplers, and their backbones."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from ddfnet.models.upsamplers import upsampler as build_upsampler
from ddfnet.nn.starts import keep_start
from ddfnet.ops.recording import recordable
from ddfnet.pretrained import reading_weights

REDUCTIONS = [4, 8, 16, 32]
"""Strides of the maps in pixels of the image."""
_NORMS = ("batch", "frozen")


class UpsamplingPyramid(FeaturePyramidNetwork):
    r"""Feature pyramid of torchvision whose top-down path takes any of `ddfnet.models.upsamplers.UPSAMPLERS`.

    .. math::
        m_l = W_l c_l + \mathrm{up}_l(m_{l+1}), \qquad p_l = V_l m_l

    with a separate upsampler on each level. Maps of odd size are cropped after it.

    Args:
        in_channels_list: channels of the maps, from the finest to the coarsest.
        out_channels: C of all outputs.
        upsampler: name of an upsampler, see `ddfnet.models.upsamplers.upsampler`.
        extra_blocks: block of torchvision for further levels.
        norm_layer: normalisation layer of torchvision's pyramid.

    Returns:
        From ``forward(maps)`` with maps (N, C_l, H_l, W_l) by name, each half as large as the one before, rounded up:
        the pyramid (N, C, H_l, W_l) by name.

    Raises:
        ValueError: an unknown upsampler; maps that do not halve.

    Example:
        >>> import torch
        >>> from ddfnet.models.fpn import UpsamplingPyramid
        >>> maps = {"fine": torch.randn(1, 8, 25, 30), "coarse": torch.randn(1, 16, 13, 15)}
        >>> {name: tuple(p.shape) for name, p in UpsamplingPyramid([8, 16], 32, "ddf")(maps).items()}
        {'fine': (1, 32, 25, 30), 'coarse': (1, 32, 13, 15)}

    Source: Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017; the package's upsamplers are those of
    table 6 of Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021. With ``"nearest"`` weights and outputs are
    those of torchvision.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        upsampler: str = "ddf",
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__(list(in_channels_list), out_channels, extra_blocks, norm_layer)
        for module in (*self.inner_blocks.modules(), *self.layer_blocks.modules()):
            if isinstance(module, nn.Conv2d):
                keep_start(module, _start_block)
        self.upsamplers = nn.ModuleList(build_upsampler(upsampler, out_channels) for _ in in_channels_list[1:])

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        names, maps = list(x), list(x.values())
        merged = [block(level) for block, level in zip(self.inner_blocks, maps, strict=True)]
        for finer in reversed(range(len(merged) - 1)):
            larger = self.upsamplers[finer](merged[finer + 1])
            _check_halves(merged[finer], merged[finer + 1], larger)
            height, width = merged[finer].shape[2:]
            merged[finer] = merged[finer] + larger[:, :, :height, :width]
        results = [block(level) for block, level in zip(self.layer_blocks, merged, strict=True)]
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return OrderedDict(zip(names, results, strict=True))


def _start_block(conv: nn.Conv2d) -> None:
    """Initialize a convolution as torchvision does in a pyramid."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@recordable
def _check_halves(fine: Tensor, coarse: Tensor, larger: Tensor) -> None:
    above, beside = larger.shape[2] - fine.shape[2], larger.shape[3] - fine.shape[3]
    # Compared, not looked for in a tuple: for that torch.compile (2.14.1) makes a backward pass with the strides of its
    # example, which raises at other sizes.
    if above < 0 or above > 1 or beside < 0 or beside > 1:
        height, width = fine.shape[2:]
        raise ValueError(
            f"each map must be half as large as the one before, rounded up, got {height}x{width} and then "
            f"{tuple(coarse.shape[2:])}"
        )


class PyramidBackbone(nn.Module):
    """Network of timm with a pyramid on its maps of 1/4 to 1/32, and one more level pooled from the last.

    Args: see `ddfnet.models.faster_rcnn.Detector`.

    Returns:
        From ``forward(x)`` with x (N, 3, H, W): the levels (N, width, H/4, W/4) to (N, width, H/64, W/64), by name.
    """

    def __init__(
        self,
        name: str,
        upsampler: str,
        *,
        width: int,
        pretrained: bool | str,
        frozen_stages: int,
        norm: str,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"norm must be {' or '.join(map(repr, _NORMS))}, got {norm!r}")
        if not timm.is_model(timm.models.split_model_name_tag(name)[0]):
            raise ValueError(f"backbone must be the name of a network of timm (timm.list_models()), got {name!r}")
        with reading_weights(Path(pretrained)) if isinstance(pretrained, str) else contextlib.nullcontext():
            if isinstance(pretrained, str):
                options = {**options, "pretrained_cfg_overlay": {"file": pretrained}}
            body = timm.create_model(
                name, pretrained=bool(pretrained), features_only=True, out_indices=(-4, -3, -2, -1), **options
            )
        if body.feature_info.reduction() != REDUCTIONS:
            raise ValueError(
                f"backbone must have maps of 1/4, 1/8, 1/16 and 1/32 of the image, got {name!r} with "
                + ", ".join(f"1/{reduction}" for reduction in body.feature_info.reduction())
            )
        _freeze(body, frozen_stages)
        self.body = freeze_batch_norm_2d(body) if norm == "frozen" else body
        self.fpn = UpsamplingPyramid(body.feature_info.channels(), width, upsampler, LastLevelMaxPool())
        self.out_channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        own = next(self.parameters()).dtype
        levels: dict[str, Tensor] = self.fpn({str(level): each for level, each in enumerate(self.body(x.to(own)))})
        if not isinstance(x, Tensor) or own == x.dtype:  # the stand-in of a tracer has no type to compare
            return levels
        return {name: each.to(x.dtype) for name, each in levels.items()}  # the heads compute with corners of boxes


def _freeze(body: nn.Module, stages: int) -> None:
    """Freeze the first stages and all layers before them."""
    if not stages:
        return
    last = body.feature_info.module_name()[stages - 1]  # type: ignore[operator, union-attr]
    parameters = list(body.named_parameters())
    # timm flattens some networks, and then replaces the dots in the names of modules by underscores.
    own = [i for i, (name, _) in enumerate(parameters) if name.startswith((f"{last}.", f"{last.replace('.', '_')}."))]
    if not own:
        raise ValueError(f"frozen_stages must be 0 for a backbone whose stages timm does not name, got {stages}")
    for _, parameter in parameters[: own[-1] + 1]:
        parameter.requires_grad_(False)
