"""Requests that clients wait for: the answers to events of the state machine, and their loss."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import anyio

from dora_config.errors import first_error
from dora_config.protocol.control import ControlAnswer, ControlRequest
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.state.commands import Begun, RequestRefused
from dora_coordinator.state.events import Event

INTERNAL_ERROR = "internal error of the coordinator; see its log"

EventAnswer = Begun | ControlAnswer

logger = logging.getLogger("dora.coordinator")


class AnswerLost(Exception):
    """The coordinator is ending, or cannot write to its store."""


@dataclass(slots=True)
class _Waiting:
    """Answer to an event, which a request waits for."""

    _ended: anyio.Event = field(default_factory=anyio.Event)
    _answer: EventAnswer | RequestRefused | None = None

    def end(self, answer: EventAnswer | RequestRefused | None) -> None:
        """Set the answer unless it is set; None: the answer is lost."""
        if not self._ended.is_set():
            self._answer = answer
            self._ended.set()

    async def wait(self) -> EventAnswer:
        """Return the answer; raises RequestRefused and AnswerLost."""
        await self._ended.wait()
        if isinstance(self._answer, RequestRefused):
            raise self._answer
        if self._answer is None:
            raise AnswerLost
        return self._answer


class OpenRequests:
    """Requests that are being answered, and the events whose answers they wait for."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._changed = _Waiting()
        """Ends after the next events."""
        self._clients: set[RequestClient] = set()
        self._closed = False

    async def serve(
        self,
        request: ControlRequest,
        client: RequestClient,
        answer: Callable[[], Awaitable[ControlAnswer]],
    ) -> None:
        """Send the client the answer to its request, or why it has none."""
        self._clients.add(client)
        try:
            client.answer(await answer())
        except Exception as error:
            match first_error(error):
                case RequestRefused() as problem:
                    client.fail(str(problem), problem.code, problem.ended)
                case AnswerLost():
                    pass
                case _:  # a defect in one request must not end the coordinator of a fleet
                    text = "internal error, please report it; request: %s"
                    logger.exception(text, type(request))
                    client.fail(INTERNAL_ERROR)
        finally:
            self._clients.discard(client)

    async def answer_to(self, event: Callable[[int], Event]) -> EventAnswer:
        """Return the answer to an event, which gets the number of the one that waits for it.

        Raises RequestRefused and AnswerLost.
        """
        if self._closed:
            raise AnswerLost
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting()
        self._post(event(number))
        try:
            return await waiting.wait()
        finally:
            del self._waiting[number]

    def answered(self, number: int, answer: EventAnswer | RequestRefused) -> None:
        if (waiting := self._waiting.get(number)) is not None:
            waiting.end(answer)

    async def next_change(self) -> None:
        """Wait until further events were handled; raises AnswerLost."""
        await self._changed.wait()

    def events_handled(self) -> None:
        changed, self._changed = self._changed, _Waiting()
        changed.end(Begun(()))

    def end_all(self) -> None:
        """End all requests; those that continue without their client get no more answers."""
        for client in self._clients:
            client.scope.cancel()
        for waiting in (self._changed, *self._waiting.values()):
            waiting.end(None)
        if not self._closed:
            self._changed = _Waiting()

    def close(self) -> None:
        """End all requests, also later ones."""
        self._closed = True
        self.end_all()
