"""Checkpoints that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ddfnet import files


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, each written beside its place and put there when it is whole.

    Lightning's own are written to the system's folder for temporary files; from there to another file system they are
    copied, and a run that is killed in that moment leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store, which replaces whole objects
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_open(Path(path)) as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                # torch ends its archive although the disk was full before, and complains of that.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
