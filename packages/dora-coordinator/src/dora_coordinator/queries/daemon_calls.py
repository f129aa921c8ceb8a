"""Calls of daemons on behalf of a client: sent once, replies collected until a deadline."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from dora_config.protocol.calls import RunnerAnswered
from dora_config.protocol.daemon import CodeFound, CoordinatorMessage, PartHistory
from dora_config.protocol.recordings import RecorderAnswered
from dora_config.protocol.snapshot import MachineSample

Reply = RunnerAnswered | RecorderAnswered | PartHistory | MachineSample | CodeFound
R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class CallProblems:
    """Why a daemon has no reply; ``{0}`` is the daemon, ``{1}`` the limit in seconds."""

    unconnected: str = 'no connection to daemon "{0}"'
    lost: str = 'the connection to daemon "{0}" was lost'
    late: str = 'daemon "{0}" has not answered for {1:g} s'


@dataclass(slots=True)
class Replies(Generic[R]):
    """Replies and problems by daemon; each daemon that was called has one of the two."""

    found: dict[str, R] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    lost: str
    """Text for a lost connection."""
    waiting: set[str] = field(default_factory=set)
    replies: Replies[Reply] = field(default_factory=Replies)
    done: anyio.Event = field(default_factory=anyio.Event)

    def end(self, daemon: str, outcome: Reply | str) -> None:
        """Note the reply of a daemon, or why it has none."""
        if daemon not in self.waiting:
            return
        if isinstance(outcome, str):
            self.replies.problems[daemon] = outcome
        else:
            self.replies.found[daemon] = outcome
        self.waiting.discard(daemon)
        if not self.waiting:
            self.done.set()


class DaemonCalls:
    def __init__(self, send: Callable[[str, CoordinatorMessage], bool]) -> None:
        """``send`` returns whether the daemon is connected."""
        self._send = send
        self._calls: dict[str, _Call] = {}

    async def gather(
        self,
        daemons: Iterable[str],
        message: Callable[[str], CoordinatorMessage],
        kind: type[R],
        *,
        seconds: float | None,
        problems: CallProblems = CallProblems(),
    ) -> Replies[R]:
        """Send a message to each daemon and return the replies that arrive in time.

        ``message`` gets the id of the call; ``seconds`` None: wait as long as it takes.
        """
        number = str(uuid.uuid4())
        call = self._calls[number] = _Call(problems.lost)
        replies = call.replies
        try:
            for daemon in daemons:
                if self._send(daemon, message(number)):
                    call.waiting.add(daemon)
                else:
                    replies.problems[daemon] = problems.unconnected.format(daemon)
            if call.waiting:
                with anyio.move_on_after(seconds):
                    await call.done.wait()
        finally:
            del self._calls[number]
        for daemon in sorted(call.waiting):
            replies.problems[daemon] = problems.late.format(daemon, seconds)
        found: dict[str, R] = {
            name: one for name, one in replies.found.items() if isinstance(one, kind)
        }
        return Replies(found, replies.problems)

    def replied(self, daemon: str, reply: Reply) -> None:
        """Take a daemon's reply; late and unknown ones are ignored."""
        match reply:
            case RunnerAnswered(call=number) | RecorderAnswered(call=number):
                pass
            case CodeFound(call=number):
                pass
            case PartHistory(read=number) | MachineSample(sample=number):
                pass
        if (call := self._calls.get(number)) is not None:
            call.end(daemon, reply)

    def daemon_lost(self, daemon: str) -> None:
        """End the wait for a daemon whose connection ended or was replaced."""
        for call in self._calls.values():
            call.end(daemon, call.lost.format(daemon))
