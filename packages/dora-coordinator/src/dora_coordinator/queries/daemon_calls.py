"""Calls of daemons on behalf of a client: a reply of each until a deadline, or streams."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final, Generic, TypeVar

import anyio

from dora_config.protocol.builds import BuildEnded, BuildEvents, CancelBuild
from dora_config.protocol.daemon import (
    CodeFound,
    CoordinatorMessage,
    DaemonAnswered,
    DaemonCall,
    DaemonRequest,
    EndStream,
    LogChunk,
    SendCode,
)
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.topics import TopicChunk
from dora_coordinator.state.code_search import CodeSearch

StreamMessage = LogChunk | TopicChunk | BuildEvents | BuildEnded
Reply = DaemonAnswered | StreamMessage
R = TypeVar("R")
Key = str | int
"""Id of a call or build, or number of a stream."""
Sink = Callable[[Reply | None], None]
"""Takes a daemon's reply; None: its connection was lost."""
LOOK_SECONDS: Final = 5.0
"""Seconds within which a machine answers whether it has a file of code."""
WAITING: Final = 16
"""Messages of one stream that wait to be forwarded; a daemon sends the next when requested."""


@dataclass(frozen=True, slots=True)
class CallProblems:
    """Errors about a daemon without a reply; ``{0}``: the daemon, ``{1}``: the limit in seconds, or
    the problem that the daemon reports.
    """

    unconnected: str = 'no connection to daemon "{0}"'
    lost: str = 'the connection to daemon "{0}" was lost'
    late: str = 'daemon "{0}" has not answered for {1:g} s'
    failed: str = 'daemon "{0}": {1}'


@dataclass(slots=True)
class Replies(Generic[R]):
    """Replies and problems by daemon; each daemon that was called has one of the two."""

    found: dict[str, R] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class DaemonCalls:
    def __init__(self, send: Callable[[str, CoordinatorMessage], bool]) -> None:
        self.send = send
        """Sends a message; returns whether the daemon is connected."""
        self.stream_numbers = count(1)
        self._sinks: dict[str, dict[Key, Sink]] = {}
        """Sinks by daemon."""

    async def gather(
        self,
        daemons: Iterable[str],
        request: DaemonRequest,
        kind: type[R],
        *,
        seconds: float | None,
        problems: CallProblems = CallProblems(),
    ) -> Replies[R]:
        """Send a request to each daemon and return the replies that arrive in time.

        ``kind``: of the replies; ``seconds`` None: wait as long as it takes.
        """
        call = DaemonCall(call=str(uuid.uuid4()), request=request)
        replies: Replies[R] = Replies()
        waiting: set[str] = set()
        done = anyio.Event()

        def end(daemon: str, answer: Reply | None) -> None:
            if daemon not in waiting:
                return
            if not isinstance(answer, DaemonAnswered):
                replies.problems[daemon] = problems.lost.format(daemon)
            elif isinstance(answer.reply, kind):
                replies.found[daemon] = answer.reply
            else:
                reason = clean_lines(answer.problem or "no reply")
                replies.problems[daemon] = problems.failed.format(daemon, reason)
            waiting.discard(daemon)
            if not waiting:
                done.set()

        with ExitStack() as stack:
            for daemon in daemons:
                if self.send(daemon, call):
                    waiting.add(daemon)
                    stack.enter_context(self._receiving(daemon, call.call, partial(end, daemon)))
                else:
                    replies.problems[daemon] = problems.unconnected.format(daemon)
            if waiting:
                with anyio.move_on_after(seconds):
                    await done.wait()
        for daemon in sorted(waiting):
            replies.problems[daemon] = problems.late.format(daemon, seconds)
        return replies

    async def fetch_code(self, machines: Iterable[str], digests: Sequence[str]) -> None:
        """Let connected machines upload files of code, each machine a share of them.

        Raises FileRefused: 404 if none has one of them, 502 if none could upload it.
        """
        replies: dict[str, CodeFound | str] = {}

        async def ask(machine: str, wanted: Sequence[str], *, upload: bool) -> None:
            sent = await self.gather(
                [machine],
                SendCode(digests=tuple(wanted), upload=upload),
                CodeFound,
                seconds=None if upload else LOOK_SECONDS,
            )
            replies[machine] = sent.found.get(machine) or sent.problems[machine]

        async with anyio.create_task_group() as tasks:
            for machine in machines:
                tasks.start_soon(partial(ask, machine, digests, upload=False))
        search = CodeSearch(digests)
        for machine in sorted(replies):
            reply = replies[machine]
            search.found(machine, () if isinstance(reply, str) else reply.digests)
        while shares := search.shares():
            async with anyio.create_task_group() as tasks:
                for machine, share in shares.items():
                    tasks.start_soon(partial(ask, machine, share, upload=True))
            for machine in shares:
                reply = replies[machine]
                if isinstance(reply, str):
                    search.uploaded(machine, (), reply)
                else:
                    search.uploaded(machine, reply.digests, reply.problem)

    @contextmanager
    def stream(
        self, daemon: str, key: Key, opening: CoordinatorMessage
    ) -> Iterator[AsyncIterator[StreamMessage]]:
        """Send a message and yield those that follow, until the connection is lost."""
        put, messages = anyio.create_memory_object_stream[StreamMessage](WAITING)

        def receive(message: Reply | None) -> None:
            if not isinstance(message, StreamMessage):
                put.close()
                return
            with suppress(anyio.ClosedResourceError, anyio.WouldBlock):
                put.send_nowait(message)

        with put, messages, self._receiving(daemon, key, receive):
            if not self.send(daemon, opening):
                put.close()
            yield messages

    @contextmanager
    def _receiving(self, daemon: str, key: Key, sink: Sink) -> Iterator[None]:
        self.open(daemon, key, sink)
        try:
            yield
        finally:
            self.close(daemon, key)

    def open(self, daemon: str, key: Key, sink: Sink) -> None:
        """Pass replies of a daemon with that key to ``sink``."""
        self._sinks.setdefault(daemon, {})[key] = sink

    def close(self, daemon: str, key: Key) -> None:
        here = self._sinks[daemon]
        del here[key]
        if not here:
            del self._sinks[daemon]

    def replied(self, daemon: str, reply: Reply) -> None:
        """Take a daemon's reply; late and unknown ones are ignored, and streams of them ended."""
        sink = self._sinks.get(daemon, {}).get(_key(reply))
        match reply:
            case _ if sink is not None:
                sink(reply)
            case LogChunk(stream=stream, done=False) | TopicChunk(stream=stream, done=False):
                self.send(daemon, EndStream(stream=stream))
            case BuildEvents(build_id=build_id):
                self.send(daemon, CancelBuild(build_id=build_id))
            case _:
                pass

    def end_lost(self, connected: Callable[[str], bool]) -> None:
        """End the wait for all daemons that are not connected any more."""
        for daemon in [one for one in self._sinks if not connected(one)]:
            self.daemon_lost(daemon)

    def daemon_lost(self, daemon: str) -> None:
        """End the wait for a daemon whose connection ended or was replaced."""
        for sink in list(self._sinks.get(daemon, {}).values()):
            sink(None)


def _key(reply: Reply) -> Key:
    match reply:
        case LogChunk() | TopicChunk():
            return reply.stream
        case BuildEvents() | BuildEnded():
            return reply.build_id
        case DaemonAnswered():
            return reply.call
