"""Streams to the coordinator: how they end, and their inspector processes."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from support.simulation.fleets import dataflow

from dora_config.protocol.daemon import LogChunk, StreamLogs
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent import streams as module
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.streams import Streams
from dora_daemon.inspection import process
from dora_node_api.protocol.control_socket import bind_unix
from dora_node_api.protocol.runner_index import NODE_SOCKET

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
REQUEST = StreamTopics(stream=1, dataflow_id=ID, topics=("camera/image",), rates=True)


def record(path: Path) -> PartRecord:
    spec = dataflow(camera="robot")
    return PartRecord(dataflow_id=ID, attempt=1, spec=spec, runtime_dir=str(path))


async def accept(listener: socket.socket) -> socket.socket:
    """Accept an inspector, which gets no answer."""
    connection, _ = await anyio.to_thread.run_sync(listener.accept)
    return connection


def until_gone(connection: socket.socket) -> None:
    """Read until the inspector has ended."""
    while connection.recv(1 << 16):
        pass


def inspected(path: Path) -> list[LogChunk | TopicChunk]:
    """Return what an inspector sends until it has ended."""
    sent: list[LogChunk | TopicChunk] = []

    async def inspect() -> None:
        async with anyio.create_task_group() as tasks:
            Streams(tasks, sent.append, lambda dataflow: True).open(record(path), REQUEST)

    anyio.run(inspect)
    return sent


def test_number_of_a_stream_is_reused_while_its_process_ends(tmp_path: Path) -> None:
    sent: list[LogChunk | TopicChunk] = []

    async def inspect() -> None:
        with bind_unix(tmp_path / NODE_SOCKET) as listener:
            async with anyio.create_task_group() as tasks:
                streams = Streams(tasks, sent.append, lambda dataflow: True)
                streams.open(record(tmp_path), REQUEST)
                with await accept(listener) as first:
                    streams.close_all()
                    streams.open(record(tmp_path), REQUEST)
                    with await accept(listener):
                        await anyio.to_thread.run_sync(until_gone, first)
                        assert sent == []
                        streams.read_on(1)

    anyio.run(inspect)
    assert sent == [TopicChunk(stream=1, done=True)]


def test_stream_of_a_runner_that_has_ended_ends(tmp_path: Path) -> None:
    assert inspected(tmp_path) == [TopicChunk(stream=1, done=True)]


def test_inspector_that_cannot_be_started_ends_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    sent = inspected(tmp_path)
    problem = "cannot start an inspector: [Errno 24] Too many open files"
    assert sent == [TopicChunk(stream=1, done=True, problem=problem)]


def test_malformed_output_of_an_inspector_ends_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "run_module", lambda _: ["sh", "-c", "echo no json"])
    sent = inspected(tmp_path)
    assert [(chunk.stream, chunk.done) for chunk in sent] == [(1, True)]
    assert "its inspector ended unexpectedly" in (sent[0].problem or "")
    assert "malformed message of an inspector: " in caplog.text


def test_number_of_inspectors_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_INSPECTORS", 0)
    sent = inspected(tmp_path)
    assert "at most 0 `dora topic` streams" in (sent[0].problem or "")


def test_a_folder_that_cannot_be_read_has_no_log(tmp_path: Path) -> None:
    """Its name is too long, so looking at it is an error."""
    part = PartRecord(
        dataflow_id=ID, attempt=1, spec=dataflow(), log_dirs={"a": str(tmp_path / ("x" * 300))}
    )
    sent: list[LogChunk | TopicChunk] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            streams = Streams(tasks, sent.append, lambda dataflow: False)
            streams.open(part, StreamLogs(stream=1, dataflow_id=ID, nodes=("a",)))

    anyio.run(main)
    (chunk,) = sent
    assert isinstance(chunk, LogChunk)
    assert chunk.done
    assert chunk.missing == ("a",)
    assert chunk.problem is not None
