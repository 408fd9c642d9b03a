"""The operator: public calls, and the choice of the kernel that serves them."""

from ddfnet.ops.backends import backend
from ddfnet.ops.functional import ddf, ddf_upsample

__all__ = ["backend", "ddf", "ddf_upsample"]
