"""Content-adaptive filtering with decoupled dynamic filters (Zhou et al., CVPR 2021)."""

from ddfnet import nn, ops
from ddfnet._version import __version__
from ddfnet.ops import ddf, ddf_upsample

__all__ = ["__version__", "ddf", "ddf_upsample", "nn", "ops"]
