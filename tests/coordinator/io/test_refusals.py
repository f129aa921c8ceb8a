"""Requests and frames that the coordinator refuses: tokens, contents, versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.fleets.coordinator import RunningCoordinator, running_coordinator, token_file
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    ClusterStatus,
    Hello,
    Refused,
)
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    TO_DAEMON,
    Heartbeat,
    Register,
    RegistrationRefused,
)
from dora_config.protocol.envelope import PROTOCOL_VERSION, ProgramVersion, ProtocolVersion

pytestmark = pytest.mark.integration

SOCKETS = ("/api/control", "/api/daemon")
WRONG_HEADERS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer 0123456789abcdef"},
    {"Authorization": "Basic dXNlcjpwYXNz"},
    {"X-Token": "TOKEN"},
    {"Authorization": "TOKEN"},
    {"Authorization": "Bearer TOKENx"},
    {"Cookie": "Authorization=Bearer TOKEN"},
]


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def coordinator(home: Path) -> Iterator[RunningCoordinator]:
    assert home.is_dir()
    with running_coordinator("--store", "memory") as running:
        yield running


def wrong_headers() -> Iterator[dict[str, str]]:
    token = token_file().read_text().strip()
    for headers in WRONG_HEADERS:
        yield {name: value.replace("TOKEN", token) for name, value in headers.items()}


def test_all_routes_but_health_need_the_token(coordinator: RunningCoordinator) -> None:
    for headers in wrong_headers():
        for path in ("/health", "/api/health"):
            reply = coordinator.request(path, headers=headers)
            assert (reply.status, reply.body) == (200, b"ok")
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            for path in ("/api/artifacts/b/n", "/api/control", "/", "/api/nothing"):
                reply = coordinator.request(path, method=method, headers=headers)
                assert reply.status == 401, (method, path, headers)
        for path in SOCKETS:
            with pytest.raises(InvalidStatus) as refused, coordinator.open_socket(path, headers):
                pass
            assert refused.value.response.status_code == 401
    token = token_file().read_text().strip()
    assert coordinator.request(f"/api/artifacts/b/n?token={token}", headers={}).status == 401
    assert token not in coordinator.process.stderr
    assert "ERROR" not in coordinator.process.stderr


def test_invalid_frames_end_their_connection_with_a_message(
    coordinator: RunningCoordinator,
) -> None:
    ours = ProgramVersion(program="test", release="1")
    hello = CLIENT_CODEC.encode(Hello(party=ours))
    garbage: list[list[str | bytes]] = [
        ["no json"],
        ["{}"],
        ['{"kind": "request", "id": 1, "request": {"kind": "list"}}'],
        [b"\x00\xff"],
        [hello, "no json"],
        [hello, hello],
        [hello, '{"kind": "request", "id": "x", "request": {"kind": "list"}}'],
        [hello, '{"kind": "request", "id": 1, "request": {"kind": "launch_missiles"}}'],
    ]
    for frames in garbage:
        with coordinator.open_socket("/api/control") as socket:
            for frame in frames:
                socket.send(frame)
            answers = []
            with suppress(ConnectionClosed):
                while True:
                    answers.append(SERVER_CODEC.decode(socket.recv(5)))
            assert isinstance(answers[-1], Refused), frames
    for text in ("no json", "{}", TO_COORDINATOR.encode(Heartbeat())):
        with coordinator.open_socket("/api/daemon") as socket:
            socket.send(text)
            refused = TO_DAEMON.decode(socket.recv(5))
            assert isinstance(refused, RegistrationRefused)
    with CoordinatorClient(coordinator.endpoint) as client:
        assert client.request(ClusterStatus()).machines == ()


def test_another_protocol_version_is_refused_with_both_versions(
    coordinator: RunningCoordinator,
) -> None:
    future = ProgramVersion(
        program="future", release="9.9", protocol=ProtocolVersion(major=99, minor=0)
    )
    with coordinator.open_socket("/api/control") as socket:
        socket.send(CLIENT_CODEC.encode(Hello(party=future)))
        refused = SERVER_CODEC.decode(socket.recv(5))
        assert isinstance(refused, Refused)
        ours = f"(protocol {PROTOCOL_VERSION})"
        for part in ("future 9.9 (protocol 99.0)", ours, "upgrade the coordinator"):
            assert part in refused.message
    with coordinator.open_socket("/api/daemon") as socket:
        register = Register(party=future, instance="i", incarnation="1", public_key="")
        socket.send(TO_COORDINATOR.encode(register))
        answer = TO_DAEMON.decode(socket.recv(5))
        assert isinstance(answer, RegistrationRefused)
        assert answer.permanent
        assert "protocol 99.0" in answer.message


@pytest.mark.parametrize("machine", ["../x", "a b", "-x", "x" * 257, "", "a\x1b[2J"])
def test_machine_ids_from_the_wire_are_checked(
    coordinator: RunningCoordinator, machine: str
) -> None:
    text = TO_COORDINATOR.encode(
        Register.model_construct(
            kind="register",
            party=ProgramVersion(program="daemon", release="1"),
            instance="i",
            incarnation="1",
            machine_id=machine,
            labels={},
            host="",
            boot_id="",
            parts=(),
            public_key="",
        )
    )
    with coordinator.open_socket("/api/daemon") as socket:
        socket.send(text)
        answer = TO_DAEMON.decode(socket.recv(5))
        assert isinstance(answer, RegistrationRefused)
        assert "machine" in answer.message
    assert "\x1b" not in coordinator.process.stderr
