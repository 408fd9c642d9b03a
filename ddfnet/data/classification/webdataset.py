"""Labelled pictures from WebDataset shards: tar files that are read from their beginnings to their ends."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ddfnet.data.classification.images import read
from ddfnet.data.seeding import derived_seed
from ddfnet.errors import DataError

_PICTURE = ("jpg", "jpeg", "png", "webp")
_LABEL = "cls"
_BUFFER = 4096  # samples of a stream that are shuffled among themselves
_FIRST = 1024  # of them, before the first comes out


class Sample:
    """A picture that is not decoded yet: calling it gives the picture and its label."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self.sample = sample

    def __call__(self) -> tuple[Image.Image, int]:
        name = f"{self.sample['__url__']}/{self.sample['__key__']}"
        kind = next((kind for kind in _PICTURE if kind in self.sample), None)
        if kind is None or _LABEL not in self.sample:
            raise DataError(f"{name} has no {_LABEL if kind else ' or '.join(_PICTURE)} beside it")
        try:
            label = int(self.sample[_LABEL])
        except ValueError:
            raise DataError(f"{name}.{_LABEL} must hold the number of a class") from None
        return read(io.BytesIO(self.sample[kind]), f"{name}.{kind}"), label


def urls(path: str, part: str | None, training: bool) -> list[str]:
    """The shards that a path names.

    Args:
        path: a folder with ``train-*.tar`` and ``val-*.tar``; or files or addresses, as in
            ``https://host/imagenet-train-{0000..1023}.tar``.
        part: what else the files of the folder begin with, or other files or addresses; None for the path's own.
        training: which of the two.

    Raises:
        DataError: there are none, or one is missing.
    """
    from webdataset.shardlists import expand_urls

    if Path(path).is_dir() and not (part and part.endswith(".tar")):
        prefix = part or ("train" if training else "val")
        if not (found := sorted(str(file) for file in Path(path).glob(f"{prefix}-*.tar"))):
            raise DataError(f"{path} has no shards {prefix}-*.tar")
        return found
    if not training and part is None:
        raise DataError(f"{path} names the shards to train on; name those to measure on as well, with --data.part")
    found = expand_urls(path if training else part)
    for file in found:
        if "://" not in file and not file.startswith("pipe:") and not Path(file).is_file():
            raise DataError(f"{file}: no such shard")
    return found


def samples(shards: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What is in the shards, one after another, undecoded.

    Raises:
        DataError: a shard cannot be read.
    """
    import webdataset

    for shard in shards:
        try:
            yield from webdataset.tariterators.tarfile_samples(iter([{"url": shard}]))
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())
            raise DataError(f"{shard} is a broken shard: {reason}") from None


def _order(shards: Sequence[str], *numbers: int) -> list[str]:
    generator = torch.Generator().manual_seed(derived_seed(*numbers))
    return [shards[index] for index in torch.randperm(len(shards), generator=generator).tolist()]


class ShardBatches:
    """Batch t of a run, from streams of shards that are read in order, each by one worker.

    In each epoch the shards are shuffled and dealt to the streams, and each stream shuffles its samples in a buffer. A
    stream that runs out begins its shards again; what it has left at the end of the epoch is not read. Batch t comes
    from stream t modulo the number of streams, as a DataLoader deals batches to its workers. Whoever asks for a batch
    other than the next one of its stream waits until the samples before it have been read and thrown away: that is how
    a run that was broken off finds its place.

    Args:
        shards: see `urls`.
        size: samples a batch.
        batches: of an epoch, for each rank.
        streams: of each rank; as many as the loader has workers, and at least one.
        seed: of the order.
        rank: of this process.
        ranks: processes that share the shards.
    """

    def __init__(
        self, shards: Sequence[str], *, size: int, batches: int, streams: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self.shards, self.size, self.batches, self.streams = shards, size, batches, streams
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.open: Iterator[dict[str, Any]] = iter(())
        self.next: tuple[int, int, int] | None = None  # epoch, stream and batch that `open` is at

    def __call__(self, positions: Sequence[int]) -> list[Sample]:
        """The samples of the batch that begins with this position; see `ddfnet.training.samplers.Passes`."""
        batch = positions[0] // (self.size * self.ranks)
        epoch, within = divmod(batch, self.batches)
        place = epoch, within % self.streams, within // self.streams
        if place != self.next:
            self.open = islice(self._stream(*place[:2]), place[2] * self.size, None)
        found = [Sample(sample) for sample in islice(self.open, len(positions))]
        self.next = (*place[:2], place[2] + 1)
        return found

    def _stream(self, epoch: int, stream: int) -> Iterator[dict[str, Any]]:
        from webdataset.filters import shuffle

        own, all_ = self.rank * self.streams + stream, self.ranks * self.streams
        for turn in count():
            # Where there are more streams than shards, some share one.
            dealt = _order(self.shards, self.seed, epoch, turn)[own % len(self.shards) :: all_]
            number, empty = derived_seed(self.seed, epoch, turn, own), True
            for sample in shuffle(_BUFFER, initial=_FIRST, seed=number)(samples(dealt)):
                empty = False
                yield sample
            if empty:  # or the turns would never end
                raise DataError(f"{' and '.join(dealt[:2])}{' and others' * (len(dealt) > 2)}: no sample in it")


class EveryShard:
    """Each sample of the shards once: those of this rank and of this worker.

    Args:
        shards: see `urls`.
        rank: of this process.
        ranks: processes that share the shards.
    """

    def __init__(self, shards: Sequence[str], *, rank: int = 0, ranks: int = 1) -> None:
        self.shards, self.rank, self.ranks = shards, rank, ranks

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        own = self.shards[self.rank * workers + number :: self.ranks * workers]
        return map(Sample, samples(own))
