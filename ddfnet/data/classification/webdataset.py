"""Labelled images from WebDataset shards: tar files that are read from start to end."""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ddfnet.data.archives import members
from ddfnet.data.seeding import derived_seed
from ddfnet.errors import DataError
from ddfnet.images import read_image

_IMAGE = ("jpg", "jpeg", "png", "webp")
_LABEL = "cls"
_BUFFER = 4096  # samples of a stream in the shuffle buffer
_FIRST = 1024  # samples in the buffer before the first one is given
_HTTP = re.compile("https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[\s\x00-\x20]*[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # urllib passes over blanks as well


class EncodedImage:
    """An image that is not decoded yet; a call returns the image and its label."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self.sample = sample

    def __call__(self) -> tuple[Image.Image, int]:
        name = f"{self.sample['__url__']}/{self.sample['__key__']}"
        kind = next((kind for kind in _IMAGE if kind in self.sample), None)
        if kind is None or _LABEL not in self.sample:
            raise DataError(f"{name} has no {_LABEL if kind else ' or '.join(_IMAGE)} beside it")
        try:
            label = int(self.sample[_LABEL])
        except ValueError:
            raise DataError(f"{name}.{_LABEL} must hold the number of a class") from None
        return read_image(io.BytesIO(self.sample[kind]), f"{name}.{kind}"), label


def urls(path: str, part: str | None, training: bool, *, allow_pipe: bool = False) -> list[str]:
    """Return the shards of a path: absolute paths and addresses.

    Args:
        path: a folder with ``train-*.tar`` and ``val-*.tar``; or files or addresses, as in
            ``https://host/imagenet-train-{0000..1023}.tar``.
        part: prefix of the folder's files instead of ``val``, or other files or addresses; None for the path's own.
        training: the shards for training, instead of validation.
        allow_pipe: take all of webdataset's addresses, such as ``pipe:COMMAND``, for which it runs commands; otherwise
            files and http(s) alone.

    Raises:
        DataError: there are no shards, or one is missing; an address is not allowed.
    """
    files = part and (part.endswith(".tar") or _SCHEME.match(part) or Path(part).is_absolute())
    if _is(Path.is_dir, path) and not files:
        prefix = part or ("train" if training else "val")
        pattern = f"{glob.escape(prefix)}-*.tar"
        if not (found := sorted(str(file.absolute()) for file in Path(path).glob(pattern))):
            raise DataError(f"{path} has no shards {prefix}-*.tar")
        return found
    if not training and part is None:
        raise DataError(f"{path} names the shards for training; name those for validation too, with --data.part")
    return [_checked(each, allow_pipe) for each in _expanded(path if training else part or "")]


def _expanded(text: str) -> list[str]:
    from webdataset.shardlists import expand_urls

    try:
        found: list[str] = expand_urls(text)
    except (AssertionError, ValueError) as error:  # an unknown variable, or braces that do not match
        raise DataError(f"{text}: files or addresses of shards are required, got {error}") from None
    return found


def _checked(shard: str, allow_pipe: bool) -> str:
    """Return a file by its absolute path, which is never taken for an address, and an address as it is."""
    if _is(Path.is_file, shard):
        return str(Path(shard).absolute())
    if _HTTP.match(shard) or (allow_pipe and _SCHEME.match(shard)):
        return shard
    if not _SCHEME.match(shard):
        raise DataError(f"{shard}: no such shard")
    raise DataError(
        f"{shard}: a shard must be a file or an address of http(s), since webdataset runs commands for others; if you "
        "trust it, give --data.allow_pipe true (ddfnet evaluate: --allow-pipe) on the command line"
    )


def _is(kind: Callable[[Path], bool], text: str) -> bool:
    """Return whether a text is the path of that kind; a list of addresses can be longer than a path."""
    try:
        return kind(Path(text))
    except OSError:
        return False


def samples(shards: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the samples of the shards one after another, undecoded.

    Args:
        shards: see `urls`.

    Raises:
        DataError: a shard cannot be read.
    """
    from webdataset.tariterators import group_by_keys

    for shard in shards:
        try:
            with closing(_open(shard)) as stream:
                files = (
                    {"fname": name, "data": data, "__url__": shard} for name, data in members(stream, shard, ahead=True)
                )
                yield from group_by_keys(files)
        except DataError:
            raise
        except (OSError, ValueError, AssertionError, ImportError) as error:  # webdataset's, of an address
            reason = " ".join(str(error.args[0] if error.args else error).split())
            raise DataError(f"{shard} is a broken shard: {reason}") from None


def _open(shard: str) -> Any:
    from webdataset.gopen import gopen, gopen_curl

    if Path(shard).is_absolute():
        return Path(shard).open("rb")
    # Not gopen for http(s): the environment could make another address of it, such as a command.
    return gopen_curl(shard) if _HTTP.match(shard) else gopen(shard)


def _order(shards: Sequence[str], *numbers: int) -> list[str]:
    generator = torch.Generator().manual_seed(derived_seed(*numbers))
    return [shards[index] for index in torch.randperm(len(shards), generator=generator).tolist()]


class ShardBatches:
    """Batch t of a run, from streams of shards, each read in order by one worker.

    In each epoch the shards are shuffled and dealt to the streams, and each stream shuffles its samples in a buffer. A
    stream that runs out starts its shards again; its rest at the end of the epoch is not read. Batch t comes from
    stream t modulo the number of streams, as a DataLoader deals batches to its workers. For a batch that is not the
    next one of its stream, as after a resumption, the samples before it are read and discarded.

    Args:
        shards: see `urls`.
        batch_size: samples per batch.
        num_batches: batches per epoch and rank.
        streams: number of streams per rank: as many as the loader has workers, and at least one.
        seed: seed of the order.
        rank: rank of this process.
        world_size: number of processes that share the shards.
    """

    def __init__(
        self,
        shards: Sequence[str],
        *,
        batch_size: int,
        num_batches: int,
        streams: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.shards, self.batch_size, self.num_batches, self.streams = shards, batch_size, num_batches, streams
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.open: Iterator[dict[str, Any]] = iter(())
        self.next: tuple[int, int, int] | None = None  # epoch, stream and batch of `open`

    def __call__(self, positions: Sequence[int]) -> list[EncodedImage]:
        """Return the samples of the batch whose first position is given, see `EpochBatchSampler`."""
        batch = positions[0] // (self.batch_size * self.world_size)
        epoch, within = divmod(batch, self.num_batches)
        place = epoch, within % self.streams, within // self.streams
        if place != self.next:
            self.open = islice(self._stream(*place[:2]), place[2] * self.batch_size, None)
        found = [EncodedImage(sample) for sample in islice(self.open, len(positions))]
        self.next = (*place[:2], place[2] + 1)
        return found

    def _stream(self, epoch: int, stream: int) -> Iterator[dict[str, Any]]:
        from webdataset.filters import shuffle

        own, all_ = self.rank * self.streams + stream, self.world_size * self.streams
        for turn in count():
            # With more streams than shards, some streams share one.
            dealt = _order(self.shards, self.seed, epoch, turn)[own % len(self.shards) :: all_]
            number, empty = derived_seed(self.seed, epoch, turn, own), True
            for sample in shuffle(_BUFFER, initial=_FIRST, seed=number)(samples(dealt)):
                empty = False
                yield sample
            if empty:  # else the turns would never end
                raise DataError(f"{' and '.join(dealt[:2])}{' and others' * (len(dealt) > 2)}: no sample in it")


class EveryShard:
    """Each sample of this rank's and this worker's shards once.

    Args:
        shards: see `urls`.
        rank: rank of this process.
        world_size: number of processes that share the shards.
    """

    def __init__(self, shards: Sequence[str], *, rank: int = 0, world_size: int = 1) -> None:
        self.shards, self.rank, self.world_size = shards, rank, world_size

    def __iter__(self) -> Iterator[EncodedImage]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        own = self.shards[self.rank * workers + number :: self.world_size * workers]
        return map(EncodedImage, samples(own))
