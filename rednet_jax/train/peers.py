"""The processes of a run keep an eye on each other.

Where one is gone, JAX ends the others by an abort with a stack trace: after 100 seconds, or at once
where it was process 0. So each process keeps a connection of its own to process 0, which tells
within seconds; and JAX's connection there goes through a relay that does not pass its end on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from typing import NamedTuple, NoReturn

from rednet_jax.errors import RednetError

LOST = 3
"""Exit status of a process that ended because another one of its run was gone."""

JOIN_SECONDS = 300
"""So long processes wait for each other at the start."""

_PATIENCE_SECONDS = 10
"""After so long a process says that it waits."""

GRACE_SECONDS = 2
"""Where all fail for the same cause, each gets to say it before it notices that others are gone."""

_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that is off does not close its connections: after 20 seconds it counts as gone."""

_HELLO, _NUMBER = struct.Struct("!6sII"), struct.Struct("!I")
"""What is said on a connection: a word, the number of the process and of all; back, once all are
there, the port of JAX's service; then the number of a process that is gone, or _DONE."""

_DONE = 2**32 - 1


class Place(NamedTuple):
    """A process's place among those that train together.

    Attributes:
        host: where process 0 is.
        port: where process 0 listens for the others.
        processes: how many there are.
        process: this one's number.
        devices: of the machine, those that this process takes; None for all that it sees.
    """

    host: str
    port: int
    processes: int
    process: int
    devices: list[int] | None = None

    def __str__(self) -> str:
        """Returns it in words."""
        return f"process {self.process} of {self.processes}"


Peers = dict[int, socket.socket]
"""Connections by number of process: of process 0 to all others, of these to process 0."""


def meet(place: Place) -> tuple[Peers, int]:
    """Waits until all processes are there.

    Returns:
        Connections to other processes, and the port on which process 0 is to offer JAX's service.

    Raises:
        RednetError: others do not come, are of another run, or cannot be reached.
    """
    told = f"{place} waits for the others at {place.host}:{place.port} (--processes 1: alone)"
    patience = threading.Timer(_PATIENCE_SECONDS, print, [told], {"flush": True})
    patience.start()
    try:
        return _wait_for_others(place) if place.process == 0 else _go_to_the_first(place)
    except OSError as error:
        cause = error.strerror or str(error) or type(error).__name__
        raise RednetError(f"{place.host}:{place.port}: {place} cannot join ({cause})") from error
    finally:
        patience.cancel()


def _wait_for_others(place: Place) -> tuple[Peers, int]:
    peers: Peers = {}
    deadline = time.monotonic() + JOIN_SECONDS
    with _listening(place.port) as server:
        while missing := sorted({*range(1, place.processes)} - {*peers}):
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                numbers = ", ".join(map(str, missing))
                raise RednetError(
                    f"{place.host}:{place.port}: process {numbers} of {place.processes} did not "
                    f"come within {JOIN_SECONDS} s"
                ) from None
            number = _number(connection, place)
            if number is None:
                connection.close()
            else:
                # A process that connects again was restarted.
                peers[number] = connection
    with _listening(0) as free:
        service: int = free.getsockname()[1]
    for connection in peers.values():
        _kept_alive(connection).sendall(_NUMBER.pack(service))
    return peers, service


def _number(connection: socket.socket, place: Place) -> int | None:
    """The number of the process that came; None for something else that knocked."""
    connection.settimeout(5)
    try:
        word, number, processes = _HELLO.unpack(_receive(connection, _HELLO.size))
    except (OSError, struct.error):
        return None
    if word != b"rednet":
        return None
    if processes != place.processes or not 0 < number < processes:
        raise RednetError(f"process {number} of {processes} came, and this is {place}")
    return int(number)


def _go_to_the_first(place: Place) -> tuple[Peers, int]:
    address, deadline = f"{place.host}:{place.port}", time.monotonic() + JOIN_SECONDS
    while True:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                cause = error.strerror or error
                raise RednetError(
                    f"{address}: process 0 did not come within {JOIN_SECONDS} s ({cause})"
                ) from error
            time.sleep(0.5)
    connection.sendall(_HELLO.pack(b"rednet", place.process, place.processes))
    # A little longer than process 0, which knows who is missing, waits.
    connection.settimeout(JOIN_SECONDS + 10)
    told = _receive(connection, _NUMBER.size)
    if len(told) < _NUMBER.size:
        raise RednetError(f"{address}: process 0 ended before all had come; it says why")
    return {0: _kept_alive(connection)}, _NUMBER.unpack(told)[0]


def _listening(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _receive(connection: socket.socket, size: int) -> bytes:
    return connection.recv(size, socket.MSG_WAITALL)


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        # Not every system has them all.
        if option := getattr(socket, name, None):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


class Watch:
    """Threads that end this process, with status LOST, once another one is gone.

    A thread each: a collective that waits for a process that is gone blocks the main one.
    """

    def __init__(self, place: Place, peers: Peers) -> None:
        """Of the connections that `meet` returned."""
        self._place, self._peers = place, peers
        self._done = {number: threading.Event() for number in peers}
        self._ending = threading.Lock()
        for number in peers:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def part(self) -> None:
        """Returns once all processes have called it; from then on each may end."""
        if self._place.process:
            self._tell(_DONE)
        for done in self._done.values():
            done.wait()
        if not self._place.process:
            self._tell(_DONE)

    def _tell(self, number: int) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.sendall(_NUMBER.pack(number))

    def _listen(self, number: int) -> None:
        try:
            said = _receive(self._peers[number], _NUMBER.size)
        except OSError:
            said = b""
        gone = _NUMBER.unpack(said)[0] if len(said) == _NUMBER.size else number
        if gone == _DONE:
            self._done[number].set()
            return
        # Held to the end: the first that is gone is the one to name.
        self._ending.acquire()
        if not self._place.process:
            self._tell(gone)
        time.sleep(GRACE_SECONDS)
        told = f"{self._place}: process {gone} is gone"
        end(f"{told}; restart all processes to resume from the last checkpoint", LOST)


def relay_to(address: tuple[str, int]) -> int:
    """Returns a port of this machine that leads to an address, and stays open when that is gone."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(address)
            except OSError:
                # The service is not there yet; whoever calls tries again.
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)


def end(line: str, status: int) -> NoReturn:
    """Ends this process with a line on standard error, and waits for nobody."""
    print(f"rednet: {line}", file=sys.stderr)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends this process, and waits for nobody."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
