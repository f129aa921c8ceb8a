"""A runner's directory is its own only as long as its token lies in it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from dora_config.protocol.links import PeerEndpoint, SetLinkPeers
from dora_config.protocol.runner import DataflowResult
from dora_daemon.agent.runners import _Attendant, _Home
from dora_daemon.process_tree.reaper import OWNER, RESULT, remove_directory
from dora_daemon.process_tree.runtime_dir import RuntimeDir
from dora_node_api.protocol.control_socket import bind_unix


def make(root: Path, token: str) -> tuple[RuntimeDir, _Home]:
    directory = RuntimeDir.create(root)
    directory.write(OWNER, token)
    return directory, _Home(directory.path, token)


def test_a_runner_that_holds_its_lock_lives(tmp_path: Path) -> None:
    directory, home = make(tmp_path, "one")
    assert not home.is_left()
    os.close(directory.lock_descriptor)
    assert home.is_left()
    home.clean_up()
    assert not directory.path.exists()


def test_a_number_that_was_given_to_another_runner_is_not_mistaken(tmp_path: Path) -> None:
    first, home = make(tmp_path, "one")
    os.close(first.lock_descriptor)
    remove_directory(str(first.path))  # as the reaper of a killed runner does
    second, _ = make(tmp_path, "two")
    assert second.path == first.path
    second.write(RESULT, DataflowResult(dataflow_id="d").model_dump_json())
    second.write("runner.log", "words of another")
    assert home.is_left()
    assert home.result() is None
    assert home.last_words() == ""
    home.clean_up()
    assert (second.path / RESULT).exists()
    os.close(second.lock_descriptor)


def test_a_result_that_nobody_was_there_to_hear_is_found_later(tmp_path: Path) -> None:
    directory, home = make(tmp_path, "one")
    result = DataflowResult(dataflow_id="d", error="the runner failed")
    directory.write(RESULT, result.model_dump_json())
    directory.write("runner.log", "last words")
    directory.release(keep=True)
    assert home.is_left()
    assert home.result() == result
    assert home.last_words() == "\n  last words"
    home.clean_up()
    assert not directory.path.exists()


@asynccontextmanager
async def attended(directory: RuntimeDir, home: _Home) -> AsyncIterator[_Attendant]:
    attendant = _Attendant("d", "d@", lambda who, event: None, lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attendant.attend, home)
        try:
            yield attendant
        finally:
            os.close(directory.lock_descriptor)  # the runner has ended


def _accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(10)
    connection = listener.accept()[0]
    connection.settimeout(10)
    return connection


def _request(connection: socket.socket, kind: str) -> int:
    """Read until a request of this kind has come; its number."""
    data = b""
    while True:
        more = connection.recv(65536)
        assert more
        data += more
        for line in data.split(b"\n")[:-1]:
            said = json.loads(line)
            if said["request"]["kind"] == kind:
                return int(said["id"])


def test_what_a_runner_was_asked_while_it_could_not_be_reached_is_asked_again(
    tmp_path: Path,
) -> None:
    peers = SetLinkPeers(peers=(PeerEndpoint(machine="m", run_id="r", endpoints=("h:1",)),))

    async def scenario() -> None:
        directory, home = make(tmp_path, "one")
        listener = bind_unix(directory.path / "c")
        async with attended(directory, home) as attendant:
            attendant.ask(peers)  # nobody listens yet
            first = await anyio.to_thread.run_sync(_accept, listener)
            await anyio.to_thread.run_sync(_request, first, "set_link_peers")
            first.close()  # and no answer: the runner may not have heard of it
            second = await anyio.to_thread.run_sync(_accept, listener)
            number = await anyio.to_thread.run_sync(_request, second, "set_link_peers")
            second.sendall(json.dumps({"id": number, "reply": {"kind": "done"}}).encode() + b"\n")
            with anyio.fail_after(10):
                while attendant._owed:  # noqa: ASYNC110 - nothing tells when a reply is read
                    await anyio.sleep(0.01)
            second.close()
            listener.close()

    anyio.run(scenario)


def test_a_runner_that_does_not_listen_keeps_the_daemon_from_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        directory, home = make(tmp_path, "one")
        listener = bind_unix(directory.path / "c", backlog=0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(directory.path / "c"))  # as many as may wait
        async with attended(directory, home):
            begun = anyio.current_time()
            for _ in range(10):
                await anyio.sleep(0.02)
            assert anyio.current_time() - begun < 1.0
        waiting.close()
        listener.close()

    anyio.run(scenario)
