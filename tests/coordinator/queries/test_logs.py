"""Streams of log files to clients."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, running_dataflows, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.control import (
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.daemon import (
    TO_DAEMON,
    EndStream,
    LogChunk,
    ReadOn,
    StreamLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_coordinator.state.events import (
    DaemonMessageReceived,
)


def _stream(daemon: SimulatedDaemon) -> StreamLogs:
    (text,) = daemon.from_coordinator
    daemon.from_coordinator.clear()
    message = TO_DAEMON.decode(text)
    assert isinstance(message, StreamLogs)
    return message


def _chunk(fleet: SimulatedFleet, daemon: SimulatedDaemon, chunk: LogChunk) -> None:
    assert daemon.connection is not None
    fleet.handle(DaemonMessageReceived(daemon.connection, chunk))


def test_logs_are_requested_chunk_by_chunk() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(ReadLogs(nodes=("sink",), filter=LogFilter(tail=2)))
    request = _stream(daemon)
    assert (request.nodes, request.filter.tail) == (("sink",), 2)
    fleet.progress.clear()
    ends = {"sink": (1, 2)}
    _chunk(fleet, daemon, LogChunk(stream=request.stream, lines=("x", "y"), positions=ends))
    (lines,) = fleet.progress
    assert lines == LogLines(
        daemon=daemon.key,
        stream=request.stream,
        lines=("x", "y"),
        positions=ends,
        reading=(daemon.key,),
    )
    assert not daemon.from_coordinator  # the next chunk is requested once the client has this one
    fleet.written()
    assert TO_DAEMON.decode(daemon.from_coordinator[0]) == ReadOn(stream=request.stream)
    _chunk(fleet, daemon, LogChunk(stream=request.stream, done=True))
    assert fleet.answers[number] == LogsEnd()


def test_refusal_of_an_unknown_node_lists_the_nodes() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(ReadLogs(nodes=("unknown",)))
    request = _stream(daemon)
    done = LogChunk(stream=request.stream, done=True, missing=("unknown",))
    _chunk(fleet, daemon, done)
    failure = fleet.failures[number]
    assert failure.message.endswith('has no node "unknown"; its nodes are: sink, source')
    assert failure.code == "not_found"
    following = fleet.failures[fleet.request(ReadLogs(nodes=("unknown",), follow=True))]
    assert (following.message, following.code) == (failure.message, failure.code)
    fleet.disconnect(daemon)
    failure = fleet.failures[fleet.request(ReadLogs(nodes=("unknown",)))]
    assert failure.message.endswith(f'; no connection to daemon "{daemon.key}"')


def test_the_log_of_a_node_that_could_not_be_added_is_sent() -> None:
    fleet, robot, station = running_fleet(dataflow(source="robot", sink="station"))
    for one in (robot, station):
        one.from_coordinator.clear()
    number = fleet.request(ReadLogs(nodes=("broken",)))
    first, second = _stream(robot), _stream(station)
    fleet.progress.clear()
    _chunk(fleet, robot, LogChunk(stream=first.stream, lines=("w",)))
    fleet.written()
    _chunk(fleet, robot, LogChunk(stream=first.stream, done=True, missing=("broken",)))
    _chunk(fleet, station, LogChunk(stream=second.stream, lines=("x",)))
    reading = [one.reading for one in fleet.progress if isinstance(one, LogLines)]
    assert reading == [("robot", "station"), ("station",)]
    fleet.written()
    _chunk(fleet, station, LogChunk(stream=second.stream, done=True, missing=()))
    assert fleet.answers[number] == LogsEnd()


def test_the_answer_names_disconnected_daemons() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(ReadLogs(follow=True))
    fleet.disconnect(daemon)
    problem = f'the connection to daemon "{daemon.key}" was lost'
    assert fleet.answers[number] == LogsEnd(problems=(problem,))
    number = fleet.request(ReadLogs())
    answer = fleet.answers[number]
    assert answer == LogsEnd(problems=(f'no connection to daemon "{daemon.key}"',))


def test_a_client_that_disconnects_ends_its_streams() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.request(ReadLogs(follow=True))
    first = _stream(daemon).stream
    number = fleet.request(ReadLogs(follow=True))
    second = _stream(daemon).stream
    fleet.leave(number)
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndStream(stream=second)
    fleet.leave()
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndStream(stream=first)
    late = LogChunk(stream=first, lines=("late",))
    _chunk(fleet, daemon, late)
    assert TO_DAEMON.decode(daemon.from_coordinator.popleft()) == EndStream(stream=first)


def test_positions_are_sent_to_the_daemons_of_their_nodes() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.request(ReadLogs(nodes=("sink",), after={"sink": (1, 2), "source": (3, 4)}))
    assert _stream(daemon).after == {"sink": (1, 2)}


def test_a_request_that_is_sent_again_ends_when_a_daemon_is_lost_or_returns() -> None:
    fleet, robot, station = running_fleet(dataflow(source="robot", sink="station"))
    for one in (robot, station):
        one.from_coordinator.clear()
    kept = fleet.request(ReadLogs(follow=True))
    number = fleet.request(ReadLogs(follow=True, resumes=True))
    fleet.disconnect(station)
    lost = LogsEnd(problems=('the connection to daemon "station" was lost',))
    assert fleet.answers[number] == lost
    assert [type(TO_DAEMON.decode(text)) for text in robot.from_coordinator] == [
        StreamLogs,
        StreamLogs,
        EndStream,
    ]
    again = fleet.request(ReadLogs(follow=True, resumes=True))
    assert again not in fleet.answers
    fleet.connect(station)
    fleet.settle()
    assert fleet.answers[again] == LogsEnd(problems=('no connection to daemon "station"',))
    assert kept not in fleet.answers


def test_problems_of_a_daemon_contain_no_control_characters() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(ReadLogs(nodes=("sink",)))
    stream = _stream(daemon).stream
    _chunk(fleet, daemon, LogChunk(stream=stream, done=True, problem="a\x1b[2Jb"))
    assert fleet.answers[number] == LogsEnd(problems=(f'daemon "{daemon.key}": a\\x1b[2Jb',))
