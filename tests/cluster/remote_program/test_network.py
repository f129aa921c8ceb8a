"""Pings between machines, over loopback."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from dora_cluster.remote_program import network


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a machine that answers pings with the secret "right"."""
    ports: list[int] = []
    listening = threading.Event()

    def send(result: dict[str, int]) -> None:
        ports.append(result["port"])
        listening.set()

    before = set(threading.enumerate())
    reader, writer = socket.socketpair()
    monkeypatch.setattr(network, "send_result", send)
    monkeypatch.setattr(sys, "stdout", writer)
    given = {"ports": [0, 0], "seconds": 30.0, "secret": "right"}
    answers = threading.Thread(target=network.answer, kwargs=given)
    with closing(writer):
        answers.start()
        try:
            assert listening.wait(30)
            yield ports[0]
        finally:
            reader.close()  # as at the end of the SSH connection
            begun = set(threading.enumerate()) - before
            for thread in begun:  # those of connections, too
                thread.join(30)
    assert not any(thread.is_alive() for thread in begun)


def test_only_machines_with_the_secret_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(monkeypatch) as port:
        targets = [["robot", "127.0.0.1", port]]
        assert 0 < network.ping(targets, "right")["pings"]["robot"]["seconds"] < 30
        assert "reason" in network.ping(targets, "wrong")["pings"]["robot"]


def test_number_of_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_CONNECTIONS", 1)
    with answering(monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(b"right.")
        assert len(first.recv(20)) == 20
        with socket.create_connection(("127.0.0.1", port), 30) as second:
            assert second.recv(1) == b""
