"""Processes find each other, and notice when one of them is gone."""

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
    """Of processes that meet at a free port of this machine."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    return [Place("localhost", port, count, process) for process in range(count)]


def met(those: Sequence[Place]) -> list[tuple[Peers, int]]:
    """What `meet` returns in each; the last process is the first to come."""
    found: dict[int, tuple[Peers, int]] = {}
    threads = [
        threading.Thread(target=lambda place=place: found.update({place.process: meet(place)}))
        for place in reversed(those)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [found[place.process] for place in those]


def wait_for(told: Sequence[object], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(told) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_processes_meet_whoever_else_knocks(monkeypatch):
    listening = peers._listening

    def with_strangers(port: int) -> socket.socket:
        server = listening(port)
        for words in (b"", b"GET / HTTP/1.0\r\n\r\n"):
            with socket.create_connection(server.getsockname()[:2]) as stranger:
                stranger.sendall(words)
        return server

    monkeypatch.setattr(peers, "_listening", with_strangers)
    found = met(places(3))
    assert [sorted(connections) for connections, _ in found] == [[1, 2], [0], [0]]
    assert len({service for _, service in found}) == 1


def test_who_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(peers, "JOIN_SECONDS", 0.3)
    first, second, *_ = places(4)
    with pytest.raises(RednetError, match=r"process 1, 2, 3 of 4 did not come within 0.3 s"):
        meet(first)
    with pytest.raises(RednetError, match=r"process 0 did not come within 0.3 s"):
        meet(second)


def test_who_waits_long_says_so(monkeypatch, capsys):
    monkeypatch.setattr(peers, "JOIN_SECONDS", 0.5)
    monkeypatch.setattr(peers, "_PATIENCE_SECONDS", 0.1)
    first, _ = places(2)
    with pytest.raises(RednetError):
        meet(first)
    told = f"process 0 of 2 waits for the others at localhost:{first.port} (--processes 1: alone)"
    assert capsys.readouterr().out.splitlines() == [told]


def test_a_run_of_another_size_is_refused():
    first, second = places(2)
    told: list[RednetError] = []

    def come() -> None:
        with pytest.raises(RednetError, match="process 0 ended before all had come") as caught:
            meet(second._replace(processes=4))
        told.append(caught.value)

    other = threading.Thread(target=come)
    other.start()
    with pytest.raises(RednetError, match="process 1 of 4 came, and this is process 0 of 2"):
        meet(first)
    other.join(20)
    assert told


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        place = Place("localhost", taken.getsockname()[1], 2, 0)
        with pytest.raises(RednetError, match=r"process 0 of 2 cannot join .*in use"):
            meet(place)


@pytest.fixture
def ended(monkeypatch) -> list[tuple[str, int]]:
    """What the watches would have ended their processes with."""
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(peers, "end", lambda *words: told.append(words))
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0)
    return told


@pytest.mark.parametrize("gone", [0, 2])
def test_all_the_others_learn_which_process_is_gone(ended, gone):
    those = places(4)
    connections = [to for to, _ in met(those)]
    others = [process for process in range(4) if process != gone]
    for process in others:
        Watch(those[process], connections[process])
    for connection in connections[gone].values():
        connection.close()
    wait_for(ended, 3)
    lines = sorted(line.split(";")[0] for line, _ in ended)
    assert lines == [f"process {process} of 4: process {gone} is gone" for process in others]
    assert {status for _, status in ended} == {LOST}


def test_who_has_parted_is_not_missed(ended):
    those = places(3)
    connections = [to for to, _ in met(those)]
    parting = [
        threading.Thread(target=Watch(place, to).part)
        for place, to in zip(those, connections, strict=True)
    ]
    for thread in parting[:2]:
        thread.start()
    parting[0].join(0.2)
    assert all(thread.is_alive() for thread in parting[:2]), "one has not come to its end"
    parting[2].start()
    for thread in parting:
        thread.join(10)
    assert not any(thread.is_alive() for thread in parting)
    for to in connections:
        for connection in to.values():
            connection.close()
    time.sleep(0.2)
    assert ended == []


def test_a_relay_passes_on_all_but_the_end():
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
