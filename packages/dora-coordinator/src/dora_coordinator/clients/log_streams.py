"""Streams of log files from daemons to clients; pure.

One request of a client becomes one stream per daemon that has nodes of the dataflow. A stream that
breaks with the connection of its daemon is named in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dora_config.protocol.control import LogLines, LogsEnd, ReadLogs
from dora_config.protocol.daemon import EndStream, LogChunk, ReadOn, StreamLogs
from dora_config.protocol.envelope import clean_lines
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


@dataclass(slots=True)
class _Reading:
    client: int
    number: int
    request: ReadLogs
    dataflow_id: str
    streams: dict[int, str] = field(default_factory=dict)
    """Open streams and their daemons."""
    problems: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """Daemons that are not connected."""
    without_log: set[str] = field(default_factory=set)
    """Requested nodes that are not part of the dataflow and without a log on the daemons that have
    answered; removed nodes have one.
    """
    refusal: str = ""
    """For the client if such nodes are left."""

    def miss(self, daemon: str, problem: str) -> None:
        self.missing.add(daemon)
        self.problems.append(problem)


class LogStreams:
    def __init__(self, membership: Membership, settings: Settings, numbers: Iterator[int]) -> None:
        """``numbers``: yields numbers of streams, which logs and topics share."""
        self._membership = membership
        self._settings = settings
        self._readings: dict[tuple[int, int], _Reading] = {}
        self._by_stream: dict[int, _Reading] = {}
        self._numbers = numbers

    def open(
        self, requested: ClientRequested, request: ReadLogs, dataflow: Dataflow
    ) -> list[do.Command]:
        """Raises :class:`RequestRefused`."""
        known = {node for part in dataflow.parts.values() for node in part.nodes}
        unknown = tuple(node for node in request.nodes if node not in known)
        self._check(requested)
        reading = _Reading(requested.client, requested.number, request, dataflow.id)
        if unknown:
            reading.without_log = set(unknown)
            reading.refusal = (
                f'dataflow {dataflow.label} has no node "{unknown[0]}"; '
                f"its nodes are: {', '.join(sorted(known))}"
            )
            if request.follow:
                raise RequestRefused("not_found", reading.refusal)
        self._readings[requested.client, requested.number] = reading
        commands: list[do.Command] = []
        for part in dataflow.parts.values():
            nodes = tuple(n for n in part.nodes if not request.nodes or n in request.nodes)
            nodes += unknown
            if not nodes:
                continue
            if self._membership.is_connected(part.daemon):
                commands.append(self._open_stream(reading, part.daemon, nodes))
            else:
                reading.miss(part.daemon, f'no connection to daemon "{part.daemon}"')
        return [*commands, *self._answer_if_done(reading)]

    def _check(self, requested: ClientRequested) -> None:
        limit = self._settings.streams_per_client
        if sum(1 for client, _ in self._readings if client == requested.client) >= limit:
            raise RequestRefused(
                "failed",
                f"at most {limit} log streams are open over one connection; close one, for example "
                "another tab of `dora ui` with logs, and try again",
            )

    def _open_stream(self, reading: _Reading, daemon: str, nodes: tuple[str, ...]) -> do.Command:
        number = next(self._numbers)
        reading.streams[number] = daemon
        self._by_stream[number] = reading
        message = StreamLogs(
            stream=number,
            dataflow_id=reading.dataflow_id,
            nodes=nodes,
            filter=reading.request.filter,
            follow=reading.request.follow,
            after={node: end for node, end in reading.request.after.items() if node in nodes},
        )
        return do.SendToDaemon(daemon, message)

    def chunk(self, daemon: str, chunk: LogChunk) -> list[do.Command]:
        """Forward a chunk of a daemon to its client."""
        reading = self._by_stream.get(chunk.stream)
        if reading is None or reading.streams.get(chunk.stream) != daemon:
            return [] if chunk.done else [do.SendToDaemon(daemon, EndStream(stream=chunk.stream))]
        commands: list[do.Command] = []
        if chunk.lines:
            lines = LogLines(
                daemon=daemon, stream=chunk.stream, lines=chunk.lines, positions=chunk.positions
            )
            commands.append(do.SendProgress(reading.client, reading.number, lines))
        if chunk.problem:
            reading.problems.append(f'daemon "{daemon}": {clean_lines(chunk.problem)}')
        if chunk.done:
            if chunk.missing is not None:
                reading.without_log.intersection_update(chunk.missing)
            self._close_stream(reading, chunk.stream)
            commands += self._answer_if_done(reading)
        return commands

    def sent(self, stream: int) -> list[do.Command]:
        """A chunk was sent to the client: its daemon may send the next."""
        reading = self._by_stream.get(stream)
        if reading is None:
            return []
        return [do.SendToDaemon(reading.streams[stream], ReadOn(stream=stream))]

    def daemon_lost(self, daemon: str) -> list[do.Command]:
        commands: list[do.Command] = []
        for stream, reading in list(self._by_stream.items()):
            if reading.streams.get(stream) == daemon:
                reading.miss(daemon, f'the connection to daemon "{daemon}" was lost')
                self._close_stream(reading, stream)
                if reading.request.resumes:
                    commands += self._end_streams(reading)
                commands += self._answer_if_done(reading)
        return commands

    def daemon_connected(self, daemon: str) -> list[do.Command]:
        """End the requests that a daemon was missing in and that are sent again."""
        commands: list[do.Command] = []
        for reading in list(self._readings.values()):
            if reading.request.resumes and daemon in reading.missing:
                commands += self._end_streams(reading)
                commands += self._answer_if_done(reading)
        return commands

    def drop(self, client: int, number: int | None) -> list[do.Command]:
        """End one request of a client (None: all of them)."""
        commands: list[do.Command] = []
        for reading in list(self._readings.values()):
            if reading.client == client and number in (None, reading.number):
                del self._readings[client, reading.number]
                commands += self._end_streams(reading)
        return commands

    def _end_streams(self, reading: _Reading) -> list[do.Command]:
        open_streams = dict(reading.streams)
        for stream in open_streams:
            self._close_stream(reading, stream)
        return [do.SendToDaemon(d, EndStream(stream=stream)) for stream, d in open_streams.items()]

    def _close_stream(self, reading: _Reading, stream: int) -> None:
        del reading.streams[stream]
        del self._by_stream[stream]

    def _answer_if_done(self, reading: _Reading) -> list[do.Command]:
        if reading.streams:
            return []
        self._readings.pop((reading.client, reading.number), None)
        if reading.without_log:
            refusal = "; ".join((reading.refusal, *reading.problems))
            return [do.FailClient(reading.client, reading.number, refusal, "not_found")]
        answer = LogsEnd(problems=tuple(reading.problems))
        return [do.AnswerClient(reading.client, reading.number, answer)]
