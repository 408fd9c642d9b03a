"""Data sets: one shelf for each task, one module for each source."""
