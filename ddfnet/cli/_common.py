"""Parts that several commands share."""

from __future__ import annotations

import logging
import warnings

TRAINING_MODULES = ("lightning", "jsonargparse", "torchmetrics", "tensorboard", "safetensors")
"""Modules that every task needs."""


def quiet() -> None:
    """Suppress Lightning's own lines, and the note about the kernel in use."""
    import lightning  # noqa: F401  (creates its loggers, with levels of their own)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")
