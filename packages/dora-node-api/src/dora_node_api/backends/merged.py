"""A backend whose events are merged with those of subscriptions outside of the dataflow."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING, Any, Protocol

from dora_node_api.backends.backend import Backend, timed_out

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

_POLL_SECONDS = 0.05
"""Interval at which a backend without a descriptor is polled."""


class ValueSource(Protocol):
    """A source of values."""

    def next(self) -> Any:
        """Return the next value; None if no value waits. Never blocks."""

    def notify(self, descriptor: int) -> None:
        """Write to this eventfd for each value that arrives."""


class MergedBackend:
    """Another backend, with further events: ``{"kind": "external", "value": ...}``."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._signal, select.EPOLLIN)
        self._watched = -1
        self._sources: list[ValueSource] = []
        self._turn = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add(self, source: ValueSource) -> None:
        """Merge the values of a subscription."""
        self._sources.append(source)
        source.notify(self._signal)
        os.eventfd_write(self._signal, 1)

    def poll_event(self) -> Event | None:
        """Return the next event; the dataflow and each subscription take turns."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        count = len(self._sources) + 1
        for _ in range(count):
            self._turn = (self._turn + 1) % count
            if self._turn == 0:
                event = self._inner.poll_event()
                if event is not None:
                    return event
            elif (value := self._sources[self._turn - 1].next()) is not None:
                return {"kind": "external", "value": value}
        return None

    def next_event(self, timeout: float | None) -> Event | None:
        """Wait for an event; None at the end, an ERROR event after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        self._inner.waits(True)
        try:
            while True:
                event = self.poll_event()
                if event is not None or self._inner.ended:
                    return event
                due = self._inner.deadline()
                now = time.monotonic()
                if end is not None and now >= end:
                    return timed_out(timeout or 0.0)
                self.fileno()
                times = [end, None if due is None else due / 1e9]
                if self._watched < 0:
                    times.append(now + _POLL_SECONDS)
                left = [max(0.0, at - now) for at in times if at is not None]
                self._epoll.poll(min(left) if left else None)
        finally:
            self._inner.waits(False)

    def is_empty(self) -> bool:
        """Whether no event of the dataflow waits."""
        return self._inner.is_empty()

    def fileno(self) -> int:
        """Return a descriptor that is readable when there may be an event."""
        descriptor = self._inner.fileno()
        if descriptor != self._watched:
            if self._watched >= 0:
                self._epoll.unregister(self._watched)
            if descriptor >= 0:
                self._epoll.register(descriptor, select.EPOLLIN)
            self._watched = descriptor
        return self._epoll.fileno()
