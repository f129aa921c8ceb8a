"""The runner's end of the socket on which it and the link process talk; nothing here blocks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from dora_daemon.link.protocol.messages import Lines, ToLink, ToRunner, decode_for_runner, encode

_CHUNK = 65536


class Carrier:
    """One link process; what the socket does not take waits."""

    def __init__(
        self,
        sock: socket.socket,
        hear: Callable[[ToRunner], None],
        complain: Callable[[str], None],
        *,
        broken: Callable[[], None],
    ) -> None:
        """``broken``: what it sends cannot be told apart any more, so that it must be killed."""
        sock.setblocking(False)
        self._socket = sock
        self._hear = hear
        self._complain = complain
        self._broken = broken
        self._deaf = False
        self._lines = Lines()
        self._waiting = bytearray()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, message: ToLink) -> None:
        """To a link that is gone it does nothing: its exit is noticed elsewhere."""
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
        """Take in what is there; False at the end."""
        if self._deaf:
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
            self._deaf = True
            self._complain(f"the link sends what is no message, and is started again: {error}")
            self._broken()
            return False
        for line in lines:
            try:
                message = decode_for_runner(line)
            except ValueError as error:
                self._complain(str(error))
                continue
            if message is not None:
                self._hear(message)
        return bool(data)

    def read_rest(self) -> None:
        """The process has ended: its last words lie in the socket."""
        self._socket.setblocking(False)
        while self._open and self._has_data() and self._read():
            pass

    def _has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket, which ends a link that still runs. May be called twice."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
