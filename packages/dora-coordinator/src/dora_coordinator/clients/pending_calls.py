"""Requests of clients that several daemons answer: replies are collected; pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from dora_config.protocol.daemon import CoordinatorMessage
from dora_coordinator.state.commands import ArmTimer, CancelTimer, Command, SendToDaemon
from dora_coordinator.state.events import ClientRequested, CoordinatorTimer, TimerKey
from dora_coordinator.state.membership import Membership

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CallLimit:
    """Calls are answered without the daemons that have not replied when a timer fires."""

    timer: CoordinatorTimer
    seconds: float


@dataclass(frozen=True, slots=True)
class CallProblems:
    """Why a daemon has no reply; ``{0}`` is the daemon, ``{1}`` the limit in seconds."""

    unconnected: str = 'no connection to daemon "{0}"'
    lost: str = 'the connection to daemon "{0}" was lost'
    late: str = 'daemon "{0}" has not answered for {1:g} s'


@dataclass(slots=True)
class PendingCall(Generic[Q, R]):
    """One request, with the replies so far."""

    requested: ClientRequested
    context: Q
    waiting: set[str] = field(default_factory=set)
    """Daemons that have not answered."""
    replies: dict[str, R] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """Why daemons have no reply, or an incomplete one, as full sentences."""

    @property
    def id(self) -> str:
        return self.requested.fresh_id


class CallFailed(Exception):
    """A defect: the replies to a call could not be turned into an answer."""

    def __init__(self, clients: Sequence[tuple[int, int]]) -> None:
        """``clients``: connection and number of the requests that are left without an answer."""
        super().__init__("no answer could be made from the replies of the daemons")
        self.clients = tuple(clients)


class PendingCalls(ABC, Generic[Q, R]):
    """Calls of one kind; each is closed once all daemons have replied."""

    LIMIT: ClassVar[CallLimit | None] = None
    PROBLEMS: ClassVar[CallProblems] = CallProblems()

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._calls: dict[str, PendingCall[Q, R]] = {}

    @abstractmethod
    def _close(self, call: PendingCall[Q, R], now: float) -> list[Command]:
        """Return the commands that answer a call."""

    def _abandon(self, call: PendingCall[Q, R]) -> list[tuple[int, int]]:
        """Forget a call that cannot be answered; return the requests that wait for it."""
        return [(call.requested.client, call.requested.number)]

    def _send(
        self,
        call: PendingCall[Q, R],
        message: CoordinatorMessage,
        daemons: Iterable[str],
        now: float,
    ) -> list[Command]:
        """Send a message to those of ``daemons`` that are connected, and wait for their replies."""
        self._calls[call.id] = call
        commands: list[Command] = []
        for daemon in daemons:
            if self._membership.is_connected(daemon):
                call.waiting.add(daemon)
                commands.append(SendToDaemon(daemon, message))
            else:
                call.problems[daemon] = self.PROBLEMS.unconnected.format(daemon)
        if call.waiting and self.LIMIT is not None:
            timer = TimerKey(self.LIMIT.timer, call.id)
            commands.append(ArmTimer(timer, now + self.LIMIT.seconds))
        return [*commands, *self._close_if_done(call, now)]

    def _waiting_for(self, daemon: str, call_id: str) -> PendingCall[Q, R] | None:
        """Return the call that waits for a reply of this daemon, if any."""
        call = self._calls.get(call_id)
        return call if call is not None and daemon in call.waiting else None

    def _replied(self, call: PendingCall[Q, R], daemon: str, reply: R, now: float) -> list[Command]:
        call.replies[daemon] = reply
        call.waiting.discard(daemon)
        return self._close_if_done(call, now)

    def _failed(
        self, call: PendingCall[Q, R], daemon: str, problem: str, now: float
    ) -> list[Command]:
        call.problems[daemon] = problem
        call.waiting.discard(daemon)
        return self._close_if_done(call, now)

    def daemon_lost(self, daemon: str, now: float) -> list[Command]:
        commands: list[Command] = []
        for call in list(self._calls.values()):
            if daemon in call.waiting:
                commands += self._failed(call, daemon, self.PROBLEMS.lost.format(daemon), now)
        return commands

    def timed_out(self, call_id: str, now: float) -> list[Command]:
        """Answer a call without the daemons that have not replied."""
        call = self._calls.get(call_id)
        if call is None or self.LIMIT is None:
            return []
        for daemon in sorted(call.waiting):
            call.problems[daemon] = self.PROBLEMS.late.format(daemon, self.LIMIT.seconds)
        call.waiting.clear()
        return self._close_if_done(call, now)

    def drop(self, client: int, number: int | None) -> None:
        """Forget one call of a client (None: all of them)."""
        for call in list(self._calls.values()):
            if call.requested.client == client and number in (None, call.requested.number):
                del self._calls[call.id]

    def _close_if_done(self, call: PendingCall[Q, R], now: float) -> list[Command]:
        if call.waiting:
            return []
        del self._calls[call.id]
        timers: list[Command] = []
        if self.LIMIT is not None:
            timers.append(CancelTimer(TimerKey(self.LIMIT.timer, call.id)))
        try:
            answer = self._close(call, now)
        except Exception as defect:
            raise CallFailed(self._abandon(call)) from defect
        return [*timers, *answer]
