"""Bounded queue of events for a slow reader; log lines that do not fit are dropped and counted.

With a gate no line is dropped in normal operation: the gate is closed while many lines are queued,
so that the pipes of nodes fill up. Nodes that stop must be able to print their last lines even if
the reader is stuck; while they stop, far more lines may be queued.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from dora_config.protocol import runner_events as reports
from dora_daemon.runner.logs.logs import OutputGate

MAX_LINES = 20_000
"""Lines queued before some are dropped, without a gate."""
HELD_LINES = 4_000
"""Lines queued before the gate is closed."""
STOPPING_LINES = 100_000
"""Lines queued before the gate is closed while the dataflow is stopping."""
MAX_HELD_LINES = 250_000
"""Lines queued before some are dropped, with a gate: nodes that end do not wait for it."""
STUCK_SECONDS = 1.0
"""Seconds without progress after which a reader no longer blocks nodes that stop."""
CLOSING_SECONDS = 3.0
"""Seconds for the reader to read the last events at the end."""


class EventQueue:
    """Calls ``on_event`` on a thread of its own; drops log lines only."""

    def __init__(
        self,
        on_event: Callable[[reports.RunOutput], None] | None,
        *,
        gate: OutputGate | None = None,
        max_lines: int | None = None,
        held_lines: int = HELD_LINES,
        stopping_lines: int = STOPPING_LINES,
    ) -> None:
        self._on_event = on_event
        self._gate = gate
        self._max_lines = max_lines or (MAX_LINES if gate is None else MAX_HELD_LINES)
        self._held = held_lines
        self._stopping_lines = stopping_lines
        self._waiting: deque[reports.RunOutput] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._taken = 0
        self._reopens: Callable[[], None] | None = None
        """Opens the gate from the reader's thread; None unless the gate is closed."""
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: reports.RunOutput) -> None:
        """Add an event without waiting."""
        if self._on_event is None or self._failure is not None:
            return
        with self._changed:
            if isinstance(event, reports.LogLine) and len(self._waiting) >= self._max_lines:
                self._shed_oldest(max(1, self._max_lines // 2))
            self._waiting.append(event)
            self._changed.notify()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="dora-events", daemon=True)
            thread.start()  # raises RuntimeError if no more threads are allowed
            self._thread = thread
        if self._gate is not None:
            self._hold_back(event, self._gate)

    def _hold_back(self, event: reports.RunOutput, gate: OutputGate) -> None:
        if isinstance(event, reports.DataflowStopping):
            self._held = max(self._held, self._stopping_lines)
            self._open(gate)
            self._look_again(gate, self._taken)
        elif gate.is_open and len(self._waiting) >= self._held:
            loop = asyncio.get_running_loop()
            with self._changed:
                if len(self._waiting) >= self._held and self._failure is None:
                    gate.shut()
                    self._reopens = lambda: _call_on(loop, self._open, gate)

    def _open(self, gate: OutputGate) -> None:
        with self._changed:
            self._reopens = None
        gate.open()

    def _look_again(self, gate: OutputGate, taken_before: int) -> None:
        """Stop blocking nodes if the reader is stuck while the dataflow stops."""
        if not gate.is_open and self._taken == taken_before:
            self._held = self._max_lines + 1
            self._open(gate)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(STUCK_SECONDS, self._look_again, gate, self._taken)

    def _shed_oldest(self, most: int) -> None:
        """Drop the oldest lines (the last ones matter most) and leave one record of the gap.

        An unread record of an earlier gap becomes part of it.
        """
        kept: list[reports.RunOutput] = []
        place, lines, earlier = None, 0, 0
        for event in self._waiting:
            match event:
                case reports.LogLinesDropped(count=count):
                    earlier += count
                case reports.LogLine() if lines < most:
                    lines += 1
                case _:
                    kept.append(event)
                    continue
            place = len(kept) if place is None else place
        kept.insert(place or 0, reports.LogLinesDropped(count=lines + earlier))
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
            except BaseException as error:  # noqa: BLE001 - raised by `close`
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
        """Wait for the reader for at most ``timeout`` seconds; raise its error."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise self._failure


def _call_on(
    loop: asyncio.AbstractEventLoop, function: Callable[[OutputGate], None], gate: OutputGate
) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, gate)
