"""The link's end of the socketpair to its runner."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from dora_daemon.link.errors import LinkProcessError
from dora_daemon.link.protocol.messages import (
    VERSION,
    Configure,
    LineBuffer,
    Note,
    ToLink,
    ToRunner,
    decode_for_link,
    encode,
)

_SAME_NOTE_NS = 10_000_000_000
"""Nanoseconds for which further lines with the same prefix are not sent."""
_NOTE_PREFIX = 60
"""Length of the prefix by which lines are compared, in characters."""
_MAX_PREFIXES = 1000
"""Most prefixes that are remembered."""


@contextlib.contextmanager
def _refusing_others() -> Iterator[None]:
    """Raise LinkProcessError for a malformed message."""
    try:
        yield
    except ValueError as error:
        raise LinkProcessError(f"malformed message of the runner: {error}") from error


class RunnerConnection:
    """Control messages from and to the runner; data and queues are in `node_client`.

    Any thread may send.
    """

    def __init__(self, carrier: socket.socket) -> None:
        self._socket = carrier
        self._lines = LineBuffer()
        self.early: list[ToLink] = []
        """Messages that arrived together with the configuration."""
        self._sending = threading.Lock()
        self._noted: dict[str, int] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    @_refusing_others()
    def configuration(self) -> Configure:
        """Wait for the first message. Raises LinkProcessError."""
        lines: list[bytes] = []
        while not lines:
            data = self._socket.recv(65536)
            if not data:
                raise LinkProcessError(
                    "the runner closed the connection before it configured the link"
                )
            lines = self._lines.feed(data)
        first = decode_for_link(lines[0])
        if not isinstance(first, Configure):
            raise LinkProcessError(f"expected Configure from the runner, got {lines[0][:100]!r}")
        if first.version != VERSION:
            raise LinkProcessError(
                f"the runner uses version {first.version} of the link protocol, this link"
                f" version {VERSION}: dora was upgraded while the dataflow ran; restart it"
            )
        self.early = [decode_for_link(line) for line in lines[1:]]
        return first

    @_refusing_others()
    def receive(self) -> list[ToLink] | None:
        """Read once; None when the runner is gone. Raises LinkProcessError."""
        try:
            data = self._socket.recv(1 << 20)
        except OSError:
            return None
        return [decode_for_link(line) for line in self._lines.feed(data)] if data else None

    def send(self, message: ToRunner) -> None:
        """Send a message; ignored if the runner is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(encode(message))

    def note(self, sentence: str) -> None:
        """Send a line for the log; at most one line per prefix in ten seconds."""
        now = time.monotonic_ns()
        prefix = sentence[:_NOTE_PREFIX]
        with self._sending:
            if now - self._noted.get(prefix, -_SAME_NOTE_NS) < _SAME_NOTE_NS:
                return
            if len(self._noted) >= _MAX_PREFIXES:
                self._noted.clear()
            self._noted[prefix] = now
        self.send(Note(level="warn", message=sentence))
