"""Estimates of multiply-accumulates and memory for any module, and handlers for other counting tools.

`estimate` is the public call; `ddfnet.profiler.handlers` makes fvcore, ptflops and thop count DDF layers.
"""

from ddfnet.profiler.estimation import estimate
from ddfnet.profiler.results import Estimate, LayerEstimate, Totals

__all__ = ["Estimate", "LayerEstimate", "Totals", "estimate"]
