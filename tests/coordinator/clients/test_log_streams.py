"""Streams of log files to clients."""

from __future__ import annotations

from support.simulation.fleet_simulation import SimulatedFleet, running_dataflows
from support.simulation.machine_simulation import FakeDaemon

from dora_config.protocol.control import (
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.daemon import (
    TO_DAEMON,
    EndLogs,
    LogChunk,
    MoreLogs,
    StreamLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_coordinator.state.events import (
    ClientCancelled,
    ClientDisconnected,
    DaemonMessageReceived,
    LogLinesSent,
)


def _stream(daemon: FakeDaemon) -> StreamLogs:
    (text,) = daemon.from_coordinator
    daemon.from_coordinator.clear()
    message = TO_DAEMON.decode(text)
    assert isinstance(message, StreamLogs)
    return message


def _chunk(fleet: SimulatedFleet, daemon: FakeDaemon, chunk: LogChunk) -> None:
    assert daemon.connection is not None
    fleet.handle(DaemonMessageReceived(daemon.connection, chunk))


def test_logs_are_requested_chunk_by_chunk() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.ask(ReadLogs(nodes=("sink",), filter=LogFilter(tail=2)))
    request = _stream(daemon)
    assert (request.nodes, request.filter.tail) == (("sink",), 2)
    fleet.progress.clear()
    _chunk(fleet, daemon, LogChunk(stream=request.stream, lines=("x", "y")))
    (lines,) = fleet.progress
    assert lines == LogLines(daemon=daemon.key, stream=request.stream, lines=("x", "y"))
    assert not daemon.from_coordinator  # the next chunk is requested once the client has this one
    fleet.handle(LogLinesSent(request.stream))
    assert TO_DAEMON.decode(daemon.from_coordinator[0]) == MoreLogs(stream=request.stream)
    _chunk(fleet, daemon, LogChunk(stream=request.stream, done=True))
    assert fleet.answers[number] == LogsEnd()


def test_refusal_of_an_unknown_node_lists_the_nodes() -> None:
    fleet, _ = running_dataflows("a")
    failure = fleet.failures[fleet.ask(ReadLogs(nodes=("unknown",)))]
    assert 'has no node "unknown"; its nodes are: sink, source' in failure.message


def test_the_answer_names_disconnected_daemons() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.ask(ReadLogs(follow=True))
    fleet.disconnect(daemon)
    problem = f'the connection to daemon "{daemon.key}" was lost'
    assert fleet.answers[number] == LogsEnd(problems=(problem,))
    number = fleet.ask(ReadLogs())
    answer = fleet.answers[number]
    assert answer == LogsEnd(problems=(f'no connection to daemon "{daemon.key}"',))


def test_a_client_that_disconnects_ends_its_streams() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.ask(ReadLogs(follow=True))
    first = _stream(daemon).stream
    number = fleet.ask(ReadLogs(follow=True))
    second = _stream(daemon).stream
    assert "at most 2 log streams" in fleet.failures[fleet.ask(ReadLogs())].message
    fleet.handle(ClientCancelled(1, number))
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=second)
    fleet.handle(ClientDisconnected(1))
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=first)
    late = LogChunk(stream=first, lines=("late",))
    _chunk(fleet, daemon, late)
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndLogs(stream=first)
