"""Hands events to a slow reader without ever waiting for it: bounded, what is shed is counted.

With a gate nothing is shed in normal operation: it is shut while many lines wait, so that nodes
are held back by their pipes. A node that is asked to stop must be able to print its last lines,
whatever the reader does: then far more lines may wait, and a stuck reader holds back no node.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from dora_config.protocol.runner_events import (
    DataflowStopping,
    LogLine,
    LogLinesDropped,
    RunnerEvent,
)
from dora_daemon.runner.logs.gate import Gate

MOST_LINES = 20_000
"""Lines that wait before some are shed, for a reader without a gate."""
HELD_LINES = 4_000
"""Lines that wait before the gate is shut."""
STOPPING_LINES = 100_000
"""The same once the dataflow is stopping."""
MOST_HELD_LINES = 250_000
"""Lines that wait before some are shed in spite of the gate: of nodes that end while it is shut."""
STUCK_SECONDS = 1.0
"""Time without a line taken after which a reader no longer holds back nodes that are to stop."""
CLOSING_SECONDS = 3.0


class EventQueue:
    """Calls ``on_event`` on a thread of its own; only log lines are ever shed."""

    def __init__(
        self,
        on_event: Callable[[RunnerEvent], None] | None,
        *,
        gate: Gate | None = None,
        most_lines: int | None = None,
        held_lines: int = HELD_LINES,
        stopping_lines: int = STOPPING_LINES,
    ) -> None:
        self._on_event = on_event
        self._gate = gate
        self._most = most_lines or (MOST_LINES if gate is None else MOST_HELD_LINES)
        self._held = held_lines
        self._stopping_lines = stopping_lines
        self._waiting: deque[RunnerEvent] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._taken = 0
        self._reopens: Callable[[], None] | None = None
        """Set while the gate is shut: has it opened from the thread of the reader."""
        self.total_shed = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: RunnerEvent) -> None:
        """Hand over one event; returns at once."""
        if self._on_event is None or self._failure is not None:
            return
        with self._changed:
            if isinstance(event, LogLine) and len(self._waiting) >= self._most:
                self._shed_oldest(max(1, self._most // 2))
            self._waiting.append(event)
            self._changed.notify()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="dora-events", daemon=True)
            thread.start()  # raises RuntimeError where no more are allowed
            self._thread = thread
        if self._gate is not None:
            self._hold_back(event, self._gate)

    def _hold_back(self, event: RunnerEvent, gate: Gate) -> None:
        if isinstance(event, DataflowStopping):
            self._held = max(self._held, self._stopping_lines)
            self._open(gate)
            self._look_again(gate, self._taken)
        elif gate.is_open and len(self._waiting) >= self._held:
            loop = asyncio.get_running_loop()
            with self._changed:
                if len(self._waiting) >= self._held and self._failure is None:
                    gate.shut()
                    self._reopens = lambda: _call_on(loop, self._open, gate)

    def _open(self, gate: Gate) -> None:
        with self._changed:
            self._reopens = None
        gate.open()

    def _look_again(self, gate: Gate, taken_before: int) -> None:
        """While stopping: hold nothing back any more once the reader takes nothing."""
        if not gate.is_open and self._taken == taken_before:
            self._held = self._most + 1
            self._open(gate)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(STUCK_SECONDS, self._look_again, gate, self._taken)

    def _shed_oldest(self, most: int) -> None:
        """Leave out the oldest lines: the end of what is printed says most, and a gap is told once.

        A gap before that nobody has read about yet becomes part of this one.
        """
        kept: list[RunnerEvent] = []
        place, lines, told = None, 0, 0
        for event in self._waiting:
            match event:
                case LogLinesDropped(count=count):
                    told += count
                case LogLine() if lines < most:
                    lines += 1
                case _:
                    kept.append(event)
                    continue
            place = len(kept) if place is None else place
        self.total_shed += lines
        kept.insert(place or 0, LogLinesDropped(count=lines + told))
        self._waiting = deque(kept)

    def _run(self) -> None:
        assert self._on_event is not None
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                event = self._waiting.popleft()
            try:
                self._on_event(event)
            except BaseException as error:  # noqa: BLE001 - the edge of this thread
                self._failure = error
                return
            finally:
                self._taken += 1
                self._reopen_when_low()

    def _reopen_when_low(self) -> None:
        with self._changed:
            reopens = self._reopens
            if reopens is None:
                return
            if len(self._waiting) <= self._held // 2 or self._failure is not None:
                self._reopens = None
                reopens()

    def close(self, timeout: float | None = CLOSING_SECONDS) -> None:
        """Let the reader catch up, for ``timeout`` seconds at most; raise what it raised."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise self._failure


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[Gate], None], gate: Gate) -> None:
    with suppress(RuntimeError):  # the loop has ended, and no reader waits
        loop.call_soon_threadsafe(function, gate)
