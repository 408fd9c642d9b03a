"""The cases that are timed, and the runner that times them; imported as ``ddfnet.benchmarks``."""
