"""Connections between the processes of a run, which detect that a process has ended.

If a process ends, JAX aborts the others with a stack trace: after 100 seconds, or at once if it was
process 0. `jax.distributed.initialize` has an argument for the time, but (up to JAX 0.10) none for
a callback or a message. So each process has its own connection to process 0, which shows the end of
a process within seconds. JAX's connection to process 0 goes through a relay, which stays open when
process 0 ends.
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
"""Exit status of a process that exits because another process of its run has ended."""

JOIN_SECONDS = 300
"""Longest wait of processes for each other at the start."""

_PATIENCE_SECONDS = 10
"""After this time, a process prints that it is waiting."""

GRACE_SECONDS = 2
"""Delay before a process exits after another one: if all fail, each can print its own error."""

_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that is off does not close its connections: they time out after 20 seconds."""

_HELLO, _NUMBER = struct.Struct("!6sII"), struct.Struct("!I")
"""Messages of a connection. To process 0: a magic word, the number of the process, and the number
of processes. From process 0, when all have joined: the port of JAX's service. Then, both ways: the
number of a process that has ended, or _DONE."""

_DONE = 2**32 - 1


class Place(NamedTuple):
    """A process's place in the run.

    Attributes:
        host: of process 0.
        port: that process 0 listens on for the others.
        processes: number of processes.
        process: number of this process.
        devices: ids of the machine's devices that this process uses; None for all visible ones.
    """

    host: str
    port: int
    processes: int
    process: int
    devices: list[int] | None = None

    def __str__(self) -> str:
        """Returns a description for messages."""
        return f"process {self.process} of {self.processes}"


Peers = dict[int, socket.socket]
"""Connections by process number: process 0 has one to each other process, these one to it."""


def meet(place: Place) -> tuple[Peers, int]:
    """Waits until all processes have connected.

    Returns:
        Connections to other processes, and the port on which process 0 must serve JAX's
        coordination service.

    Raises:
        RednetError: other processes do not connect, are of another run, or cannot be reached.
    """
    message = f"{place} waits for the others at {place.host}:{place.port} (--processes 1: alone)"
    patience = threading.Timer(_PATIENCE_SECONDS, print, [message], {"flush": True})
    patience.start()
    try:
        return _wait_for_others(place) if place.process == 0 else _connect_to_process_0(place)
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
                    f"join within {JOIN_SECONDS} s"
                ) from None
            number = _number(connection, place)
            if number is None:
                connection.close()
            else:
                # A process that connects again has been restarted.
                peers[number] = connection
    with _listening(0) as free:
        service: int = free.getsockname()[1]
    for connection in peers.values():
        _kept_alive(connection).sendall(_NUMBER.pack(service))
    return peers, service


def _number(connection: socket.socket, place: Place) -> int | None:
    """Returns the number of the process that connected; None for a foreign connection."""
    connection.settimeout(5)
    try:
        word, number, processes = _HELLO.unpack(_receive(connection, _HELLO.size))
    except (OSError, struct.error):
        return None
    if word != b"rednet":
        return None
    if processes != place.processes or not 0 < number < processes:
        raise RednetError(f"process {number} of {processes} tried to join, but this is {place}")
    return int(number)


def _connect_to_process_0(place: Place) -> tuple[Peers, int]:
    address, deadline = f"{place.host}:{place.port}", time.monotonic() + JOIN_SECONDS
    while True:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                cause = error.strerror or error
                raise RednetError(
                    f"{address}: process 0 did not answer within {JOIN_SECONDS} s ({cause})"
                ) from error
            time.sleep(0.5)
    connection.sendall(_HELLO.pack(b"rednet", place.process, place.processes))
    # Longer than process 0 waits, because its error names the missing processes.
    connection.settimeout(JOIN_SECONDS + 10)
    answer = _receive(connection, _NUMBER.size)
    if len(answer) < _NUMBER.size:
        raise RednetError(f"{address}: process 0 ended before all had joined; see its error")
    return {0: _kept_alive(connection)}, _NUMBER.unpack(answer)[0]


def _listening(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _receive(connection: socket.socket, size: int) -> bytes:
    """Returns `size` bytes, or fewer if the connection ends before.

    Raises:
        TimeoutError: they do not arrive within the connection's timeout.
    """
    # Not MSG_WAITALL: in Python a socket with a timeout does not block, so it would not wait.
    timeout = connection.gettimeout()
    deadline = None if timeout is None else time.monotonic() + timeout
    message = b""
    while len(message) < size:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
        part = connection.recv(size - len(message))
        if not part:
            break
        message += part
    return message


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        # Some systems lack some of these options.
        if option := getattr(socket, name, None):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


class Watch:
    """Threads that end this process with status LOST when another process has ended.

    There is a thread for each connection, because a collective that waits for a process that has
    ended blocks the main thread.
    """

    def __init__(self, place: Place, peers: Peers) -> None:
        """Starts the threads.

        Args:
            place: of this process.
            peers: connections that `meet` returned.
        """
        self._place, self._peers = place, peers
        self._done = {number: threading.Event() for number in peers}
        self._ending = threading.Lock()
        for number in peers:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def wait_for_all(self) -> None:
        """Returns when all processes have called this; from then on each may end."""
        if self._place.process:
            self._send(_DONE)
        for done in self._done.values():
            done.wait()
        if not self._place.process:
            self._send(_DONE)

    def _send(self, number: int) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.sendall(_NUMBER.pack(number))

    def _listen(self, number: int) -> None:
        try:
            message = _receive(self._peers[number], _NUMBER.size)
        except OSError:
            message = b""
        ended = _NUMBER.unpack(message)[0] if len(message) == _NUMBER.size else number
        if ended == _DONE:
            self._done[number].set()
            return
        # Never released: only the first process that has ended is named.
        self._ending.acquire()
        if not self._place.process:
            self._send(ended)
        time.sleep(GRACE_SECONDS)
        line = f"{self._place}: process {ended} has ended"
        end(f"{line}; restart all processes to resume from the last checkpoint", LOST)


def relay_to(address: tuple[str, int]) -> int:
    """Returns a local port that relays to an address, and stays open when that closes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(address)
            except OSError:
                # The service has not started yet; the client will connect again.
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)


def end(line: str, status: int) -> NoReturn:
    """Prints a line on standard error and exits without waiting for other processes."""
    print(f"rednet: {line}", file=sys.stderr)
    leave(status)


def leave(status: int) -> NoReturn:
    """Exits without waiting for other processes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
