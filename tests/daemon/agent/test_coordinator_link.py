"""The daemon's connection to a coordinator that is silent, breaks off or refuses it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import anyio
import pytest
from support.waiting import PATIENCE, wait_until_async
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from dora_config.access import AccessError, Endpoint
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    TO_DAEMON,
    CoordinatorMessage,
    Coordinators,
    DaemonAnswered,
    DaemonLeaving,
    DaemonMessage,
    EndDaemon,
    Heartbeat,
    HeartbeatAck,
    Register,
    Registered,
    RegistrationRefused,
)
from dora_config.retry import RetryPolicy
from dora_daemon.agent import coordinator_link
from dora_daemon.agent.coordinator_access import CoordinatorAccess
from dora_daemon.agent.coordinator_link import (
    QUEUE,
    CoordinatorLink,
    RefusedForGood,
    spread,
)
from dora_testing.cluster.fleet import COORDINATOR, DAEMON

# The oldest `websockets` closes the sockets of a server later.
pytestmark = pytest.mark.integration

Script = Callable[[ServerConnection], Awaitable[object]]
"""What the coordinator does with one connection, which it closes afterwards."""

REGISTERED = Registered(
    party=COORDINATOR,
    daemon="robot",
    silence_limit=PATIENCE,
    certificate_name="robot:key",
    coordinators=Coordinators(claim=Claim()),
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(World, "folder", tmp_path, raising=False)
    monkeypatch.setattr(coordinator_link, "RECONNECT", RetryPolicy(first=0.01, longest=0.01))


async def registers(connection: ServerConnection, answer: Registered = REGISTERED) -> None:
    """Admit the daemon."""
    assert isinstance(TO_COORDINATOR.decode(await connection.recv()), Register)
    await connection.send(TO_DAEMON.encode(answer))


async def stays(connection: ServerConnection) -> None:
    """Admit the daemon and read until it ends the connection."""
    await registers(connection)
    async for _ in connection:
        pass


class World:
    """A coordinator that follows one script for each connection, and a daemon's link to it."""

    folder: Path

    def __init__(self, *scripts: Script) -> None:
        self.received: list[CoordinatorMessage] = []
        self.losses = 0
        self.status: HTTPStatus | None = None
        """Answer to requests for a connection, if not None."""
        self.address: Callable[[], Endpoint] = self._address
        self.link = CoordinatorLink(
            access=CoordinatorAccess(self.folder, lambda: self.address(), lambda *_: True),
            register=lambda: Register(party=DAEMON, instance="i", incarnation="1", public_key=""),
            sign=lambda _: "",
            heartbeat=Heartbeat,
            received=self.received.append,
            lost=self._lost,
        )
        self._scripts = list(scripts)
        self._server: Server | None = None

    def _lost(self) -> None:
        self.losses += 1

    def _address(self) -> Endpoint:
        assert self._server is not None
        return Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _follow(self, connection: ServerConnection) -> None:
        await self._scripts.pop(0)(connection)

    def _admit(self, connection: ServerConnection, _: Request) -> Response | None:
        return None if self.status is None else connection.respond(self.status, "busy\n")

    def registrations(self) -> int:
        return sum(isinstance(message, Registered) for message in self.received)

    async def play(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run the link until ``work`` ends."""
        with anyio.fail_after(PATIENCE):
            async with serve(self._follow, "127.0.0.1", 0, process_request=self._admit) as server:
                self._server = server
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.link.run)
                    await work()
                    self.link.finish()

    async def until_connected(self, count: int) -> None:
        await wait_until_async(lambda: self.registrations() == count, what="a registration")


async def is_silent(connection: ServerConnection) -> None:
    await registers(connection, REGISTERED.model_copy(update={"silence_limit": 0.05}))
    await connection.wait_closed()


async def sends_garbage(connection: ServerConnection) -> None:
    await registers(connection)
    await connection.send("no json")
    await connection.wait_closed()


async def is_cut(connection: ServerConnection) -> None:
    await registers(connection)
    connection.transport.abort()


async def removes_the_daemon(connection: ServerConnection) -> None:
    await registers(connection)
    await connection.send(TO_DAEMON.encode(RegistrationRefused(message="the machine was removed")))
    await connection.wait_closed()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (is_silent, "silent for 0.05 s"),
        (sends_garbage, "Invalid JSON"),
        (registers, "it closed the connection"),
        (is_cut, "it was interrupted"),
        (removes_the_daemon, "the machine was removed"),
    ],
)
def test_a_lost_connection_is_opened_again(
    script: Script, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(script, stays)
    with caplog.at_level(logging.INFO, "dora.daemon"):
        anyio.run(world.play, lambda: world.until_connected(2))
    assert world.losses == 2, "the end of each registered connection is reported"
    (lost,) = [text for text in caplog.messages if "was lost: " in text]
    assert reason in lost


async def never_registers(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(TO_DAEMON.encode(HeartbeatAck()))
    await connection.wait_closed()


async def is_full(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(TO_DAEMON.encode(RegistrationRefused(message="too many daemons")))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (never_registers, "the coordinator did not answer the registration"),
        (is_full, "too many daemons"),
    ],
)
def test_a_registration_is_tried_again(
    script: Script, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(script, script, stays)
    with caplog.at_level(logging.INFO, "dora.daemon"):
        anyio.run(world.play, lambda: world.until_connected(1))
    assert world.losses == 1, "connections without a registration are not reported"
    assert [reason in text for text in caplog.messages].count(True) == 1, "logged once"


def test_a_permanent_refusal_ends_the_link() -> None:
    async def refuses(connection: ServerConnection) -> None:
        await connection.recv()
        refusal = RegistrationRefused(message="another version", permanent=True)
        await connection.send(TO_DAEMON.encode(refusal))

    world = World(refuses)
    with pytest.raises(ExceptionGroup) as ended:
        anyio.run(world.play, anyio.sleep_forever)
    (refusal,) = ended.value.exceptions
    assert isinstance(refusal, RefusedForGood)
    assert str(refusal) == "another version"


def test_a_busy_coordinator_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(stays)
    world.status = HTTPStatus.SERVICE_UNAVAILABLE

    async def work() -> None:
        sentence = "refuses connections for now (HTTP status 503)"
        await wait_until_async(lambda: sentence in caplog.text, what="a refusal")
        world.status = None
        await world.until_connected(1)

    anyio.run(world.play, work)


def test_an_unusable_token_file_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(stays)
    usable = world.address

    def unusable() -> Endpoint:
        raise AccessError("token: other users can read it")

    async def work() -> None:
        await wait_until_async(lambda: "other users can read it" in caplog.text, what="an error")
        world.address = usable
        await world.until_connected(1)

    world.address = unusable
    anyio.run(world.play, work)


def test_messages_of_newer_coordinators_are_skipped() -> None:
    async def sends(connection: ServerConnection) -> None:
        await registers(connection)
        await connection.send('{"kind": "of a newer version"}')
        await connection.send(TO_DAEMON.encode(REGISTERED))  # a second one means nothing
        await connection.send(TO_DAEMON.encode(EndDaemon()))
        await connection.wait_closed()

    world = World(sends)

    async def work() -> None:
        await wait_until_async(lambda: EndDaemon() in world.received, what="the known message")

    anyio.run(world.play, work)
    assert world.received == [REGISTERED, EndDaemon()]


def test_a_request_of_a_newer_coordinator_is_refused() -> None:
    answers: list[DaemonAnswered] = []

    async def sends(connection: ServerConnection) -> None:
        await registers(connection)
        await connection.send('{"kind": "call", "call": "c", "request": {"kind": "newer"}}')
        while not answers:
            answer = TO_COORDINATOR.decode(await connection.recv())
            answers.extend([answer] if isinstance(answer, DaemonAnswered) else [])
        await connection.wait_closed()

    world = World(sends)

    async def work() -> None:
        await wait_until_async(lambda: bool(answers), what="an answer")

    anyio.run(world.play, work)
    assert answers[0].call == "c"
    assert "unknown message to the daemon" in str(answers[0].problem)


def test_a_coordinator_that_does_not_keep_up_is_connected_again() -> None:
    world = World(stays, stays)

    async def work() -> None:
        await world.until_connected(1)
        for _ in range(QUEUE + 2):  # the writer has one, and no time to take others
            world.link.send(Heartbeat())
        await world.until_connected(2)

    anyio.run(world.play, work)
    assert world.losses == 2


def test_the_last_messages_are_sent_before_the_end() -> None:
    received: list[DaemonMessage] = []

    async def reads(connection: ServerConnection) -> None:
        await registers(connection)
        async for text in connection:
            received.append(TO_COORDINATOR.decode(text))

    world = World(reads)

    async def work() -> None:
        await world.until_connected(1)
        world.link.send(DaemonLeaving(hand_over=True))

    anyio.run(world.play, work)
    assert DaemonLeaving(hand_over=True) in received


def test_reconnect_delays_are_spread_by_a_quarter() -> None:
    assert [spread(0.5, random) for random in (0.0, 0.5, 1.0)] == [0.375, 0.5, 0.625]
