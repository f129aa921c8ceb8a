"""Watched outputs: one stream for each daemon that runs one of the nodes.

Equal requests for one output at a limited rate share a stream: further viewers cost the robot
nothing. A viewer that does not display its piece of a long message delays the others only for a
while. A stream that breaks, with the connection of its daemon or with the runner there, is opened
again once that part runs again; the watch ends with the dataflow or with its client.
"""

from __future__ import annotations

import difflib

import anyio

from dora_config.protocol.control import WatchTopics
from dora_config.protocol.daemon import EndStream, ReadOn
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.topics import (
    MAX_CHUNK,
    MAX_TOPICS,
    StreamTopics,
    TopicChunk,
    TopicSelection,
    TopicsEnd,
    TopicUpdate,
    WatchedTopics,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.part import Part
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import DaemonCalls, Reply
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.records import PartState

MAX_NOTES = 20
"""Notes that are stored for a reader."""
MESSAGE_BYTES_PER_CHARACTER = 8
"""A chunk has at most one character per this many bytes that a message may have."""
LATE_SECONDS = 10.0
"""Time for a reader to display a piece of a long message while other readers wait for it."""
_TORN_END = TopicUpdate(piece=" ")
"""Last piece for a reader that does not get the rest of a message: the whole is not valid JSON, so
the reader drops and counts it.
"""


class _Reader:
    """One watch of a stream, with the update that waits and the messages that were missed."""

    def __init__(self, stream: _Stream, client: RequestClient) -> None:
        self.busy = False
        """Whether the client has not displayed the last update yet."""
        self.skips = stream.in_message
        """Whether this reader does not get the message that is being sent in pieces."""
        self.end: TopicChunk | None = None
        """Last message of the stream; None: the connection to the daemon was lost."""
        self._torn = False
        """Whether this reader got the first pieces of a message and does not get the rest."""
        self._counts = False
        """Whether the message that is being sent was counted as dropped."""
        self._dropped = 0
        self._notes: tuple[str, ...] = ()
        self._stream = stream
        self._client = client
        self._scope = anyio.CancelScope()
        self._put, self._updates = anyio.create_memory_object_stream[TopicUpdate](1)

    async def run(self) -> None:
        """Forward updates until the stream ends."""
        stream = self._stream
        try:
            with self._scope, self._put, self._updates:
                async for update in self._updates:
                    await self._show(update)
                    if self._torn:
                        self._torn = False
                        await self._show(self._with_missed(_TORN_END))
                    self.busy = False
                    stream.advance()
        finally:
            stream.remove(self)

    async def _show(self, update: TopicUpdate) -> None:
        stream = self._stream
        request = WatchedTopics(daemon=stream.daemon, stream=stream.request.stream, update=update)
        displayed = self._client.show(request)
        while not displayed.is_set():
            with anyio.move_on_after(LATE_SECONDS):
                await displayed.wait()
                return
            if stream.waits_for(self):
                self.skips = self._torn = self._counts = True
                stream.advance()

    def finish(self, end: TopicChunk | None) -> None:
        """Handle the end of the stream."""
        self.end = end
        self._scope.cancel()

    def miss(self, update: TopicUpdate) -> None:
        self._dropped += sum(update.dropped.values()) + len(update.samples)
        if update.piece and not update.more:
            self._dropped += not self._counts
            self._counts = False
        self._notes = (*self._notes, *update.notes)[-MAX_NOTES:]

    def take(self, update: TopicUpdate) -> None:
        """Forward an update, with what was missed before."""
        self.busy = True
        self._put.send_nowait(self._with_missed(update))

    def _with_missed(self, update: TopicUpdate) -> TopicUpdate:
        if not self._dropped and not self._notes:
            return update
        topic = self._stream.request.topics[0]
        dropped = {**update.dropped, topic: update.dropped.get(topic, 0) + self._dropped}
        notes = (*self._notes, *update.notes)
        self._dropped, self._notes = 0, ()
        return update.model_copy(update={"dropped": dropped, "notes": notes})


class _Stream:
    """Updates of one daemon for one watch, or for equal ones.

    The next update is requested when one reader has displayed the last; each other reader continues
    with the first update after it has displayed its own. The pieces of a long message wait for all
    readers of that message, for `LATE_SECONDS` at most if there are several.
    """

    def __init__(self, daemon: str, request: StreamTopics, calls: DaemonCalls) -> None:
        self.daemon = daemon
        self.request = request
        self.in_message = False
        """Whether more pieces of the last message follow."""
        self.ended = False
        self._calls = calls
        self._readers: list[_Reader] = []
        self._requested = True
        self._begun = False
        self._notes: tuple[str, ...] = ()
        calls.open(daemon, request.stream, self._received)
        if not calls.send(daemon, request):
            self._end()

    def add(self, client: RequestClient) -> _Reader:
        """Add a reader, which receives the notes that the stream has sent before."""
        reader = _Reader(self, client)
        self._readers.append(reader)
        if self._begun:
            reader.take(TopicUpdate(notes=self._notes))
        return reader

    def remove(self, reader: _Reader) -> None:
        """Remove a reader; the stream ends with the last one."""
        self._readers.remove(reader)
        if self._readers:
            self.advance()
        elif not self.ended:
            self._end()
            self._calls.send(self.daemon, EndStream(stream=self.request.stream))

    def _end(self) -> None:
        self.ended = True
        self._calls.close(self.daemon, self.request.stream)

    def _received(self, chunk: Reply | None) -> None:
        """Send an update to each reader that is ready for it."""
        if not isinstance(chunk, TopicChunk) or chunk.done:
            self._end()
            for reader in self._readers:
                reader.finish(chunk if isinstance(chunk, TopicChunk) else None)
            return
        notes = tuple(clean_lines(note) for note in chunk.update.notes)
        update = chunk.update.model_copy(update={"notes": notes})
        first = not self.in_message
        self._begun, self._requested, self.in_message = True, False, update.more
        self._notes = (*self._notes, *notes)[-MAX_NOTES:]
        for reader in self._readers:
            if first:
                reader.skips = reader.busy
            if reader.skips:
                reader.miss(update)
            else:
                reader.take(update)
        self.advance()

    def waits_for(self, reader: _Reader) -> bool:
        """Return whether a reader delays the next piece for others."""
        delays = self.in_message and not self._requested and not reader.skips
        return delays and len(self._readers) > 1

    def advance(self) -> None:
        """Request the next update, unless it was requested or has to wait."""
        if self.in_message:
            ready = all(reader.skips or not reader.busy for reader in self._readers)
        else:
            ready = any(not reader.busy for reader in self._readers)
        if not self.ended and not self._requested and ready:
            self._requested = True
            self._calls.send(self.daemon, ReadOn(stream=self.request.stream))


class Topics:
    """All watches of the coordinator."""

    def __init__(self) -> None:
        self._streams: list[_Stream] = []

    async def watch(
        self, request: WatchTopics, cluster: QueryContext, client: RequestClient
    ) -> TopicsEnd:
        """Forward the watched outputs until the dataflow ends; raises :class:`RequestRefused`."""
        dataflow = cluster.registry.find(request.dataflow, archived=False)
        _check_allowed(dataflow)
        chosen = _chosen(dataflow, request.topics)
        topics = _by_daemon(dataflow, chosen)
        gone = set(chosen).difference(*topics.values()) if request.topics else ()
        notes = [
            f'no connection to daemon "{daemon}" at the moment'
            for daemon in topics
            if not cluster.membership.is_connected(daemon)
        ]
        notes += [f"no more samples of {topic}: its part has ended" for topic in sorted(gone)]
        for note in notes:
            client.notify(_note(note))
        problems: list[str] = []

        async def follow(daemon: str) -> None:
            attempt: int | None = None
            while await _runs(cluster, dataflow.id, daemon, other_than=attempt):
                opening = _stream_request(request, dataflow.id, topics[daemon], cluster)
                stream = self._stream(daemon, opening, cluster)
                if stream.ended:  # its connection has just ended, or begun
                    await cluster.changed()
                    continue
                reader = stream.add(client)
                await reader.run()
                attempt = None
                if reader.end is None:
                    client.notify(_note(f'the connection to daemon "{daemon}" was lost'))
                elif reader.end.problem is not None:
                    problems.append(f'daemon "{daemon}": {clean_lines(reader.end.problem)}')
                    return
                elif (part := _part(cluster, dataflow.id, daemon)) is not None:
                    attempt = part.attempt

        async with anyio.create_task_group() as tasks:
            for daemon in topics:
                tasks.start_soon(follow, daemon)
        return TopicsEnd(problems=tuple(problems))

    def _stream(self, daemon: str, request: StreamTopics, cluster: QueryContext) -> _Stream:
        """Return the stream of an equal watch, or open one."""
        self._streams = [one for one in self._streams if not one.ended]
        if _may_be_shared(request):
            for stream in self._streams:
                same = request.model_copy(update={"stream": stream.request.stream})
                if stream.daemon == daemon and stream.request == same:
                    return stream
        number = next(cluster.calls.stream_numbers)
        own = request.model_copy(update={"stream": number})
        self._streams.append(_Stream(daemon, own, cluster.calls))
        return self._streams[-1]


def _part(cluster: QueryContext, dataflow_id: str, daemon: str) -> Part | None:
    """Return a part that has not ended, of a dataflow that has not ended."""
    dataflow = cluster.registry.get(dataflow_id)
    if dataflow is None or dataflow.has_ended:
        return None
    part = dataflow.parts.get(daemon)
    return None if part is None or part.ended else part


async def _runs(
    cluster: QueryContext, dataflow_id: str, daemon: str, *, other_than: int | None
) -> bool:
    """Wait until a part runs, not in attempt ``other_than``; return False if it has ended."""
    while (part := _part(cluster, dataflow_id, daemon)) is not None:
        runs = part.state is PartState.RUNNING and part.attempt != other_than
        if runs and cluster.membership.is_connected(daemon):
            return True
        await cluster.changed()
    return False


def _stream_request(
    request: WatchTopics, dataflow_id: str, topics: tuple[str, ...], cluster: QueryContext
) -> StreamTopics:
    limit = cluster.settings.max_message_bytes // MESSAGE_BYTES_PER_CHARACTER
    chunk = min(MAX_CHUNK, limit)
    wanted = {name: getattr(request, name) for name in TopicSelection.model_fields}
    wanted |= {
        "topics": topics,
        "sample_bytes": max(256, min(request.sample_bytes, chunk // 2)),
        "picture_bytes": min(request.picture_bytes, chunk // 2),
    }
    return StreamTopics(stream=0, dataflow_id=dataflow_id, chunk_bytes=chunk, **wanted)


def _may_be_shared(request: StreamTopics) -> bool:
    """Return whether clients may share a stream; slow readers of one without a limited rate would
    miss messages that they could have received."""
    return len(request.topics) == 1 and not request.rates and request.max_rate is not None


def _note(note: str) -> WatchedTopics:
    return WatchedTopics(daemon="", stream=0, update=TopicUpdate(notes=(note,)))


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
