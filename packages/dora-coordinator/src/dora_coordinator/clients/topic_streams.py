"""Streams of watched outputs from daemons to clients; pure.

One request of a client becomes one stream for each daemon that runs one of its nodes. A stream that
breaks, with the connection of its daemon or with the runner there, is opened again once that part
runs again; the watch ends with the dataflow or with its client.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from dora_config.protocol.control import WatchTopics
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.topics import (
    MAX_CHUNK,
    MAX_TOPICS,
    EndTopics,
    MoreTopics,
    StreamTopics,
    TopicChunk,
    TopicsEnd,
    TopicUpdate,
    WatchedTopics,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import AnswerClient, Command, SendProgress, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import PartState

MESSAGE_BYTES_PER_CHARACTER = 8
"""A chunk has at most one character per this many bytes that a message may have."""


@dataclass(slots=True)
class _Watch:
    client: int
    number: int
    request: WatchTopics
    dataflow: Dataflow
    topics: dict[str, tuple[str, ...]]
    """Topics by daemon, without daemons whose part has ended."""
    streams: dict[int, str] = field(default_factory=dict)
    """Open streams and their daemons."""
    broken: dict[str, int | None] = field(default_factory=dict)
    """Daemons without a stream: the attempt of the part whose runner is gone, or None while the
    daemon is not connected.
    """
    problems: list[str] = field(default_factory=list)


_TOO_MANY = (
    "at most {} watches are open over one connection; close one, for example another tab of "
    "`dora ui` with an output, and try again"
)


class TopicStreams:
    def __init__(self, membership: Membership, settings: Settings) -> None:
        self._membership = membership
        self._settings = settings
        self._watches: dict[tuple[int, int], _Watch] = {}
        self._by_stream: dict[int, _Watch] = {}
        self._last_stream = 0

    def open(
        self, requested: ClientRequested, request: WatchTopics, dataflow: Dataflow
    ) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        _check_allowed(dataflow)
        limit = self._settings.streams_per_client
        if sum(1 for client, _ in self._watches if client == requested.client) >= limit:
            raise RequestRefused("failed", _TOO_MANY.format(limit))
        chosen = _chosen(dataflow, request.topics)
        topics = _by_daemon(dataflow, chosen)
        watch = _Watch(requested.client, requested.number, request, dataflow, topics)
        watch.broken = dict.fromkeys(topics)
        self._watches[requested.client, requested.number] = watch
        commands = self._reopen(watch)
        notes = [f'no connection to daemon "{daemon}" at the moment' for daemon in watch.broken]
        gone = set(chosen).difference(*topics.values()) if request.topics else ()
        notes += [f"no more samples of {topic}: its part has ended" for topic in sorted(gone)]
        return [*commands, *(_note(watch, note) for note in notes)]

    def chunk(self, daemon: str, chunk: TopicChunk) -> list[Command]:
        watch = self._by_stream.get(chunk.stream)
        if watch is None or watch.streams.get(chunk.stream) != daemon:
            return [] if chunk.done else [SendToDaemon(daemon, EndTopics(stream=chunk.stream))]
        if not chunk.done:
            notes = tuple(clean_lines(note) for note in chunk.news.notes)
            news = chunk.news.model_copy(update={"notes": notes})
            progress = WatchedTopics(daemon=daemon, stream=chunk.stream, news=news)
            return [SendProgress(watch.client, watch.number, progress)]
        self._close(watch, chunk.stream)
        if chunk.problem is not None:
            watch.problems.append(f'daemon "{daemon}": {clean_lines(chunk.problem)}')
            del watch.topics[daemon]
            return self._reopen(watch)
        watch.broken[daemon] = watch.dataflow.parts[daemon].attempt
        return self._reopen(watch)

    def taken(self, client: int, number: int, stream: int) -> list[Command]:
        """The client has displayed a chunk: its daemon may send the next."""
        watch = self._watches.get((client, number))
        if watch is None or stream not in watch.streams:
            return []
        return [SendToDaemon(watch.streams[stream], MoreTopics(stream=stream))]

    def daemon_lost(self, daemon: str) -> list[Command]:
        commands: list[Command] = []
        for stream, watch in list(self._by_stream.items()):
            if watch.streams.get(stream) == daemon:
                self._close(watch, stream)
                watch.broken[daemon] = None
                commands.append(_note(watch, f'the connection to daemon "{daemon}" was lost'))
        return commands

    def reopen(self) -> list[Command]:
        """Reopen broken streams and answer finished watches; called after every event."""
        broken = [watch for watch in self._watches.values() if watch.broken]
        return [command for watch in broken for command in self._reopen(watch)]

    def drop(self, client: int, number: int | None) -> list[Command]:
        """End one request of a client (None: all of them)."""
        commands: list[Command] = []
        for watch in list(self._watches.values()):
            if watch.client == client and number in (None, watch.number):
                del self._watches[client, watch.number]
                for stream, daemon in watch.streams.items():
                    del self._by_stream[stream]
                    commands.append(SendToDaemon(daemon, EndTopics(stream=stream)))
        return commands

    def _reopen(self, watch: _Watch) -> list[Command]:
        commands: list[Command] = []
        for daemon, attempt in list(watch.broken.items()):
            part = watch.dataflow.parts[daemon]
            if part.ended or watch.dataflow.has_ended:
                del watch.broken[daemon], watch.topics[daemon]
            elif (
                part.state is PartState.RUNNING
                and part.attempt != attempt
                and self._membership.is_connected(daemon)
            ):
                del watch.broken[daemon]
                commands.append(self._open_stream(watch, daemon))
        if not watch.topics:
            del self._watches[watch.client, watch.number]
            end = TopicsEnd(problems=tuple(watch.problems))
            commands.append(AnswerClient(watch.client, watch.number, end))
        return commands

    def _open_stream(self, watch: _Watch, daemon: str) -> Command:
        self._last_stream += 1
        watch.streams[self._last_stream] = daemon
        self._by_stream[self._last_stream] = watch
        chunk = min(MAX_CHUNK, self._settings.max_message_bytes // MESSAGE_BYTES_PER_CHARACTER)
        message = StreamTopics(
            stream=self._last_stream,
            dataflow_id=watch.dataflow.id,
            topics=watch.topics[daemon],
            rates=watch.request.rates,
            window=watch.request.window,
            sample_bytes=max(256, min(watch.request.sample_bytes, chunk // 2)),
            max_rate=watch.request.max_rate,
            picture_bytes=min(watch.request.picture_bytes, chunk // 2),
            whole_picture_bytes=watch.request.whole_picture_bytes,
            chunk_bytes=chunk,
        )
        return SendToDaemon(daemon, message)

    def _close(self, watch: _Watch, stream: int) -> None:
        del watch.streams[stream]
        del self._by_stream[stream]


def _note(watch: _Watch, note: str) -> Command:
    progress = WatchedTopics(daemon="", stream=0, news=TopicUpdate(notes=(note,)))
    return SendProgress(watch.client, watch.number, progress)


def _check_allowed(dataflow: Dataflow) -> None:
    if not dataflow.spec.resolved.debug_inspection:
        raise RequestRefused(
            "failed",
            f"topic inspection requires debug mode, which dataflow {dataflow.label} does not have:"
            " write `debug: {enable_debug_inspection: true}` into its file, or start it with"
            " --debug",
        )
    if dataflow.has_ended:
        raise RequestRefused("not_found", f"dataflow {dataflow.label} has ended")


def _chosen(dataflow: Dataflow, topics: tuple[str, ...]) -> tuple[str, ...]:
    """Return the given outputs, each once, or all outputs if none is given."""
    nodes = dataflow.spec.resolved.nodes
    known = [f"{node.id}/{output}" for node in nodes for output in node.outputs]
    for topic in topics:
        if topic not in known:
            close = difflib.get_close_matches(topic, known, n=3)
            hint = f"did you mean {' or '.join(close)}? Its" if close else "its"
            raise RequestRefused(
                "not_found",
                f'dataflow {dataflow.label} has no output "{topic}"; {hint} outputs are: '
                f"{', '.join(known) or 'none'}",
            )
    if not known:
        raise RequestRefused("not_found", f"the nodes of dataflow {dataflow.label} have no outputs")
    chosen = tuple(dict.fromkeys(topics or known))
    if len(chosen) > MAX_TOPICS:
        raise RequestRefused(
            "failed",
            f"dataflow {dataflow.label} has {len(chosen)} outputs; name those to watch, at most"
            f" {MAX_TOPICS}",
        )
    return chosen


def _by_daemon(dataflow: Dataflow, topics: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found = {
        part.daemon: tuple(t for t in topics if t.partition("/")[0] in part.nodes)
        for part in dataflow.parts.values()
        if not part.ended
    }
    chosen = {daemon: some for daemon, some in found.items() if some}
    if not chosen:
        raise RequestRefused("not_found", f"the nodes of {', '.join(topics)} have ended")
    return chosen
