"""Requests over a WebSocket to a coordinator that does not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest
from support.serving import served
from websockets.sync.server import ServerConnection, serve

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access import Endpoint
from dora_config.protocol.control import SERVER_CODEC, Welcome
from dora_config.protocol.envelope import ProgramVersion


@contextmanager
def mute_coordinator() -> Iterator[Endpoint]:
    """A coordinator that stops after its welcome."""
    over = Event()

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        party = ProgramVersion(program="dora-coordinator", release="0")
        connection.send(SERVER_CODEC.encode(Welcome(party=party, max_message_bytes=1 << 20)))
        over.wait(60)

    with serve(handle, "127.0.0.1", 0) as server, served(server):
        try:
            yield Endpoint("127.0.0.1", server.socket.getsockname()[1])
        finally:
            over.set()


@pytest.mark.integration  # the oldest `websockets` leaves the pipe of a server open
def test_a_coordinator_whose_machine_is_gone_is_detected() -> None:
    with mute_coordinator() as endpoint, CoordinatorClient(endpoint) as client:
        connection = client.streams._socket.socket
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
