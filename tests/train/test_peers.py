"""Processes connect to each other, and detect when one of them has ended."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.train import peers
from rednet_jax.train.peers import LOST, Peers, Place, Watch, meet, relay_to


def places(count: int) -> list[Place]:
    """Places of processes that connect at a free port of this machine."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    return [Place("localhost", port, count, process) for process in range(count)]


def meet_all(places: Sequence[Place]) -> list[tuple[Peers, int]]:
    """Returns the result of `meet` in each process; they start from the last to the first."""
    results: dict[int, tuple[Peers, int]] = {}
    threads = [
        threading.Thread(target=lambda place=place: results.update({place.process: meet(place)}))
        for place in reversed(places)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [results[place.process] for place in places]


def wait_for(items: Sequence[object], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(items) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_foreign_connections_are_ignored(monkeypatch):
    listening = peers._listening

    def with_strangers(port: int) -> socket.socket:
        server = listening(port)
        for words in (b"", b"GET / HTTP/1.0\r\n\r\n"):
            with socket.create_connection(server.getsockname()[:2]) as stranger:
                stranger.sendall(words)
        return server

    monkeypatch.setattr(peers, "_listening", with_strangers)
    results = meet_all(places(3))
    assert [sorted(connections) for connections, _ in results] == [[1, 2], [0], [0]]
    assert len({service for _, service in results}) == 1


def test_a_message_may_arrive_in_parts():
    hello = peers._HELLO.pack(b"rednet", 1, 2)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(hello[:5])
        rest = threading.Timer(0.2, far.sendall, [hello[5:]])
        rest.start()
        assert peers._number(near, Place("localhost", 0, 2, 0)) == 1
        rest.join()


def test_the_time_for_a_whole_message_is_limited():
    near, far = socket.socketpair()

    def drip() -> None:
        for byte in b"rednet":
            far.sendall(bytes([byte]))
            time.sleep(0.1)

    with near, far:
        near.settimeout(0.3)
        sender = threading.Thread(target=drip)
        sender.start()
        with pytest.raises(TimeoutError):
            peers._receive(near, 6)
        sender.join()


def test_missing_processes_are_named(monkeypatch):
    monkeypatch.setattr(peers, "JOIN_SECONDS", 0.3)
    first, second, *_ = places(4)
    with pytest.raises(RednetError, match=r"process 1, 2, 3 of 4 did not join within 0.3 s"):
        meet(first)
    with pytest.raises(RednetError, match=r"process 0 did not answer within 0.3 s"):
        meet(second)


def test_a_process_that_waits_prints_a_message(monkeypatch, capsys):
    monkeypatch.setattr(peers, "JOIN_SECONDS", 0.5)
    monkeypatch.setattr(peers, "_PATIENCE_SECONDS", 0.1)
    first, _ = places(2)
    with pytest.raises(RednetError):
        meet(first)
    line = f"process 0 of 2 waits for the others at localhost:{first.port} (--processes 1: alone)"
    assert capsys.readouterr().out.splitlines() == [line]


def test_a_process_of_a_run_of_another_size():
    first, second = places(2)
    errors: list[RednetError] = []

    def join() -> None:
        with pytest.raises(RednetError, match="process 0 ended before all had joined") as caught:
            meet(second._replace(processes=4))
        errors.append(caught.value)

    thread = threading.Thread(target=join)
    thread.start()
    with pytest.raises(RednetError, match="1 of 4 tried to join, but this is process 0 of 2"):
        meet(first)
    thread.join(20)
    assert errors


def test_a_port_in_use():
    with socket.create_server(("", 0)) as taken:
        place = Place("localhost", taken.getsockname()[1], 2, 0)
        with pytest.raises(RednetError, match=r"process 0 of 2 cannot join .*in use"):
            meet(place)


@pytest.fixture
def exits(monkeypatch) -> list[tuple[str, int]]:
    """Message and status of the exits of processes, which are replaced."""
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(peers, "end", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0)
    return calls


@pytest.mark.parametrize("ended", [0, 2])
def test_all_other_processes_exit_when_one_has_ended(exits, ended):
    each = places(4)
    connections = [peers_of_one for peers_of_one, _ in meet_all(each)]
    others = [process for process in range(4) if process != ended]
    for process in others:
        Watch(each[process], connections[process])
    for connection in connections[ended].values():
        connection.close()
    wait_for(exits, 3)
    lines = sorted(line.split(";")[0] for line, _ in exits)
    assert lines == [f"process {process} of 4: process {ended} has ended" for process in others]
    assert {status for _, status in exits} == {LOST}


def test_processes_may_end_after_all_have_finished(exits):
    each = places(3)
    connections = [peers_of_one for peers_of_one, _ in meet_all(each)]
    threads = [
        threading.Thread(target=Watch(place, peers_of_one).wait_for_all)
        for place, peers_of_one in zip(each, connections, strict=True)
    ]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(0.2)
    assert all(thread.is_alive() for thread in threads[:2]), "one process has not finished"
    threads[2].start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    for peers_of_one in connections:
        for connection in peers_of_one.values():
            connection.close()
    time.sleep(0.2)
    assert exits == []


def test_a_relay_copies_data_and_stays_open_at_the_end():
    with socket.create_server(("127.0.0.1", 0)) as service:
        near = socket.create_connection(("127.0.0.1", relay_to(service.getsockname())))
        near.sendall(b"there")
        far, _ = service.accept()
        assert far.recv(5) == b"there"
        far.sendall(b"and back")
        assert near.recv(8) == b"and back"
        far.close()
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)
    near.close()
