"""Parts that several commands share."""

from __future__ import annotations

import ctypes
import logging
import warnings

SUMMARIES = {
    "demo": "upsample a depth map, train three small networks, and see both on a page, in three minutes",
    "upsample": "make a depth map as large and as sharp as an image of the same view",
    "scenes": "render rooms with exact depth, to train guided depth upsampling on",
    "train": "train a network",
    "evaluate": "measure trained networks beside their competitors",
    "export": "write a network or a layer as ONNX or as a program of torch.export, and check it",
    "convert": "official weights, or a checkpoint of a training, to safetensors",
    "bench": "time operator, layer, networks, depth tool and family; compare with committed results",
    "env": "versions, devices, and the kernel that serves each device",
}
"""One line of help for each command, in the order of ``ddfnet --help``, which imports none of them."""

TRAINING_MODULES = ("lightning", "jsonargparse", "torchmetrics", "tensorboard", "safetensors")
"""Modules that every task needs."""


def quiet() -> None:
    """Suppress Lightning's own lines, and the note about the kernel in use."""
    import lightning  # noqa: F401  (creates its loggers, with levels of their own)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")


def mallopt(parameter: int, value: int) -> bool:
    """Set a parameter of glibc's memory allocation for the process; return False where another C library has none."""
    try:
        function = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(function(parameter, value))
