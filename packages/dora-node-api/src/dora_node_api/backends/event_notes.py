"""Note in each message which events its sender had since the last one (DORA_NOTE_EVENTS).

A recording so contains the order in which a node received its events, and after which event it sent
a message: enough to repeat exactly what it did. The notes are a JSON list in the metadata
`EVENTS_KEY`: the number of the message, of all that the process has sent, and then, oldest first:

- `["START", restarts]`: a new process;
- `["INPUT", taken, id, identity]`: an input, by the time stamp of its message, or of the tick;
- `["EMPTY", taken, times]`: `try_recv` found no event;
- `[type, taken, event]`: any other event, without its metadata; `TIMED_OUT` for `next(timeout=)`.

`taken` and time stamps are nanoseconds of CLOCK_REALTIME; the latter are cut to microseconds.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend, TimedOut
from dora_node_api.data.metadata import EVENTS_KEY, datetime_ns

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import SampleMemory

START, INPUT, EMPTY, TIMED_OUT = "START", "INPUT", "EMPTY", "TIMED_OUT"
MAX_EVENTS = 10_000
"""Most events that are noted before one message; older ones are left out."""

_dumps = json.JSONEncoder(separators=(",", ":"), default=str).encode


def note_events(backend: Backend) -> None:
    """Add notes to all later messages of a backend."""
    notes = _Notes(backend.config.restart_count)
    next_event, poll_event = backend.next_event, backend.poll_event
    send, allocate = backend.send, backend.allocate_sample

    def next_noted(timeout: float | None) -> Event | None:
        event = next_event(timeout)
        if event is not None:
            notes.add(_note(event, time.time_ns()))
        return event

    def poll_noted() -> Event | None:
        event = poll_event()
        notes.add([EMPTY, time.time_ns(), 1] if event is None else _note(event, time.time_ns()))
        return event

    def send_noted(output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        send(output, data, notes.added_to(metadata))

    def allocate_noted(output: str, nbytes: int, metadata: Mapping[str, Any]) -> SampleMemory:
        return allocate(output, nbytes, notes.added_to(metadata))

    backend.next_event = next_noted  # type: ignore[method-assign]
    backend.poll_event = poll_noted  # type: ignore[method-assign]
    backend.send = send_noted  # type: ignore[method-assign]
    backend.allocate_sample = allocate_noted  # type: ignore[method-assign]


class _Notes:
    """Events since the last message."""

    def __init__(self, restarts: int) -> None:
        self._number = 0
        self._notes: deque[list[Any]] = deque([[START, restarts]], MAX_EVENTS)
        self._lock = Lock()

    def add(self, note: list[Any]) -> None:
        with self._lock:
            if note[0] == EMPTY and self._notes and self._notes[-1][0] == EMPTY:
                self._notes[-1][2] += 1
            else:
                self._notes.append(note)

    def added_to(self, metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return metadata with the notes, and clear the notes."""
        with self._lock:
            notes = {EVENTS_KEY: _dumps([self._number, *self._notes])}
            self._number += 1
            self._notes.clear()
        return {**metadata, **notes} if metadata else notes


def identity(metadata: Mapping[str, Any]) -> int | str:
    """Return the identity of a message within its output: `timestamp`, which senders may set."""
    stamp = metadata["timestamp"]
    return datetime_ns(stamp) if isinstance(stamp, datetime) else str(stamp)


def _note(event: Event, taken: int) -> list[Any]:
    kind = event["type"]
    if kind == INPUT:
        return [kind, taken, event["id"], identity(event["metadata"])]
    if type(event) is TimedOut:
        return [TIMED_OUT, taken, {}]
    return [kind, taken, {key: value for key, value in event.items() if key != "metadata"}]
