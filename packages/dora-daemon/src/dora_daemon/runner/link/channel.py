"""The runner's end of the socket to the link process. Never blocks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from dora_daemon.link.protocol.messages import Lines, ToLink, ToRunner, decode_for_runner, encode

_CHUNK = 65536


class RunnerChannel:
    """Messages to and from one link process; what the socket cannot take is queued."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[ToRunner], None],
        warn: Callable[[str], None],
        *,
        on_broken: Callable[[], None],
    ) -> None:
        """``on_broken``: its messages cannot be separated any more, so it must be killed."""
        sock.setblocking(False)
        self._socket = sock
        self._on_message = on_message
        self._warn = warn
        self._on_broken = on_broken
        self._broken = False
        self._lines = Lines()
        self._waiting = bytearray()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, message: ToLink) -> None:
        """Send a message; do nothing if the link has ended, which is detected elsewhere."""
        if not self._open:
            return
        if not self._waiting:
            self._loop.add_writer(self._socket, self._writable)
        self._waiting += encode(message)
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._waiting)
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        if not self._read():
            self._loop.remove_reader(self._socket)

    def _read(self) -> bool:
        """Process what has arrived; return False at the end."""
        if self._broken:
            return False
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        try:
            lines = self._lines.feed(data)
        except ValueError as error:
            self._broken = True
            self._warn(f"restarting the link: malformed message: {error}")
            self._on_broken()
            return False
        for line in lines:
            try:
                message = decode_for_runner(line)
            except ValueError as error:
                self._warn(str(error))
                continue
            if message is not None:
                self._on_message(message)
        return bool(data)

    def read_rest(self) -> None:
        """Process what the link sent before its process ended."""
        self._socket.setblocking(False)
        while self._open and self._has_data() and self._read():
            pass

    def _has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket, which ends a running link. May be called twice."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
