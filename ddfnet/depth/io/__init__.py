"""Depth map files: a registry of formats, read safely and written atomically; and guide images."""

from ddfnet.depth.io import pillow, tiff, arrays, headers, exr, hdf5  # isort: skip  # noqa: F401 - in the order of the docs' table
from ddfnet.depth.io.access import read, read_mask, write
from ddfnet.depth.io.guide import GUIDES, read_guide
from ddfnet.depth.io.registry import (
    FORMATS,
    DepthFormat,
    DepthMap,
    NamedFormat,
    check_holds,
    format_of,
    formats,
    register_format,
    stem_of,
    suffix_of,
)

__all__ = [
    "FORMATS",
    "GUIDES",
    "DepthFormat",
    "DepthMap",
    "NamedFormat",
    "check_holds",
    "format_of",
    "formats",
    "read",
    "read_guide",
    "read_mask",
    "register_format",
    "stem_of",
    "suffix_of",
    "write",
]
