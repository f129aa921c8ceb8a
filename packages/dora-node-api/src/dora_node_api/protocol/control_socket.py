"""The Unix stream socket between a node and its runner: paths of any depth, frames in and out.

Only bytes and descriptors move here; `session` and the runner interpret the messages.
"""

# Imports add to the start of every node: os.path, not pathlib.
# ruff: noqa: PTH101, PTH108
from __future__ import annotations

import array
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dora_node_api.errors import ControlClosed, ControlError
from dora_node_api.protocol.frames import (
    DESCRIPTORS_PER_PIECE,
    FrameDecoder,
    Piece,
    ReceivedFrame,
    close_all,
    encode,
)
from dora_node_api.protocol.messages import Message
from dora_node_api.transport.shared.interruption import Integrity, OwnedLock, interrupting

if TYPE_CHECKING:
    from pathlib import Path

# sun_path holds 108 bytes, its closing zero included.
MAX_NAME = 107
_CHUNK = 65536
"""Bytes that one `recvmsg` takes."""
_ANCILLARY = socket.CMSG_SPACE((DESCRIPTORS_PER_PIECE + 53) * array.array("i").itemsize)


@contextmanager
def _short_name(path: str | Path) -> Iterator[str]:
    """Yield a name of `path` that fits a socket address, valid inside the `with`."""
    name = os.fspath(path)
    if len(os.fsencode(name)) <= MAX_NAME:
        yield name
        return
    directory, last = os.path.split(name)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{last}"
    finally:
        os.close(descriptor)


def connect_unix(path: str | Path, *, timeout: float | None = 10.0) -> socket.socket:
    """Return a stream socket connected to `path`, which may be long. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with _short_name(path) as name:
            connection.connect(name)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def bind_unix(path: str | Path, *, backlog: int = 128) -> socket.socket:
    """Return a stream socket of mode 0600 that listens at `path`, which may be long.

    An existing socket file is replaced: the caller holds the lock of the directory. Raises OSError.
    """
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_name(path) as name:
            listener.bind(name)
            os.chmod(name, 0o600)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def receive_chunk(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One `recvmsg`: return bytes (none at end-of-file) and descriptors, close-on-exec.

    Raises OSError, and ControlError if descriptors were lost because of a limit.
    """
    data, ancillary, flags, _ = connection.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    descriptors = numbers.tolist()
    if flags & socket.MSG_CTRUNC:
        close_all(descriptors)
        raise ControlError(
            "file descriptors were lost on the way: this process may not open more"
            " (raise the limit, ulimit -n)"
        )
    return data, descriptors


def send_piece(connection: socket.socket, piece: Piece) -> int:
    """One `sendmsg`; return the number of bytes sent. Descriptors go with the first of them."""
    if not piece.descriptors:
        return connection.send(piece.data)
    rights = array.array("i", piece.descriptors)
    return connection.sendmsg([piece.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


class ControlSocket:
    """A blocking connection to the runner. Any thread may send; one at a time may receive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = FrameDecoder()
        self._sending = OwnedLock()
        self.integrity = Integrity()
        """Integrity of the frames sent: broken if a signal handler's exception cut one."""
        self._ended = False

    @classmethod
    def connect(cls, path: str | Path, *, timeout: float | None = 10.0) -> ControlSocket:
        """Connect to the socket at `path`. Raises OSError."""
        return cls(connect_unix(path, timeout=timeout))

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 once closed."""
        return self._connection.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message.

        Raises ControlClosed if the other end is gone, NodeInterrupted, and RuntimeError in a signal
        handler that interrupted another `send`.
        """
        pieces = encode(message, descriptors)
        if self._sending.owned():
            raise interrupting()
        with self._sending, self.integrity:
            try:
                for piece in pieces:
                    sent = send_piece(self._connection, piece)
                    if sent < len(piece.data):
                        self._connection.sendall(piece.data[sent:])
            except OSError as error:
                if error.errno is None:
                    raise  # a TimeoutError of a signal handler, for example
                raise ControlClosed(f"the control socket is closed: {error}") from error

    def receive(self, *, timeout: float | None = None) -> ReceivedFrame | None:
        """Return the next message; None after `timeout` seconds (0: do not wait).

        Raises ControlClosed at end-of-file, and ControlError for a malformed message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if (received := self._decoder.next_message()) is not None:
                return received
            if self._ended:
                raise ControlClosed()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self.wait(left):
                return None
            self._take_in()

    def wait(self, seconds: float | None) -> bool:
        """Wait until something can be received, at most ``seconds``; return whether it can."""
        import select

        # poll, not select: the descriptor may exceed 1023.
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(None if seconds is None else -(-seconds * 1000 // 1)))

    def _take_in(self) -> None:
        try:
            data, descriptors = receive_chunk(self._connection)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno is None:
                raise
            self._ended = True
            raise ControlClosed(f"the control socket is closed: {error}") from error
        self._decoder.feed(data, descriptors)
        if not data:
            self._ended = True

    def close(self) -> None:
        """Close the connection and the descriptors that were received but not taken."""
        self._decoder.close()
        self._connection.close()

    def __del__(self) -> None:
        # A node may end without closing anything; a socket alone would warn of that (-X dev).
        self._connection.close()
