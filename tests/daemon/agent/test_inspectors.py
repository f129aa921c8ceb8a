"""The processes behind watches: one for each, and none is left."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from support.simulation.fleet_simulation import dataflow
from support.waiting import wait_until_async

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent import inspectors as module
from dora_daemon.agent.inspectors import Watches
from dora_daemon.agent.records import PartRecord
from dora_daemon.process_tree.runner_index import NODE_SOCKET
from dora_daemon.process_tree.runtime_dir import INSPECTION_SOCKET
from dora_node_api.protocol.control_socket import bind_unix

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
REQUEST = StreamTopics(stream=1, dataflow_id=ID, topics=("camera/image",), rates=True)


def record(path: Path) -> PartRecord:
    spec = dataflow(camera="robot")
    return PartRecord(dataflow_id=ID, attempt=1, spec=spec, runtime_dir=str(path))


async def accept(listener: socket.socket) -> socket.socket:
    """An inspector that has come; its runner will never say a word."""
    connection, _ = await anyio.to_thread.run_sync(listener.accept)
    return connection


def until_gone(connection: socket.socket) -> None:
    """Until the inspector has ended; what it says before is of no interest."""
    while connection.recv(1 << 16):
        pass


def test_a_number_may_be_used_again_while_the_last_process_is_being_ended(tmp_path: Path) -> None:
    told: list[TopicChunk] = []

    async def watch() -> None:
        with bind_unix(tmp_path / INSPECTION_SOCKET) as listener:
            async with anyio.create_task_group() as tasks:
                watches = Watches(tasks, told.append)
                watches.open(record(tmp_path), REQUEST)
                with await accept(listener) as first:
                    watches.close_all()
                    watches.open(record(tmp_path), REQUEST)
                    with await accept(listener):
                        await anyio.to_thread.run_sync(until_gone, first)
                        assert told == []
                        watches.read_on(1)

    anyio.run(watch)
    assert told == [TopicChunk(stream=1, done=True)]


@pytest.mark.parametrize("old", [True, False])
def test_a_runner_that_lets_nobody_watch_is_not_asked_again(tmp_path: Path, old: bool) -> None:
    if old:
        (tmp_path / NODE_SOCKET).touch()
    told: list[TopicChunk] = []

    async def watch() -> None:
        async with anyio.create_task_group() as tasks:
            Watches(tasks, told.append).open(record(tmp_path), REQUEST)
            await wait_until_async(lambda: told, what="the end")

    anyio.run(watch)
    (last,) = told
    assert last.done
    assert ("restart the dataflow" in (last.problem or "")) == old


def test_only_so_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WATCHES", 0)
    told: list[TopicChunk] = []

    async def watch() -> None:
        async with anyio.create_task_group() as tasks:
            Watches(tasks, told.append).open(record(tmp_path), REQUEST)

    anyio.run(watch)
    assert "0 watches at once are the most" in (told[0].problem or "")
