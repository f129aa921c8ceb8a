"""Streams of watched outputs from daemons to clients; pure.

One request of a client becomes one stream for each daemon that runs one of its nodes. Equal
requests for one output at a limited rate share a stream: further viewers cost the robot nothing.
A viewer that does not display its piece of a long message delays the others only for a while.
A stream that breaks, with the connection of its daemon or with the runner there, is opened again
once that part runs again; the watch ends with the dataflow or with its client.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from dora_config.protocol.control import WatchTopics
from dora_config.protocol.daemon import EndStream, ReadOn
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.topics import (
    MAX_CHUNK,
    MAX_TOPICS,
    StreamTopics,
    TopicChunk,
    TopicsEnd,
    TopicUpdate,
    WatchedTopics,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import ClientRequested, TimerKey
from dora_coordinator.state.membership import Membership
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


@dataclass(slots=True, eq=False)
class _Watch:
    client: int
    number: int
    request: WatchTopics
    dataflow: Dataflow
    topics: dict[str, tuple[str, ...]]
    """Topics by daemon, without daemons whose part has ended."""
    streams: dict[int, _Stream] = field(default_factory=dict)
    broken: dict[str, int | None] = field(default_factory=dict)
    """Daemons without a stream: the attempt of the part whose runner is gone, or None while the
    daemon is not connected.
    """
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Reader:
    """One watch of a stream: what it has not displayed yet, and what it has missed."""

    watch: _Watch
    busy: bool = False
    """It has not displayed the last update that it was sent."""
    skips: bool = False
    """It does not receive the pieces of the message that is being sent."""
    torn: bool = False
    """It has received the first pieces of a message whose rest it does not get."""
    counts: bool = False
    """It counts the message that is being sent as dropped."""
    dropped: int = 0
    notes: tuple[str, ...] = ()

    def miss(self, update: TopicUpdate) -> None:
        self.dropped += sum(update.dropped.values()) + len(update.samples)
        if update.piece and not update.more:
            self.dropped += not self.counts
            self.counts = False
        self.notes = (*self.notes, *update.notes)[-MAX_NOTES:]

    def tear(self) -> None:
        """Leave out the rest of the message that is being sent."""
        self.skips = self.torn = self.counts = True

    def take(self, update: TopicUpdate, topic: str) -> TopicUpdate:
        """Return the update with what was missed before."""
        self.busy = True
        if not self.dropped and not self.notes:
            return update
        dropped = {**update.dropped, topic: update.dropped.get(topic, 0) + self.dropped}
        notes = (*self.notes, *update.notes)
        self.dropped, self.notes = 0, ()
        return update.model_copy(update={"dropped": dropped, "notes": notes})


class _Stream:
    """Updates of one daemon for one watch, or for equal ones.

    The next update is requested when one reader has displayed the last; each other reader continues
    with the first update after it has displayed its own. The pieces of a long message wait for all
    readers of that message, for `LATE_SECONDS` at most if there are several.
    """

    def __init__(self, daemon: str, request: StreamTopics) -> None:
        self.daemon = daemon
        self.request = request
        self.readers: dict[tuple[int, int], _Reader] = {}
        self._requested = True
        self._begun = False
        self._in_message = False
        """More pieces of the last message follow."""
        self._notes: tuple[str, ...] = ()

    def add(self, watch: _Watch) -> list[do.Command]:
        """Add a watch, which receives the notes that the stream has sent before."""
        reader = _Reader(watch, skips=self._in_message)
        self.readers[watch.client, watch.number] = reader
        return [self._progress(reader, TopicUpdate(notes=self._notes))] if self._begun else []

    def updated(self, update: TopicUpdate, now: float) -> list[do.Command]:
        """Send an update to each reader that is ready for it."""
        first = not self._in_message
        self._begun, self._requested, self._in_message = True, False, update.more
        self._notes = (*self._notes, *update.notes)[-MAX_NOTES:]
        commands: list[do.Command] = []
        for reader in self.readers.values():
            if first:
                reader.skips = reader.busy
            if reader.skips:
                reader.miss(update)
            else:
                commands.append(self._progress(reader, update))
        commands += self._advance()
        if self._in_message and not self._requested:
            commands.append(self._limit(now))
        return commands

    def _limit(self, now: float) -> do.Command:
        return do.ArmTimer(TimerKey("viewer", str(self.request.stream)), now + LATE_SECONDS)

    def timer_fired(self, now: float) -> list[do.Command]:
        """Continue a message without the readers that have not displayed its last piece."""
        if self._requested or not self._in_message:
            return []
        if len(self.readers) == 1:
            return [self._limit(now)]  # a second one may come
        for reader in self.readers.values():
            if reader.busy and not reader.skips:
                reader.tear()
        return self._advance()

    def displayed(self, client: int, number: int) -> list[do.Command]:
        reader = self.readers[client, number]
        reader.busy = False
        commands: list[do.Command] = []
        if reader.torn:
            reader.torn = False
            commands.append(self._progress(reader, _TORN_END))
        return [*commands, *self._advance()]

    def remove(self, watch: _Watch) -> list[do.Command]:
        """Remove a watch; the stream ends with the last one."""
        del self.readers[watch.client, watch.number]
        if self.readers:
            return self._advance()
        return [do.SendToDaemon(self.daemon, EndStream(stream=self.request.stream))]

    def _progress(self, reader: _Reader, update: TopicUpdate) -> do.Command:
        update = reader.take(update, self.request.topics[0])
        progress = WatchedTopics(daemon=self.daemon, stream=self.request.stream, update=update)
        return do.SendProgress(reader.watch.client, reader.watch.number, progress)

    def _advance(self) -> list[do.Command]:
        """Request the next update, unless it was requested or has to wait."""
        if self._in_message:
            ready = all(reader.skips or not reader.busy for reader in self.readers.values())
        else:
            ready = any(not reader.busy for reader in self.readers.values())
        if self._requested or not ready:
            return []
        self._requested = True
        return [do.SendToDaemon(self.daemon, ReadOn(stream=self.request.stream))]


_TOO_MANY = (
    "at most {} watches are open over one connection; close one, for example another tab of "
    "`dora ui` with an output, and try again"
)


class TopicStreams:
    def __init__(
        self,
        registry: DataflowRegistry,
        membership: Membership,
        settings: Settings,
        numbers: Iterator[int],
    ) -> None:
        """``numbers``: yields numbers of streams, which logs and topics share."""
        self._registry = registry
        self._membership = membership
        self._settings = settings
        self._watches: dict[tuple[int, int], _Watch] = {}
        self._streams: dict[int, _Stream] = {}
        self._numbers = numbers

    def open(
        self, requested: ClientRequested, request: WatchTopics, dataflow: Dataflow
    ) -> list[do.Command]:
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

    def chunk(self, daemon: str, chunk: TopicChunk, now: float) -> list[do.Command]:
        stream = self._streams.get(chunk.stream)
        if stream is None or stream.daemon != daemon:
            return [] if chunk.done else [do.SendToDaemon(daemon, EndStream(stream=chunk.stream))]
        if not chunk.done:
            notes = tuple(clean_lines(note) for note in chunk.update.notes)
            return stream.updated(chunk.update.model_copy(update={"notes": notes}), now)
        commands: list[do.Command] = []
        for watch in self._close(chunk.stream):
            if chunk.problem is not None:
                watch.problems.append(f'daemon "{daemon}": {clean_lines(chunk.problem)}')
                del watch.topics[daemon]
            else:
                part = watch.dataflow.parts.get(daemon)
                watch.broken[daemon] = None if part is None else part.attempt
            commands += self._reopen(watch)
        return commands

    def taken(self, client: int, number: int, stream: int) -> list[do.Command]:
        """The client has displayed an update: its daemon may send the next."""
        watch = self._watches.get((client, number))
        if watch is None or stream not in watch.streams:
            return []
        return watch.streams[stream].displayed(client, number)

    def timer_fired(self, stream: str, now: float) -> list[do.Command]:
        """A piece of a long message was sent `LATE_SECONDS` ago."""
        found = self._streams.get(int(stream))
        return [] if found is None else found.timer_fired(now)

    def daemon_lost(self, daemon: str) -> list[do.Command]:
        commands: list[do.Command] = []
        for number in [one for one, stream in self._streams.items() if stream.daemon == daemon]:
            for watch in self._close(number):
                watch.broken[daemon] = None
                commands.append(_note(watch, f'the connection to daemon "{daemon}" was lost'))
        return commands

    def reopen(self) -> list[do.Command]:
        """Reopen broken streams and answer finished watches; called after every event."""
        broken = [watch for watch in self._watches.values() if watch.broken]
        return [command for watch in broken for command in self._reopen(watch)]

    def drop(self, client: int, number: int | None) -> list[do.Command]:
        """End one request of a client (None: all of them)."""
        commands: list[do.Command] = []
        for watch in list(self._watches.values()):
            if watch.client == client and number in (None, watch.number):
                del self._watches[client, watch.number]
                for stream_number, stream in watch.streams.items():
                    commands += stream.remove(watch)
                    if not stream.readers:
                        del self._streams[stream_number]
        return commands

    def _reopen(self, watch: _Watch) -> list[do.Command]:
        commands: list[do.Command] = []
        # another object after a further part was adopted
        watch.dataflow = self._registry.get(watch.dataflow.id) or watch.dataflow
        for daemon, attempt in list(watch.broken.items()):
            part = watch.dataflow.parts.get(daemon)
            if part is None or part.ended or watch.dataflow.has_ended:
                del watch.broken[daemon], watch.topics[daemon]
            elif (
                part.state is PartState.RUNNING
                and part.attempt != attempt
                and self._membership.is_connected(daemon)
            ):
                del watch.broken[daemon]
                commands += self._open_stream(watch, daemon)
        if not watch.topics:
            del self._watches[watch.client, watch.number]
            end = TopicsEnd(problems=tuple(watch.problems))
            commands.append(do.AnswerClient(watch.client, watch.number, end))
        return commands

    def _open_stream(self, watch: _Watch, daemon: str) -> list[do.Command]:
        """Add the watch to the stream of an equal one, or open a stream."""
        request = self._stream_request(watch, daemon, next(self._numbers))
        if _may_be_shared(request):
            for number, stream in self._streams.items():
                same = request.model_copy(update={"stream": number})
                if stream.daemon == daemon and stream.request == same:
                    watch.streams[number] = stream
                    return stream.add(watch)
        stream = self._streams[request.stream] = _Stream(daemon, request)
        watch.streams[request.stream] = stream
        return [do.SendToDaemon(daemon, request), *stream.add(watch)]

    def _stream_request(self, watch: _Watch, daemon: str, number: int) -> StreamTopics:
        chunk = min(MAX_CHUNK, self._settings.max_message_bytes // MESSAGE_BYTES_PER_CHARACTER)
        return StreamTopics(
            stream=number,
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

    def _close(self, number: int) -> list[_Watch]:
        """Remove a stream; return its watches."""
        watches = [reader.watch for reader in self._streams.pop(number).readers.values()]
        for watch in watches:
            del watch.streams[number]
        return watches


def _may_be_shared(request: StreamTopics) -> bool:
    """Without a limited rate, a slow reader would miss messages that it could have received."""
    return len(request.topics) == 1 and not request.rates and request.max_rate is not None


def _note(watch: _Watch, note: str) -> do.Command:
    progress = WatchedTopics(daemon="", stream=0, update=TopicUpdate(notes=(note,)))
    return do.SendProgress(watch.client, watch.number, progress)


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
