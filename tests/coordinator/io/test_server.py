"""The coordinator process: its token, addresses, limits and end."""

from __future__ import annotations

import re
import signal
import socket
from contextlib import ExitStack

import anyio
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.dora import run_dora
from support.fleets.coordinator import running_coordinator, token_file
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access import endpoint
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    ClusterStatus,
    Hello,
    Welcome,
)
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.io.server import _next_frame

pytestmark = pytest.mark.integration


def test_a_connection_that_broke_while_writing_ends_the_reader() -> None:
    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError("broken pipe")

    async def write_then_read() -> None:
        socket = WebSocket({"type": "websocket"}, receive, send)
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            await socket.send_text("are you there?")
        with pytest.raises(WebSocketDisconnect):
            await _next_frame(socket)

    anyio.run(write_then_read)


def test_the_token_is_created_once_and_private() -> None:
    with running_coordinator("--store", "memory"):
        token = token_file().read_text()
        assert token_file().stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"dora1\.[A-Za-z0-9_-]{43}\.[0-9a-f]{64}\n", token)
    with running_coordinator("--store", "memory") as coordinator:
        assert token_file().read_text() == token
        with CoordinatorClient(coordinator.endpoint) as client:
            assert client.request(ClusterStatus()).machines == ()


def test_a_token_that_others_can_read_is_refused() -> None:
    with running_coordinator("--store", "memory"):
        pass
    token_file().chmod(0o644)
    result = run_dora("coordinator", "--port", "0", "--store", "memory").exited(1)
    assert "chmod 600" in result.stderr


def test_no_auth_warns_and_is_refused_on_network_addresses() -> None:
    refused = run_dora("coordinator", "--no-auth", "--interface", "0.0.0.0", "--port", "0")
    assert "--open-to-network" in refused.exited(1).stderr
    with running_coordinator("--no-auth", "--store", "memory") as coordinator:
        coordinator.process.wait_for("NO AUTHENTICATION")
        assert not token_file().exists()
        with CoordinatorClient(coordinator.endpoint) as client:
            client.request(ClusterStatus())
    insisted = ("--no-auth", "--interface", "0.0.0.0", "--open-to-network", "--store", "memory")
    with running_coordinator(*insisted) as coordinator:
        coordinator.process.wait_for("NO AUTHENTICATION")


def test_it_listens_on_the_given_addresses_only() -> None:
    both = ("--interface", "127.0.0.1", "--interface", "127.0.0.2", "--store", "memory")
    with running_coordinator(*both) as coordinator:
        for host in ("127.0.0.1", "127.0.0.2"):
            with CoordinatorClient(endpoint(host, coordinator.port)) as client:
                client.request(ClusterStatus())
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.3", coordinator.port))
    refused = run_dora("coordinator", "--no-auth", *both, "--interface", "0.0.0.0").exited(1)
    assert "--no-auth on 127.0.0.1 and 127.0.0.2 and 0.0.0.0 lets anyone" in refused.stderr


def test_it_listens_on_all_addresses_of_both_families() -> None:
    everywhere = ("--interface", "0.0.0.0", "--interface", "::", "--store", "memory")
    with running_coordinator(*everywhere) as coordinator:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, coordinator.port)).close()
    with running_coordinator("--interface", "::", "--store", "memory") as coordinator:
        socket.create_connection(("127.0.0.1", coordinator.port)).close()


def test_a_message_that_is_too_large_ends_its_connection_only() -> None:
    limit = ("--set", "max_message_bytes=10000")
    with running_coordinator("--store", "memory", *limit) as coordinator:
        with coordinator.open_socket("/api/control") as socket:
            socket.send(
                CLIENT_CODEC.encode(Hello(party=ProgramVersion(program="test", release="1")))
            )
            welcome = SERVER_CODEC.decode(socket.recv(5))
            assert isinstance(welcome, Welcome)
            assert welcome.max_message_bytes == 10_000
            socket.send("x" * 20_000)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        assert coordinator.request("/health").status == 200


def test_connections_above_the_limit_are_refused() -> None:
    with running_coordinator("--store", "memory", "--set", "max_connections=3") as coordinator:
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(coordinator.open_socket("/api/control"))
            with pytest.raises(InvalidStatus) as refused, coordinator.open_socket("/api/control"):
                pass
        assert refused.value.response.status_code == 503

        def accepts() -> bool:
            try:
                with coordinator.open_socket("/api/control"):
                    return True
            except InvalidStatus:
                return False

        wait_until(accepts, what="room for a connection")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_coordinator_with_exit_code_0(number: signal.Signals) -> None:
    with running_coordinator() as coordinator, coordinator.open_socket("/api/control"):
        coordinator.process.send_signal(number)
        coordinator.process.wait().succeeded()


def test_a_second_coordinator_on_the_same_port_or_store_is_refused() -> None:
    with running_coordinator() as coordinator:
        taken = run_dora("coordinator", "--port", str(coordinator.port), "--store", "memory")
        assert "cannot listen on 127.0.0.1" in taken.exited(1).stderr
        shared = run_dora("coordinator", "--port", "0")
        assert "in use by another coordinator" in shared.exited(1).stderr
