"""Arithmetic of the official layers, written out with F.unfold."""

import math

import torch.nn.functional as F

from ddfnet import compat


def unfold_ddf(x, channel, spatial, k, dilation=1, stride=1, combine="mul"):
    """Compute the official operator, with one head."""
    batch, channels = x.shape[:2]
    windows = F.unfold(x, k, dilation, (k - 1) // 2 * dilation, stride).reshape(
        batch, channels, k * k, *spatial.shape[2:]
    )
    channel, spatial = channel.reshape(batch, channels, k * k, 1, 1), spatial[:, None]
    return (windows * (channel * spatial if combine == "mul" else channel + spatial)).sum(2)


def filter_norm(filters, scale):
    """Normalize filters over their taps, which are dimension 2."""
    filters = filters - filters.mean(2, keepdim=True)
    return filters / (filters.std(2, keepdim=True) + 1e-10) * scale


def official_spatial(state, prefix, x, k, gain, stride=1):
    """Return the result of a spatial branch, one filter per pixel and head: (N, G, k*k, H, W)."""
    filters = F.conv2d(x, state[f"{prefix}.0.weight"], state[f"{prefix}.0.bias"], stride)
    return filter_norm(filters.unflatten(1, (-1, k * k)), gain / k)


def official_channel(state, prefix, x, k):
    """Return the result of a channel branch: (N, C, k*k)."""
    filters = F.adaptive_avg_pool2d(x, 1)
    filters = F.relu(F.conv2d(filters, state[f"{prefix}.1.weight"], state[f"{prefix}.1.bias"]))
    filters = F.conv2d(filters, state[f"{prefix}.3.weight"], state[f"{prefix}.3.bias"]).reshape(len(x), -1, k * k)
    return filter_norm(filters, state[f"{prefix}.4.std"].reshape(-1, k * k))


def each_head(x, channel, spatial, *geometry):
    """Filter as the official layers do with heads: each is a sample of its own."""
    batch, heads = spatial.shape[:2]
    parts = [tensor.unflatten(1, (heads, -1)).flatten(0, 1) for tensor in (x, channel)]
    return unfold_ddf(*parts, spatial.flatten(0, 1), *geometry).unflatten(0, (batch, heads)).flatten(1, 2)


class OfficialPack(compat.DDFPack):
    """Official arithmetic on the weights of a `DDFPack`, with ReLU after it, as in the networks."""

    def forward(self, x):
        k, state = self.kernel_size, self.state_dict()
        spatial = official_spatial(state, "spatial_branch", x, k, math.sqrt(2), self.stride)
        channel = official_channel(state, "channel_branch", x, k)
        return each_head(x, channel, spatial, k, self.dilation, self.stride, self.kernel_combine)
