"""Official DDF-ResNets, built as their authors did: DDFPack is the 3x3 convolution of timm's bottleneck."""

from __future__ import annotations

from timm.models.resnet import Bottleneck, ResNet

from tests.official_layers import OfficialPack

LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def official_resnet(layers: tuple[int, ...] = (1, 1, 1, 1), num_classes: int = 10, combine: str = "mul") -> ResNet:
    """Build the network with these numbers of blocks per stage, in evaluation mode."""
    # With timm's own start the last scale of each block is zero, and no result would depend on the filters.
    network = ResNet(Bottleneck, layers, num_classes=num_classes, zero_init_last=False)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            conv = block.conv2
            block.conv2 = OfficialPack(conv.in_channels, 3, conv.stride[0], kernel_combine=combine)
    return network.eval()
