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
        self._shed = 0
        self.total_shed = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: RunnerEvent) -> None:
        """Hand over one event; returns at once."""
        if self._on_event is None:
            return
        with self._changed:
            # Shed until half is read: a gap is told once, not at every line that finds room.
            room = self._most // 2 if self._shed else self._most - 1
            if isinstance(event, LogLine) and len(self._waiting) > room:
                self._shed += 1
                self.total_shed += 1
                return
            if self._shed:
                self._waiting.append(LinesShed(count=self._shed))
                self._shed = 0
            self._waiting.append(event)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dora-events", daemon=True)
            self._thread.start()

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
            if self._shed:
                self._waiting.append(LinesShed(count=self._shed))
                self._shed = 0
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise self._failure
