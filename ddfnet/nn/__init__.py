"""Layers, and the groups of their parameters for an optimizer."""

from ddfnet.nn.conv import DDFConv2d
from ddfnet.nn.ddf import DDF2d
from ddfnet.nn.filter_norm import FilterNorm
from ddfnet.nn.fused import FusedDDF2d
from ddfnet.nn.groups import param_groups
from ddfnet.nn.upsample import DDFUpsample2d

__all__ = ["DDF2d", "DDFConv2d", "DDFUpsample2d", "FilterNorm", "FusedDDF2d", "param_groups"]
