"""Progress and early end of one long call, by tiles. Nothing is shown unless a caller asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import Any, TypeVar

_Item = TypeVar("_Item")

_SECONDS = 2.0  # without a bar; most maps are done by then

_watch: ContextVar[Callable[[Sequence[Any]], Iterable[Any]] | None] = ContextVar("watch", default=None)


def track(items: Sequence[_Item]) -> Iterable[_Item]:
    """Return the items, counted by the bar of `progress_bar` where there is one."""
    watch = _watch.get()
    return items if watch is None else watch(items)


def stop_by(event: Event) -> None:
    """End this thread's calls at their next tile once an event is set, by `SystemExit`."""

    def watch(items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            if event.is_set():
                raise SystemExit
            yield item

    _watch.set(watch)


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show a bar on stderr, if that is a terminal, from the second second on: the tiles of all passes that began."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    with tqdm(unit="tile", delay=_SECONDS, disable=None, leave=False, file=sys.stderr) as bar:
        bar.total = 0

        def watch(items: Sequence[Any]) -> Iterator[Any]:
            bar.total += len(items)
            for item in items:
                yield item
                bar.update()

        token = _watch.set(watch)
        try:
            yield
        finally:
            _watch.reset(token)
