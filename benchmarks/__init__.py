"""The cases that are timed, and what times them; imported as ``ddfnet.benchmarks``."""
