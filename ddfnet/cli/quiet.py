"""Silence for what a command says itself."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Keep to what the user should read: no lines of Lightning's, and none about which kernel serves."""
    import lightning  # noqa: F401  (its loggers exist, with levels of their own, from here on)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")
