"""The Unix socket that nodes connect to: who is there, frames in, frames out; decides nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dora_node_api.errors import ControlError
from dora_node_api.frozen import Frozen
from dora_node_api.protocol.control_socket import bind_unix, receive_chunk, send_piece
from dora_node_api.protocol.frames import FrameDecoder, Piece, close_all, encode

_TOO_MANY_FILES = (errno.EMFILE, errno.ETOOMANYREFS)
"""What a higher limit of this process helps against; ENFILE is the system's own limit."""
MOST_WAITING = 32 * 1024 * 1024
"""Bytes that may wait for a node which does not read its control socket."""

ACCEPT_AGAIN = 0.5
"""Seconds until the next attempt after a connection could not be accepted."""

_CREDENTIALS = struct.Struct("3i")


class NodeDesk(Protocol):
    """Who is told what comes in on the connections."""

    def node_said(
        self, connection: NodeConnection, message: Frozen, descriptors: tuple[int, ...]
    ) -> None:
        """A message; the descriptors are the receiver's to close."""

    def node_hung_up(self, connection: NodeConnection) -> None:
        """End of file, or garbage; the connection is closed already."""

    def complain(self, message: str) -> None:
        """Something that an administrator should see."""


class NodeConnection:
    """One connected process. Nothing here blocks: what the socket does not take waits."""

    def __init__(self, sock: socket.socket, desk: NodeDesk, on_close: Callable[[], None]) -> None:
        self._socket = sock
        self._desk = desk
        self._on_close = on_close
        self._decoder = FrameDecoder()
        self._waiting: deque[Piece] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self.pid, self.uid = peer(sock)
        self.node: str | None = None
        """Set by the desk once the process has said who it is."""
        self.incarnation: int | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, message: Frozen, descriptors: Sequence[int] = ()) -> None:
        """Send now, or as soon as the node reads; to a closed connection it does nothing."""
        if self._closed:
            return
        try:
            self._send(encode(message, descriptors))
        except OSError as error:
            self._desk.complain(f'cannot send to node "{self.node}": {_why(error)}')
            self._hang_up()

    def _send(self, pieces: list[Piece]) -> None:
        while pieces and not self._waiting:
            piece = pieces.pop(0)
            taken = self._try(piece)
            if self._closed:
                return
            if taken < len(piece.data):
                rest = piece.descriptors if taken == 0 else ()
                self._wait_with(Piece(piece.data[taken:], rest))
        for piece in pieces:
            self._wait_with(piece)
        if self._waiting_bytes > MOST_WAITING:
            self._desk.complain(
                f'node "{self.node}" does not read its control socket; closing the connection'
            )
            self._hang_up()

    def _wait_with(self, piece: Piece) -> None:
        # The caller may close its descriptors before the socket takes them.
        own = tuple(os.dup(descriptor) for descriptor in piece.descriptors)
        if not self._waiting:
            self._loop.add_writer(self._socket, self._writable)
        self._waiting.append(Piece(piece.data, own))
        self._waiting_bytes += len(piece.data)

    def _writable(self) -> None:
        while self._waiting:
            piece = self._waiting[0]
            taken = self._try(piece)
            if self._closed:
                return
            self._waiting_bytes -= taken
            if taken:
                close_all(piece.descriptors)
            if taken < len(piece.data):
                rest = piece.descriptors if taken == 0 else ()
                self._waiting[0] = Piece(piece.data[taken:], rest)
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket)

    def _try(self, piece: Piece) -> int:
        try:
            return send_piece(self._socket, piece)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            # The process is gone or going; its exit is noticed elsewhere.
            if error.errno in _TOO_MANY_FILES:
                self._desk.complain(f'cannot send to node "{self.node}": {_why(error)}')
            self._hang_up()
            return 0

    def _readable(self) -> None:
        try:
            data, descriptors = receive_chunk(self._socket)
        except (BlockingIOError, InterruptedError):
            return None
        except ControlError as error:
            self._desk.complain(f'node "{self.node}" (pid {self.pid}): {error}')
            return self._hang_up()
        except OSError:
            return self._hang_up()
        if not data:
            return self._hang_up()
        self._decoder.feed(data, descriptors)
        while not self._closed:
            try:
                received = self._decoder.next_message()
            except ControlError as error:
                self._desk.complain(
                    f'node "{self.node}" (pid {self.pid}) sent what is no message; closing the'
                    f" connection: {error}"
                )
                return self._hang_up()
            if received is None:
                return None
            self._desk.node_said(self, received.message, received.descriptors)
        return None

    def read_waiting(self) -> None:
        """Take in all that has arrived, before a decision that depends on it.

        What a process said last lies in the socket when its exit, or what it sent to another node,
        has been noticed already.
        """
        if self.closed:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while poll.poll(0):
            self._readable()
            if self.closed:
                return

    def _hang_up(self) -> None:
        if not self._closed:
            self.close()
            self._desk.node_hung_up(self)

    def close_when_sent(self) -> None:
        """Close once everything that was sent has left, or after a second."""
        if not self._waiting:
            self.close()
        else:
            self._loop.call_later(1.0, self.close)

    def close(self) -> None:
        """Close the socket; the desk is not told. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for piece in self._waiting:
            close_all(piece.descriptors)
        self._waiting.clear()
        self._decoder.close()
        self._socket.close()
        self._on_close()


class NodeServer:
    """Accepts processes of this user on a Unix socket."""

    def __init__(self, path: Path, desk: NodeDesk) -> None:
        self.path = path
        self._desk = desk
        self._listener = bind_unix(path, backlog=512)
        self._listener.setblocking(False)
        self._connections: set[NodeConnection] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, say. The connection waits, and would wake us at once.
                self._desk.complain(f"cannot accept a node's connection: {_why(error)}")
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(ACCEPT_AGAIN, self._resume)
                return
            sock.setblocking(False)
            _, uid = peer(sock)
            if uid not in (os.getuid(), 0):
                self._desk.complain(f"refused a connection of user {uid} to the socket for nodes")
                sock.close()
                continue
            self._add(sock)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _add(self, sock: socket.socket) -> None:
        def forget() -> None:
            self._connections.discard(connection)

        connection = NodeConnection(sock, self._desk, forget)
        self._connections.add(connection)

    def close(self) -> None:
        """Close the socket, its file and every connection."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.close()


def _why(error: OSError) -> str:
    if error.errno not in _TOO_MANY_FILES:
        return str(error)
    return f"{error}; each edge takes up to six file descriptors: raise the limit (`ulimit -n`)"


def peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and user id of the process at the other end; (0, our own) where it cannot be told."""
    if sys.platform == "linux":
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        return pid, uid
    return 0, os.getuid()
