"""Control socket of a runner at the end of the dataflow."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from unittest.mock import MagicMock

import anyio
import anyio.to_thread
import pytest

from dora_config.protocol import runner as protocol
from dora_daemon.runner.control.requests import ControlRequests
from dora_daemon.runner.control.server import ControlServer
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.errors import RequestRefused
from dora_node_api.protocol.control_socket import connect_unix


async def answer(request: protocol.RunnerRequest) -> protocol.RunnerReply:
    return protocol.Done()


def ask(path: Path) -> bytes:
    with connect_unix(path) as client:
        client.sendall(protocol.request_line(1, protocol.GetStatus()))
        return client.makefile("rb").readline()


def test_requests_in_progress_are_answered_at_the_end(tmp_path: Path) -> None:
    replies: list[bytes] = []

    async def scenario() -> None:
        begun, released = anyio.Event(), anyio.Event()

        async def answer_later(request: protocol.RunnerRequest) -> protocol.RunnerReply:
            begun.set()
            await released.wait()
            return protocol.Done()

        def ask_to_the_end() -> None:
            with connect_unix(tmp_path / "c") as client:
                client.sendall(protocol.request_line(1, protocol.GetStatus()))
                replies.extend(client.makefile("rb"))
                client.sendall(protocol.request_line(2, protocol.GetStatus()))

        async with anyio.create_task_group() as tasks:
            server = ControlServer(tmp_path / "c", answer_later, print)
            tasks.start_soon(server.serve)
            tasks.start_soon(anyio.to_thread.run_sync, ask_to_the_end)
            await begun.wait()
            async with anyio.create_task_group() as ending:
                ending.start_soon(server.finish)
                await anyio.wait_all_tasks_blocked()
                released.set()
            tasks.cancel_scope.cancel()

    anyio.run(scenario)
    assert [json.loads(reply)["reply"] for reply in replies] == [{"kind": "done", "warnings": []}]


def test_a_request_that_waits_is_refused_when_the_dataflow_ends() -> None:
    async def scenario() -> None:
        state = MagicMock(phase="running")
        dispatcher = Dispatcher(state, print, lambda: None)

        def end() -> None:
            state.phase = "finished"
            dispatcher.notify()

        asyncio.get_running_loop().call_soon(end)
        with pytest.raises(RequestRefused, match="the dataflow has ended"):
            await dispatcher.until(lambda: False)
        await dispatcher.until(lambda: True)

    anyio.run(scenario)


def test_a_request_without_descriptors_is_refused() -> None:
    runner = MagicMock()
    runner.dispatcher.emit.side_effect = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    requests = ControlRequests(runner)
    reply = anyio.run(requests.answer, protocol.Release())
    problem = "the request failed: [Errno 24] Too many open files"
    assert reply == protocol.Refusal(message=problem)
