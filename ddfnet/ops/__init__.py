"""Operator DDF: public calls, the choice of the kernel that serves them, and the compiled library's file."""

from ddfnet.ops.backends import backend
from ddfnet.ops.functional import ddf, ddf_upsample
from ddfnet.ops.library import library_path

__all__ = ["backend", "ddf", "ddf_upsample", "library_path"]
