"""Requests of clients that several daemons answer: replies are collected; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dora_coordinator.state.commands import Command
from dora_coordinator.state.events import ClientRequested

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(slots=True)
class PendingCall(Generic[Q, R]):
    """One request, with the replies so far."""

    requested: ClientRequested
    question: Q
    waiting: set[str]
    """Daemons that have not answered."""
    replies: dict[str, R] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """Why daemons have no reply, as full sentences."""


class PendingCalls(Generic[Q, R]):
    def __init__(self, close: Callable[[PendingCall[Q, R]], Command]) -> None:
        """``close`` makes the command that answers a call, once no daemon is waited for."""
        self._close = close
        self._calls: dict[str, PendingCall[Q, R]] = {}

    def open(
        self,
        requested: ClientRequested,
        question: Q,
        daemons: Iterable[str],
        problems: dict[str, str],
    ) -> list[Command]:
        """Wait for ``daemons``; ``problems``: daemons that were not called."""
        call = PendingCall[Q, R](requested, question, set(daemons), problems=problems)
        self._calls[requested.fresh_id] = call
        return self._close_if_done(call)

    def find(self, call_id: str, daemon: str) -> PendingCall[Q, R] | None:
        """Return the call that waits for a reply of this daemon, if any."""
        call = self._calls.get(call_id)
        return call if call is not None and daemon in call.waiting else None

    def replied(self, call: PendingCall[Q, R], daemon: str, reply: R) -> list[Command]:
        call.replies[daemon] = reply
        return self._settle(call, daemon)

    def failed(self, call: PendingCall[Q, R], daemon: str, problem: str) -> list[Command]:
        call.problems[daemon] = problem
        return self._settle(call, daemon)

    def daemon_lost(self, daemon: str) -> list[Command]:
        commands: list[Command] = []
        for call in list(self._calls.values()):
            if daemon in call.waiting:
                problem = f'the connection to daemon "{daemon}" was lost'
                commands += self.failed(call, daemon, problem)
        return commands

    def drop(self, client: int, number: int | None) -> None:
        """Forget one call of a client (None: all of them)."""
        for call_id, call in list(self._calls.items()):
            if call.requested.client == client and number in (None, call.requested.number):
                del self._calls[call_id]

    def _settle(self, call: PendingCall[Q, R], daemon: str) -> list[Command]:
        call.waiting.discard(daemon)
        return self._close_if_done(call)

    def _close_if_done(self, call: PendingCall[Q, R]) -> list[Command]:
        if call.waiting:
            return []
        del self._calls[call.requested.fresh_id]
        return [self._close(call)]
