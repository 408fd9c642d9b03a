"""Benchmarks: cases, measurements beside competitors, and results files."""
