"""The time of a program whose collectives overlap with arithmetic as its dependences allow."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from rednet_jax.bench.hlo import Cost, Operation


def overlapped_seconds(
    operations: list[Operation],
    arithmetic: Callable[[Cost], float],
    communication: Callable[[Cost], float],
) -> float:
    """Simulates a device that runs one computation and one collective at a time.

    An operation starts when its operands are ready and its unit, arithmetic or network, is free;
    if several can start, the one with the longest path to the program's end does. An operation
    that computes and communicates, such as a loop, occupies both units. This is a list schedule:
    its time is attainable, and not only a lower bound.

    Args:
        operations: of `program_operations`.
        arithmetic: returns the seconds of arithmetic of a cost; 0 leaves the unit free.
        communication: returns the seconds of communication of a cost.

    Returns:
        Seconds from the start of the first operation to the end of the last.
    """
    computes = [arithmetic(operation.cost) for operation in operations]
    sends = [communication(operation.cost) for operation in operations]
    units = [
        {name for name, seconds in (("arithmetic", a), ("network", c)) if seconds}
        for a, c in zip(computes, sends, strict=True)
    ]
    followers: list[list[int]] = [[] for _ in operations]
    for place, operation in enumerate(operations):
        for operand in operation.operands:
            followers[operand].append(place)
    to_end = [0.0] * len(operations)
    for place in reversed(range(len(operations))):
        after = max((to_end[follower] for follower in followers[place]), default=0.0)
        to_end[place] = computes[place] + sends[place] + after

    now, busy = 0.0, set[str]()
    missing = [len(operation.operands) for operation in operations]
    ready = [place for place, count in enumerate(missing) if not count]
    running: list[tuple[float, int]] = []
    while ready or running:
        waiting = []
        for place in sorted(ready, key=lambda place: -to_end[place]):
            if busy.isdisjoint(units[place]):
                busy |= units[place]
                heapq.heappush(running, (now + computes[place] + sends[place], place))
            else:
                waiting.append(place)
        ready = waiting
        now, done = heapq.heappop(running)
        busy -= units[done]
        for follower in followers[done]:
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    return now
