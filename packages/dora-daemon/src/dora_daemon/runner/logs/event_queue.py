"""Hands events to a slow reader without ever waiting for it: bounded, what is shed is counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from dora_config.protocol.runner_events import LinesShed, LogLine, RunnerEvent

MOST_LINES = 20_000
CLOSING_SECONDS = 3.0


class Outlet:
    """Calls ``on_event`` on a thread of its own; only log lines are ever shed."""

    def __init__(
        self, on_event: Callable[[RunnerEvent], None] | None, *, most_lines: int = MOST_LINES
    ) -> None:
        self._on_event = on_event
        self._most = most_lines
        self._waiting: deque[RunnerEvent] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.total_shed = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: RunnerEvent) -> None:
        """Hand over one event; returns at once."""
        if self._on_event is None:
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

    def _shed_oldest(self, most: int) -> None:
        """Leave out the oldest lines: the end of what is printed says most, and a gap is told once.

        A gap before that nobody has read about yet becomes part of this one.
        """
        kept: list[RunnerEvent] = []
        place, lines, told = None, 0, 0
        for event in self._waiting:
            match event:
                case LinesShed(count=count):
                    told += count
                case LogLine() if lines < most:
                    lines += 1
                case _:
                    kept.append(event)
                    continue
            place = len(kept) if place is None else place
        self.total_shed += lines
        kept.insert(place or 0, LinesShed(count=lines + told))
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

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Let the reader catch up, for ``timeout`` seconds at most; raise what it raised."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise self._failure
