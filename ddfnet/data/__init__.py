"""Data sets and how they are split: one module a source, all giving the same `Splits`."""

from ddfnet.data.splits import DataError, Splits

__all__ = ["DataError", "Splits"]
