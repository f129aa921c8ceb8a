"""The Unix socket that nodes connect to: accepts processes, sends and receives messages."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dora_node_api.errors import ControlError
from dora_node_api.protocol.control_socket import bind_unix, receive_chunk, send_piece
from dora_node_api.protocol.frames import FrameDecoder, Piece, close_all, encode
from dora_node_api.protocol.messages import Message

_TOO_MANY_FILES = (errno.EMFILE, errno.ETOOMANYREFS)
"""Errors that a higher limit of this process prevents; ENFILE is a limit of the system."""
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bytes that may be queued for a node that does not read its control socket."""

ACCEPT_RETRY_SECONDS = 0.5
"""Delay after a connection could not be accepted."""

_CREDENTIALS = struct.Struct("3i")


class ConnectionHandler(Protocol):
    """Receiver of the events of connections."""

    def received(
        self, connection: NodeConnection, message: Message, descriptors: tuple[int, ...]
    ) -> None:
        """Process a message; the handler must close the descriptors."""

    def disconnected(self, connection: NodeConnection) -> None:
        """Process the end of a connection: end of file or a malformed message."""

    def warn(self, message: str) -> None:
        """Log a warning."""


class NodeConnection:
    """One connected process. It never blocks: data that the socket does not accept is queued."""

    def __init__(
        self, sock: socket.socket, handler: ConnectionHandler, on_close: Callable[[], None]
    ) -> None:
        self._socket = sock
        self._handler = handler
        self._on_close = on_close
        self._decoder = FrameDecoder()
        self._waiting: deque[Piece] = deque()
        self._waiting_bytes = 0
        self.closed = False
        self.pid, self.uid = peer_credentials(sock)
        self.node: str | None = None
        """Set by the handler after Hello."""
        self.incarnation: int | None = None
        self.exit_fd: int | None = None
        """Readable when its process has ended; only for an attached dynamic node."""
        self.leaving = False
        """Whether the process has announced that it closes the connection."""
        self.holds = ""
        """Why the process must not be changed now."""
        self.waits: str | None = None
        """Condition outside of the dataflow that the process waits for."""
        self.details: dict[str, Any] | None = None
        """Details that the process has reported about itself."""
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send now, or as soon as the node reads; do nothing if the connection is closed."""
        if self.closed:
            return
        try:
            self._send(encode(message, descriptors))
        except OSError as error:
            self._handler.warn(f'cannot send to node "{self.node}": {_explain(error)}')
            self._disconnect()

    def _send(self, pieces: list[Piece]) -> None:
        while pieces and not self._waiting:
            piece = pieces.pop(0)
            taken = self._send_piece(piece)
            if self.closed:
                return
            if taken < len(piece.data):
                rest = piece.descriptors if taken == 0 else ()
                self._enqueue(Piece(piece.data[taken:], rest))
        for piece in pieces:
            self._enqueue(piece)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._handler.warn(
                f'node "{self.node}" does not read its control socket; closing the connection'
            )
            self._disconnect()

    def _enqueue(self, piece: Piece) -> None:
        # the caller may close its descriptors before they are sent
        own = tuple(os.dup(descriptor) for descriptor in piece.descriptors)
        if not self._waiting:
            self._loop.add_writer(self._socket, self._writable)
        self._waiting.append(Piece(piece.data, own))
        self._waiting_bytes += len(piece.data)

    def _writable(self) -> None:
        while self._waiting:
            piece = self._waiting[0]
            taken = self._send_piece(piece)
            if self.closed:
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
        if self._closing:
            self.close()

    def _send_piece(self, piece: Piece) -> int:
        try:
            return send_piece(self._socket, piece)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            # the process has ended or is ending; its exit is detected elsewhere
            if error.errno in _TOO_MANY_FILES:
                self._handler.warn(f'cannot send to node "{self.node}": {_explain(error)}')
            self._disconnect()
            return 0

    def _readable(self) -> None:
        try:
            data, descriptors = receive_chunk(self._socket)
        except (BlockingIOError, InterruptedError):
            return None
        except ControlError as error:
            self._handler.warn(f'node "{self.node}" (pid {self.pid}): {error}')
            return self._disconnect()
        except OSError:
            return self._disconnect()
        if not data:
            return self._disconnect()
        self._decoder.feed(data, descriptors)
        while self._reads:
            try:
                received = self._decoder.next_message()
            except ControlError as error:
                self._handler.warn(
                    f'node "{self.node}" (pid {self.pid}) sent a malformed message; closing the'
                    f" connection: {error}"
                )
                return self._disconnect()
            if received is None:
                return None
            self._handler.received(self, received.message, received.descriptors)
        return None

    def read_waiting(self) -> None:
        """Process all received messages, before a decision that depends on them.

        The last message of a process may be unread when its exit, or a sample that it sent, has
        been detected.
        """
        poll = select.poll()
        if self._reads:
            poll.register(self._socket, select.POLLIN)
        while self._reads and poll.poll(0):
            self._readable()

    @property
    def _reads(self) -> bool:
        return not (self.closed or self._closing)

    def _disconnect(self) -> None:
        if not self.closed:
            self.close()
            self._handler.disconnected(self)

    def close_when_sent(self) -> None:
        """Stop reading; close once everything was sent, or after a second."""
        if self.closed or not self._waiting:
            self.close()
            return
        self._closing = True
        self._loop.remove_reader(self._socket)
        self._loop.call_later(1.0, self.close)

    def close(self) -> None:
        """Close the socket without calling the handler. May be called twice."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for piece in self._waiting:
            close_all(piece.descriptors)
        self._waiting.clear()
        self._decoder.close()
        self._socket.close()
        self._on_close()


class Acceptor:
    """Accepts processes of this user on a Unix socket, also after a time without descriptors."""

    def __init__(
        self,
        path: Path,
        listener: socket.socket,
        on_accept: Callable[[socket.socket], None],
        warn: Callable[[str], None],
    ) -> None:
        """``listener`` listens at ``path``; :meth:`close` closes and removes it."""
        listener.setblocking(False)
        self._path = path
        self._listener = listener
        self._on_accept = on_accept
        self._warn = warn
        self._warned = False
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._resume()

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # such as too many open files; the connection stays pending and the socket readable
                if not self._warned:
                    self._warn(f"cannot accept a connection on {self._path}: {_explain(error)}")
                self._warned = True
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._resume)
                return
            self._warned = False
            sock.setblocking(False)
            _, uid = peer_credentials(sock)
            if uid in (os.getuid(), 0):
                self._on_accept(sock)
            else:
                self._warn(f"refused a connection of user {uid} on {self._path}")
                sock.close()

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)


class NodeServer:
    """The socket of nodes, with its connections."""

    def __init__(self, path: Path, handler: ConnectionHandler) -> None:
        self._handler = handler
        self._connections: set[NodeConnection] = set()
        listener = bind_unix(path, backlog=512)
        self._acceptor = Acceptor(path, listener, self._add, handler.warn)

    def _add(self, sock: socket.socket) -> None:
        def forget() -> None:
            self._connections.discard(connection)

        connection = NodeConnection(sock, self._handler, forget)
        self._connections.add(connection)

    def close(self) -> None:
        """Close the socket, its file and every connection."""
        self._acceptor.close()
        for connection in list(self._connections):
            connection.close()


def _explain(error: OSError) -> str:
    if error.errno not in _TOO_MANY_FILES:
        return str(error)
    return f"{error}; each edge takes up to six file descriptors: raise the limit (`ulimit -n`)"


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Return pid and user id of the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
