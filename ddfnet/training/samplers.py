"""Batches of a run, such that a resumed run continues with the batch that would have come next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Sampler

from ddfnet.errors import DataError


def per_rank_batch_size(trainer: Any, batch_size: int) -> int:
    """Divide the items of a step among the processes and the accumulated batches.

    Raises:
        DataError: a step cannot be divided evenly.
    """
    ranks, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    own, left = divmod(batch_size, ranks * accumulated)
    if left:
        raise DataError(
            f"batch_size must be a multiple of {ranks * accumulated}, {ranks} processes times {accumulated} "
            f"accumulated batches, got {batch_size}"
        )
    return own


class ResumableBatchSampler(Sampler[list[int]]):
    """Batches of consecutive items: batch t of rank r starts with item ``(t * world_size + r) * batch_size``.

    Lightning counts the batches that a resumed run has seen, but asks the loader for new ones. So the length is that of
    the whole run, while iteration starts with ``first_batch``.

    Args:
        batch_size: items per batch.
        num_batches: batches of the whole run, per rank.
        first_batch: the batch to start with.
        rank: rank of this process.
        world_size: number of processes that share the data.

    Example:
        >>> from ddfnet.training.samplers import ResumableBatchSampler
        >>> list(ResumableBatchSampler(2, 4, first_batch=2))
        [[4, 5], [6, 7]]
    """

    def __init__(
        self, batch_size: int, num_batches: int, *, first_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batch_size, self.num_batches, self.first_batch = batch_size, num_batches, first_batch
        self.rank, self.world_size = rank, world_size

    @classmethod
    def from_trainer(cls, trainer: Any, batch_size: int) -> ResumableBatchSampler:
        """Return the rest of a run that is one epoch of ``trainer.max_steps``, with ``batch_size`` items per step.

        Raises:
            DataError: see `per_rank_batch_size`.
        """
        accumulated = trainer.accumulate_grad_batches
        return cls(
            per_rank_batch_size(trainer, batch_size),
            trainer.max_steps * accumulated,
            first_batch=trainer.global_step * accumulated,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    @property
    def num_items(self) -> int:
        """Items of the whole run, over all ranks."""
        return self.num_batches * self.world_size * self.batch_size

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first_batch, self.num_batches):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of `ResumableBatchSampler`, one epoch at a time.

    Args:
        batch_size: items per batch.
        num_batches: batches of one epoch, per rank.
        batches_done: returns the number of earlier batches of the run; called at the start of each epoch.
        rank: rank of this process.
        world_size: number of processes that share the data.

    Example:
        >>> from ddfnet.training.samplers import EpochBatchSampler
        >>> list(EpochBatchSampler(2, 3, lambda: 1))
        [[2, 3], [4, 5], [6, 7]]
    """

    def __init__(
        self,
        batch_size: int,
        num_batches: int,
        batches_done: Callable[[], int],
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch_size, self.num_batches, self.batches_done = batch_size, num_batches, batches_done
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.batches_done()
        yield from ResumableBatchSampler(
            self.batch_size,
            first + self.num_batches,
            first_batch=first,
            rank=self.rank,
            world_size=self.world_size,
        )
