"""Estimates of multiply-accumulates and memory, and the handlers of other counting tools."""
