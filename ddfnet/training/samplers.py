"""Which items of a data set make up which batch, so that a resumed run goes on with those that would have come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Sampler

from ddfnet.errors import DataError


def own_share(trainer: Any, size: int) -> int:
    """Of a step's ``size`` items, those of one process and of one of the batches that are accumulated.

    Raises:
        DataError: a step cannot be shared out evenly.
    """
    ranks, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    own, left = divmod(size, ranks * accumulated)
    if left:
        raise DataError(
            f"batch_size must be a multiple of {ranks * accumulated}, {ranks} processes times {accumulated} "
            f"accumulated batches, got {size}"
        )
    return own


class Consecutive(Sampler[list[int]]):
    """Batch t of rank r is the items ``(t * ranks + r) * size`` and those that follow it, ``size`` in all.

    Lightning counts the batches that a resumed run has seen before, but asks the loader for new ones; so the length is
    that of the whole run, while the batches begin with ``first``.

    Args:
        size: items a batch.
        batches: of the whole run, for each rank.
        first: where to begin.
        rank: of this process.
        ranks: processes that share the data.

    Example:
        >>> from ddfnet.training.samplers import Consecutive
        >>> list(Consecutive(2, 4, first=2))
        [[4, 5], [6, 7]]
    """

    def __init__(self, size: int, batches: int, *, first: int = 0, rank: int = 0, ranks: int = 1) -> None:
        self.size, self.batches, self.first, self.rank, self.ranks = size, batches, first, rank, ranks

    @classmethod
    def of_run(cls, trainer: Any, size: int) -> Consecutive:
        """Those of a run that is one epoch of so many steps, from where it is, ``size`` items a step.

        Raises:
            DataError: see `own_share`.
        """
        accumulated = trainer.accumulate_grad_batches
        return cls(
            own_share(trainer, size),
            trainer.max_steps * accumulated,
            first=trainer.global_step * accumulated,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )

    @property
    def items(self) -> int:
        """Of the whole run, in all ranks."""
        return self.batches * self.ranks * self.size

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first, self.batches):
            start = (batch * self.ranks + self.rank) * self.size
            yield list(range(start, start + self.size))


class Passes(Sampler[list[int]]):
    """Batches of `Consecutive`, one pass over a data set at a time, wherever a run is.

    Args:
        size: items a batch.
        batches: of one pass, for each rank.
        done: gives the batches of the run that came before; asked when the first batch of a pass is.
        rank: of this process.
        ranks: processes that share the data.

    Example:
        >>> from ddfnet.training.samplers import Passes
        >>> list(Passes(2, 3, lambda: 1))
        [[2, 3], [4, 5], [6, 7]]
    """

    def __init__(self, size: int, batches: int, done: Callable[[], int], *, rank: int = 0, ranks: int = 1) -> None:
        self.size, self.batches, self.done, self.rank, self.ranks = size, batches, done, rank, ranks

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.done()
        yield from Consecutive(self.size, first + self.batches, first=first, rank=self.rank, ranks=self.ranks)
