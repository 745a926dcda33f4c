"""Items keep their order, and exceptions are raised in place of their items."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.media.background import read_ahead, write_behind


def test_read_ahead_keeps_the_order():
    assert list(read_ahead(range(50))) == list(range(50))
    assert list(read_ahead([])) == []


def test_read_ahead_raises_in_place_of_the_item():
    def items():
        yield 1
        yield 2
        raise RednetError("third")

    ahead = read_ahead(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(RednetError, match="third"):
        next(ahead)


def test_read_ahead_runs_in_a_thread_that_ends_with_the_generator():
    made = []

    def items():
        for number in itertools.count():
            made.append((number, threading.current_thread()))
            yield number

    with contextlib.closing(read_ahead(items(), count=3)) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    # Five yielded items, and three produced in advance.
    assert [number for number, _ in made] == list(range(8))
    (worker,) = {thread for _, thread in made}
    assert worker is not threading.current_thread()
    assert not worker.is_alive()


def test_write_behind_keeps_the_order_and_waits():
    written, threads = [], set()

    def write(item):
        threads.add(threading.current_thread())
        written.append(item)

    with write_behind(write) as later:
        for item in range(50):
            later(item)
    assert written == list(range(50))
    assert threading.current_thread() not in threads


def test_write_behind_writes_nothing_after_an_exception():
    begun, asked = [], threading.Event()

    def write(item):
        begun.append(item)
        asked.wait()
        raise RednetError("disk full")

    with pytest.raises(RednetError, match="disk full"), write_behind(write, count=4) as later:
        for item in range(4):
            later(item)
        asked.set()
    assert begun == [0]


def test_write_behind_raises_the_exception_of_write():
    def write(item):
        raise RednetError(f"item {item}")

    with pytest.raises(RednetError, match="item 0"), write_behind(write) as later:
        later(0)
    with pytest.raises(RednetError, match="item 0"), write_behind(write, count=2) as later:
        for item in range(100):
            later(item)
