"""Labelled images, one module for each source, all giving the same `Splits`."""

from ddfnet.data.classification.splits import Splits

__all__ = ["Splits"]
