"""Work in a thread beside the network: items made ahead of their use, and used up behind it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], count: int = 4) -> Generator[T, None, None]:
    """Yields the same items, made in a thread up to `count` ahead of their use.

    Decoding then runs beside the network. An exception of `items` is raised where its item would
    have come. Close the generator before what it reads from.
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
    """Yields a function that does the same in a thread, up to `count` items behind its caller.

    Drawing and encoding then run beside the network. An exception of `write` is raised by one of
    the next calls or at the block's end, which waits for all items.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()

        def later(item: T) -> None:
            if len(waiting) == count:
                waiting.popleft().result()
            waiting.append(pool.submit(write, item))

        yield later
        for one in waiting:
            one.result()
