"""Wait for events inside asyncio, without a thread; a cancelled wait loses no event.

The event loop watches one descriptor, which is readable while anything has arrived, and a timer for
ticks and timeouts. An event is taken from its queue after the wait, in one step without an await,
so a cancelled wait has taken none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_node_api.backends.backend import Backend, timed_out

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

MAX_RUN_NS = 1_000_000
"""Longest time for which a task receives without yielding to other tasks."""


class AsyncReceiver:
    """Receives for the tasks of one event loop at a time."""

    def __init__(self, backend: Callable[[], Backend]) -> None:
        """`backend` is called for each use: a node may have been closed or forked."""
        self._backend = backend
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._yielded = 0

    async def receive(self, timeout: float | None) -> Event | None:  # noqa: ASYNC109
        """Return the next event; None at the end, an ERROR event after `timeout` seconds."""
        if time.monotonic_ns() - self._yielded > MAX_RUN_NS:
            await asyncio.sleep(0)
            self._yielded = time.monotonic_ns()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            backend = self._backend()
            event = backend.poll_event()
            if event is not None or backend.ended:
                return event
            if deadline is not None and time.monotonic() >= deadline:
                return timed_out(timeout or 0.0)
            await self._wait(backend, deadline)
            self._yielded = time.monotonic_ns()

    async def _wait(self, backend: Backend, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        due = backend.deadline()
        times = [] if due is None else [due / 1e9]
        if deadline is not None:
            times.append(deadline)
        future = loop.create_future()
        timer = None
        if times:
            seconds = max(0.0, min(times) - time.monotonic())
            timer = loop.call_later(seconds, _wake, future)
        self._waiting.add(future)
        self._watch(loop, backend.fileno())
        backend.waits(True)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.discard(future)
            if not self._waiting:
                backend.waits(False)
                self._unwatch()

    def _watch(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        if self._loop is loop and self._descriptor == descriptor:
            return
        self._unwatch()
        self._loop = loop
        self._descriptor = descriptor
        if descriptor >= 0:
            loop.add_reader(descriptor, self._readable)

    def _unwatch(self) -> None:
        loop, descriptor = self._loop, self._descriptor
        self._loop, self._descriptor = None, -1
        if loop is not None and descriptor >= 0 and not loop.is_closed():
            loop.remove_reader(descriptor)

    def wake_all(self) -> None:
        """Make every waiting task look again; called from any thread when the node is closed."""
        if (loop := self._loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._stop_watching)

    def _stop_watching(self) -> None:
        self._unwatch()
        self._readable()

    def _readable(self) -> None:
        # The first task takes the event; the others find nothing and wait again.
        for future in self._waiting:
            _wake(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
