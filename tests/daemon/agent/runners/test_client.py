"""Connection to a runner that disconnects or does not accept."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from support.simulation.fleets import dataflow
from support.waiting import wait_until_async

from dora_config.protocol.links import PeerEndpoint, SetLinkPeers
from dora_config.protocol.runner import (
    DataflowResult,
    Envelope,
    GetHistory,
    Refusal,
    RunnerReply,
    encode_line,
)
from dora_config.protocol.runner_events import RunnerState
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.events import RunnerChanged, RunnerEnded, RunnerNotice
from dora_daemon.agent.linking import LinkSetup, Listen
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.client import RunnerClient
from dora_daemon.agent.runners.directory import RunnerDirectory
from dora_daemon.process_tree.reaper import OWNER
from dora_daemon.process_tree.runtime_dir import RuntimeDir
from dora_node_api.protocol.control_socket import bind_unix
from dora_node_api.protocol.runner_index import CONTROL_SOCKET

STATUS = {"kind": "status", "dataflow_id": "d", "state": {"kind": "state", "phase": "running"}}


class Runner:
    """Control socket of a runner that a client attends."""

    def __init__(self, root: Path, *, backlog: int = 16) -> None:
        self._created = RuntimeDir.create(root)
        self._created.write(OWNER, "token")
        self.socket = self._created.path / CONTROL_SOCKET
        self._listener = bind_unix(self.socket, backlog=backlog)
        self.events: list[RunnerNotice] = []
        self.client = RunnerClient(
            "d", "d@", lambda _, event: self.events.append(event), lambda: None
        )

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[RunnerClient]:
        directory = RunnerDirectory(self._created.path, "token")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.attend, directory)
            try:
                yield self.client
            finally:
                self._listener.close()
                os.close(self._created.lock_descriptor)  # the runner has ended
        assert isinstance(self.events[-1], RunnerEnded)

    async def accept(self) -> socket.socket:
        return await anyio.to_thread.run_sync(self._accept)

    def _accept(self) -> socket.socket:
        self._listener.settimeout(10)
        connection = self._listener.accept()[0]
        connection.settimeout(10)
        return connection


async def receive(connection: socket.socket, kind: str) -> dict[str, Any]:
    """Read until a request of this kind."""
    return await anyio.to_thread.run_sync(_receive, connection, kind)


def _receive(connection: socket.socket, kind: str) -> dict[str, Any]:
    data = b""
    while more := connection.recv(65536):
        data += more
        for line in data.split(b"\n")[:-1]:
            message: dict[str, Any] = json.loads(line)
            if message["request"]["kind"] == kind:
                return message
    raise AssertionError(f"the client disconnected before {kind}")


def reply(connection: socket.socket, number: int, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"id": number, "reply": message}).encode() + b"\n")


def test_unanswered_request_is_repeated_on_the_next_connection(tmp_path: Path) -> None:
    peers = SetLinkPeers(peers=(PeerEndpoint(machine="m", run_id="r", endpoints=("h:1",)),))
    runner = Runner(tmp_path)

    async def scenario() -> None:
        async with runner.attended() as client:
            client.send(peers)  # before there is a connection
            with await runner.accept() as first:
                await receive(first, "set_link_peers")  # disconnects without a reply
            with await runner.accept() as second:
                repeated = await receive(second, "set_link_peers")
                reply(second, repeated["id"], {"kind": "done"})
                reply(second, 0, STATUS)
                await wait_until_async(lambda: client.status, what="the status")
            with await runner.accept() as third:
                client.send(SetLinkPeers(ended=("m",)))
                message = await receive(third, "set_link_peers")
                assert message["request"]["ended"] == ["m"], "answered requests are not repeated"

    anyio.run(scenario)
    assert isinstance(runner.events[0], RunnerChanged)


def test_notices_that_arrive_together_lead_to_one_request_of_the_status(tmp_path: Path) -> None:
    runner = Runner(tmp_path)

    async def scenario() -> None:
        async with runner.attended() as client:
            with await runner.accept() as connection:
                await receive(connection, "get_status")  # the first one
                reply(connection, 0, STATUS)
                await wait_until_async(lambda: client.status, what="the status")
                for revision in range(1, 31):
                    notice = Envelope(notice=RunnerState(phase="running", revision=revision))
                    connection.sendall(encode_line(notice))
                await wait_until_async(lambda: len(runner.events) == 31, what="the notices")
                client.send(GetHistory(), lambda *_: None)
                message = await receive(connection, "get_history")
                # after handshake and status: at most one more status was requested
                assert message["id"] <= 4

    anyio.run(scenario)


def test_call_of_a_runner_without_connection_fails_at_once(tmp_path: Path) -> None:
    problems: list[str | None] = []
    client = RunnerClient("d", "d@", lambda *_: None, lambda: None)
    client.send(SetLinkPeers(), lambda _, problem: problems.append(problem))
    assert problems == ["the runner of that dataflow does not answer at the moment"]


def test_runner_that_sends_garbage_is_connected_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(tmp_path)

    async def scenario() -> None:
        async with runner.attended() as client:
            with await runner.accept() as first:
                first.sendall(b"no json\n")
                with await runner.accept() as second:
                    reply(second, 0, STATUS)
                    await wait_until_async(lambda: client.status, what="the status")

    anyio.run(scenario)
    assert "runner of dataflow d: " in caplog.text


@pytest.mark.parametrize(
    ("dataflow_has_ended", "answer"),
    [
        (False, (None, "the runner of that dataflow ended before it had answered")),
        (True, (Refusal(message="the dataflow has ended", ended=True), None)),
    ],
)
def test_call_of_a_runner_that_ends_before_its_answer_fails(
    tmp_path: Path, dataflow_has_ended: bool, answer: tuple[Refusal | None, str | None]
) -> None:
    runner = Runner(tmp_path)
    answers: list[tuple[RunnerReply | None, str | None]] = []

    async def scenario() -> None:
        async with runner.attended() as client:
            with await runner.accept() as connection:
                reply(connection, 0, STATUS)
                await wait_until_async(lambda: client.status, what="the status")
                client.send(GetHistory(), lambda *answer: answers.append(answer))
                await receive(connection, "get_history")
                if dataflow_has_ended:
                    result = DataflowResult(dataflow_id="d")
                    ended = Envelope(notice=RunnerState(phase="finished", result=result))
                    connection.sendall(encode_line(ended))
            await wait_until_async(lambda: answers, what="the end of the call")

    anyio.run(scenario)
    assert answers == [answer]


def test_runner_without_a_runtime_directory_ends_its_part(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.write_text("not a folder")
    ended: list[RunnerNotice] = []
    client = RunnerClient("d", "d@", lambda _, event: ended.append(event), lambda: None)
    part = PartRecord(dataflow_id="d", attempt=1, spec=dataflow(camera="robot"), machine="robot")
    links = LinkSetup(Listen("127.0.0.1", plain=True), "", Credentials(tmp_path / "own"))
    anyio.run(client.start, part, root, LocalMachine(tmp_path, "boot"), links)
    (event,) = ended
    assert isinstance(event, RunnerEnded)
    reason = f"its runner could not be started: cannot use the runtime directory {root}"
    assert event.reason.startswith(reason)


def test_full_socket_of_a_runner_does_not_block(tmp_path: Path) -> None:
    runner = Runner(tmp_path, backlog=0)

    async def scenario() -> None:
        async with runner.attended():
            begun = anyio.current_time()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert anyio.current_time() - begun < 1.0

    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(runner.socket))  # fills the backlog
        anyio.run(scenario)
