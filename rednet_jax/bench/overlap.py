"""How long a program takes when collectives run beside arithmetic, as its dependences allow."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from rednet_jax.bench.hlo import Cost, Operation


def overlapped_seconds(
    operations: list[Operation],
    arithmetic: Callable[[Cost], float],
    communication: Callable[[Cost], float],
) -> float:
    """Simulates a device that computes one operation at a time and sends one at a time.

    An operation starts when its operands are ready and its unit, arithmetic or network, is free;
    where several could start, that with the longest path to the program's end does. An operation
    that computes and sends, which is a loop, occupies both units. This is a list schedule: an
    existing order of the program with this time, not a bound that no order might reach.

    Args:
        operations: of `program_operations`.
        arithmetic: seconds that an operation computes, by its cost; 0 leaves the unit free.
        communication: seconds that it sends.

    Returns:
        Seconds from the first operation to the end of the last.
    """
    computes = [arithmetic(one.cost) for one in operations]
    sends = [communication(one.cost) for one in operations]
    units = [
        {name for name, needed in (("arithmetic", a), ("network", c)) if needed}
        for a, c in zip(computes, sends, strict=True)
    ]
    followers: list[list[int]] = [[] for _ in operations]
    for place, one in enumerate(operations):
        for operand in one.operands:
            followers[operand].append(place)
    to_end = [0.0] * len(operations)
    for place in reversed(range(len(operations))):
        after = max((to_end[follower] for follower in followers[place]), default=0.0)
        to_end[place] = computes[place] + sends[place] + after

    now, busy = 0.0, set[str]()
    missing = [len(one.operands) for one in operations]
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
