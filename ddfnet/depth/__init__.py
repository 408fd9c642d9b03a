"""Guided upsampling of depth maps: the depth tool, its network, its files and its batch jobs."""

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.depth.upsample import upsample_depth

__all__ = ["GuidedUpsampler", "upsample_depth"]
