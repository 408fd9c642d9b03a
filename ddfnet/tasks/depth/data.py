"""Batches of synthetic scenes for the training and validation of guided depth upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddfnet.arguments import check_range
from ddfnet.data.depth.mixture import Mixture
from ddfnet.data.depth.rooms.windows import RoomWindows
from ddfnet.data.depth.synthetic import ComposedScenes, check_seed
from ddfnet.training.samplers import ResumableBatchSampler

Batch = dict[str, Tensor]
_PREFETCHED = 4  # batches that a worker may be ahead, for the scenes differ in time


class GuidedDepthData(lightning.LightningDataModule):
    """Batches of composed scenes and rendered rooms.

    Batch t of a run is the same on every worker and after every resumption.

    Args:
        batch_size: scenes per step, over all processes and accumulated batches.
        size: pixels per side.
        multiple: largest factor, which must divide the size.
        workers: processes that compose scenes; 0 for the training process itself.
        photographs: files and folders, for textures, besides those inside scikit-image.
        noise: noise of the depth, see `ComposedScenes`.
        holes: holes in the depth, see `ComposedScenes`.
        misalignment: displacement between depth and image, see `ComposedScenes`.
        sensors: share of scenes that a sensor measures, see `ComposedScenes`.
        validation_scenes: number of validation scenes.
        validation_seed: seed of the validation scenes, the same for all runs.
        seed: seed of the training scenes.
        rooms: folder of `ddfnet scenes render`, nyu8.tar or middlebury15.tar, see
            `ddfnet.data.depth.rooms.windows.RoomWindows`, whose scenes are trained on besides composed ones; None for
            composed scenes alone. Validation scenes are composed always.
        composed: share of composed scenes where there are rooms.
        disparities: share of the windows of ``rooms`` with 1 / depth in place of depth.

    Returns:
        Batches of `ComposedScenes`: ``guide`` (N, 3, S, S), ``depth``, ``measured`` and ``valid`` (N, 1, S, S).

    Raises:
        ValueError: a count or a size below 1; the same seed for both sets; a share that is none; an option that
            `ComposedScenes` refuses.
        DataError: the folder of rooms has no scenes; at the start of a run: a batch cannot be divided among the
            processes.
    """

    def __init__(
        self,
        batch_size: PositiveInt = 8,
        size: PositiveInt = 256,
        multiple: PositiveInt = 16,
        workers: NonNegativeInt = 1,
        photographs: Sequence[str] = (),
        noise: float = 0.0,
        holes: float = 0.0,
        misalignment: float = 0.0,
        sensors: float = 0.0,
        validation_scenes: PositiveInt = 64,
        validation_seed: int = 1_000_003,
        seed: int = 0,
        rooms: str | None = None,
        composed: float = 0.25,
        disparities: float = 0.35,
    ) -> None:
        super().__init__()
        batch_size = check_range("batch_size", batch_size, 1)
        size = check_range("size", size, 1)
        validation_scenes = check_range("validation_scenes", validation_scenes, 1)
        workers = check_range("workers", workers, 0)
        if size % multiple:
            raise ValueError(f"size must be a multiple of the largest factor, {multiple}, got {size}")
        check_seed("seed", seed)
        check_seed("validation_seed", validation_seed)
        if seed == validation_seed:
            raise ValueError(f"validation_seed must differ from seed, or training would see its scenes, got {seed}")
        composed = check_range("composed", composed, 0, 1)
        self.batch_size, self.workers, self.seed, self.composed = batch_size, workers, seed, composed
        self.scenes = partial(
            ComposedScenes,
            size=size,
            more_photographs=tuple(photographs),
            noise=noise,
            holes=holes,
            misalignment=misalignment,
            sensors=sensors,
        )
        self.rooms = None
        if rooms is not None:
            self.rooms = partial(
                RoomWindows,
                rooms,
                size=size,
                disparities=disparities,
                noise=noise,
                holes=holes,
                misalignment=misalignment,
                sensors=sensors,
            )
            # Now: a folder that is missing is found before the run begins.
            self.rooms_are = self.rooms(1).description
        self.validation_set = self.scenes(validation_scenes, seed=validation_seed)

    @property
    def description(self) -> str:
        """Say where the training scenes come from, for the model card."""
        composed = "scenes composed on the fly of photographs (ddfnet.data.depth.synthetic.ComposedScenes)"
        if self.rooms is None:
            return composed
        return f"{self.composed:.0%} {composed}, the others {self.rooms_are}" if self.composed else self.rooms_are

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        if trainer is not None and stage == "fit":
            length = ResumableBatchSampler.from_trainer(trainer, self.batch_size).num_items
            self.train_set: Dataset[Batch] = self.scenes(length, seed=self.seed)
            if self.rooms is not None:
                rooms = self.rooms(length, seed=self.seed)
                self.train_set = Mixture(self.train_set, rooms, length, share=self.composed, seed=self.seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        return self._loader(self.train_set, batch_sampler=ResumableBatchSampler.from_trainer(trainer, self.batch_size))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.validation_set, batch_size=self.batch_size)

    def _loader(self, scenes: Dataset[Batch], **order: Any) -> DataLoader[Batch]:
        import cv2

        # Before the workers are forked: in them, OpenCV would wait for ever for threads that did not survive the fork,
        # and threads of their own would take the cores of the training.
        cv2.setNumThreads(1)
        ahead = _PREFETCHED if self.workers else None
        return DataLoader(scenes, num_workers=self.workers, prefetch_factor=ahead, **order)
