"""Wire between a node and the scheduler of a test, which gives it one event at a time.

A node of a test has one stream socket to its scheduler. A frame is a head, JSON and, for messages
and states, the content of a block. The node sends a JSON list whose first item is one of the
requests below. After those in `WAITING` it reads exactly one frame, and its program is blocked
until that arrives; others have no answer. An answer is `[time, answer]`, with the virtual time in
nanoseconds.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from dora_node_api.errors import ControlClosed

VARIABLE = "DORA_TEST_LOCKSTEP"
"""Set for a node of a test: number of the descriptor of its socket, the virtual time, and how much
later CLOCK_REALTIME is."""
SOCKET = "lockstep"
"""`LaunchConfig.socket` of such a node."""

START_NS = 1_000_000_000_000
"""Virtual CLOCK_MONOTONIC when the first node starts."""
WALL_OFFSET_NS = 1_767_225_600_000_000_000 - START_NS
"""Virtual CLOCK_REALTIME minus CLOCK_MONOTONIC: tests start at 2026-01-01T00:00:00Z, except for
those of recordings."""

HELLO = "hello"
"""`Node()`; answered by the configuration once the dataflow runs, or by a refusal."""
NEXT = "next"
"""Wait for an event until a time; null: no limit. Answered by the event, or null. A third item,
true, marks the wait of an event loop, whose limit may pass without an event."""
POLL = "poll"
"""The next event, if one waits."""
EMPTY = "empty"
"""Whether no event waits."""
SLEEP = "sleep"
"""Wait until a time."""
SEND = "send"
"""A message on an output, as block. `SEND_WAITING` is answered with null once all queues have room,
or with the reason for which the node gives up."""
SEND_WAITING = "send_waiting"
CONTROL = "control"
"""A message of `protocol.messages` to the runner; a saved state as block."""
CORRECT = "correct"
"""Names of inputs whose events shall have `captured_ns`."""
UNMATCHED = "unmatched"
"""Name of an input, and how many of its messages were in no sample."""

WAITING = frozenset((HELLO, NEXT, POLL, EMPTY, SLEEP, SEND_WAITING))

_HEAD = struct.Struct("=IQ")
_MAX_COPIED = 65536
"""Bytes of a block that are copied into one frame."""


def wall_ns(time_ns: int) -> int:
    """Return the virtual CLOCK_REALTIME at a virtual time."""
    return time_ns + WALL_OFFSET_NS


def write_frame(end: socket.socket, values: Any, block: Any = b"") -> None:
    """Send a frame. Raises ControlClosed if the other side has ended."""
    text = json.dumps(values, separators=(",", ":")).encode()
    frame = _HEAD.pack(len(text), len(block)) + text
    try:
        if len(block) <= _MAX_COPIED:
            end.sendall(frame + block)  # one call, so that the reader wakes up once
        else:
            end.sendall(frame)
            end.sendall(block)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ControlClosed("the other side of the test has ended") from error


def read_frame(end: socket.socket) -> tuple[Any, bytearray]:
    """Wait for a frame. Raises ControlClosed at the end, TimeoutError as the socket does."""
    text_size, block_size = _HEAD.unpack(_read(end, _HEAD.size))
    text = _read(end, text_size)
    return json.loads(text), _read(end, block_size) if block_size else bytearray()


def _read(end: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = end.recv_into(view)
        except ConnectionResetError:
            count = 0
        if not count:
            raise ControlClosed("the other side of the test has ended")
        view = view[count:]
    return data
