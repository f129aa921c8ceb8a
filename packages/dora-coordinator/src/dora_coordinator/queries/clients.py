"""Client of one request."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from dora_config.protocol.control import (
    SERVER_CODEC,
    Answer,
    ControlAnswer,
    ControlProgress,
    EndedDataflow,
    Failure,
    FailureCode,
    Progress,
)
from dora_config.protocol.topics import WatchedTopics

SendText = Callable[[str, Callable[[], None] | None], None]
"""Queues a frame, and calls the function once it was written."""


class RequestClient:
    """Destination of the answer to one request, and of its progress before."""

    def __init__(self, number: int = 1, send: SendText | None = None) -> None:
        """``send`` None: progress is dropped, and the answer is `frame`."""
        self.number = number
        self.frame: Answer | Failure | None = None
        """The answer, if it was not lost."""
        self.scope = anyio.CancelScope()
        """Scope of the request; cancelling it drops the request."""
        self._send = send
        self._shown: dict[int, anyio.Event] = {}
        """Events for updates that were not acknowledged, by stream."""

    def notify(self, progress: ControlProgress, written: Callable[[], None] | None = None) -> None:
        """Send progress without waiting."""
        if self._send is not None:
            frame = Progress(id=self.number, progress=progress)
            self._send(SERVER_CODEC.encode(frame), written)
        elif written is not None:
            written()

    async def deliver(self, progress: ControlProgress) -> None:
        """Send progress; return when it was written."""
        written = anyio.Event()
        self.notify(progress, written.set)
        await written.wait()

    def show(self, update: WatchedTopics) -> anyio.Event:
        """Send an update; return the event that the client has displayed it."""
        shown = self._shown[update.stream] = anyio.Event()
        self.notify(update)
        return shown

    def acknowledged(self, stream: int) -> None:
        """Note that the client has displayed the last update of a stream."""
        if (shown := self._shown.pop(stream, None)) is not None:
            shown.set()

    def answer(self, answer: ControlAnswer) -> None:
        self._finish(Answer(id=self.number, answer=answer))

    def fail(
        self, message: str, code: FailureCode = "failed", ended: EndedDataflow | None = None
    ) -> None:
        self._finish(Failure(id=self.number, message=message, code=code, ended=ended))

    def _finish(self, frame: Answer | Failure) -> None:
        self.frame = frame
        if self._send is not None:
            self._send(SERVER_CODEC.encode(frame), None)
