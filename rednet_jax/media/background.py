"""Threads that decode and encode frames while the network runs."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], count: int = 4) -> Generator[T, None, None]:
    """Yields the items of an iterable, which a thread produces up to `count` in advance.

    An exception of `items` is raised in place of its item. Close the generator before the source of
    `items`.
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as pool, contextlib.suppress(StopIteration):
        ready = deque(pool.submit(next, source) for _ in range(count))
        while True:
            item = ready.popleft().result()
            ready.append(pool.submit(next, source))
            yield item


@contextlib.contextmanager
def write_behind(write: Callable[[T], None], count: int = 4) -> Iterator[Callable[[T], None]]:
    """Yields a function that calls `write` in a thread and has up to `count` items in its queue.

    An exception of `write` is raised by a later call or at the block's end, which waits for all
    items. After an exception, `write` is not called again.
    """
    failed = False

    def write_next(item: T) -> None:
        nonlocal failed
        if failed:
            # FFmpeg crashes if a frame is written after a header that could not be written.
            return
        failed = True
        write(item)
        failed = False

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()

        def later(item: T) -> None:
            if len(waiting) == count:
                waiting.popleft().result()
            waiting.append(pool.submit(write_next, item))

        yield later
        for future in waiting:
            future.result()
