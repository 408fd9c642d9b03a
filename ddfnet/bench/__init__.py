"""Benchmarks: the timed cases, the runners, and their results documents."""
