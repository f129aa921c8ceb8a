"""TCP forwarding that can be cut: bytes stop, and both connections stay open."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 65536


class CuttableWire:
    """Listens on ``port`` and forwards connections to ``target``, a port of this machine."""

    def __init__(self, target: int, listener: socket.socket | None = None) -> None:
        """``listener``: a socket of another network to accept from; closed with the wire."""
        self._target = target
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._ending = False
        self._partner: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._carry, name="wire")
        self._thread.start()

    def cut(self) -> None:
        """Stop forwarding; neither end is notified."""
        self._whole.clear()

    def heal(self) -> None:
        """Resume forwarding; bytes sent meanwhile arrive late."""
        self._whole.set()

    def close(self) -> None:
        self._ending = True
        self._whole.set()
        self._thread.join()
        self._selector.close()
        for end in (self._listener, *self._partner):
            end.close()

    def _carry(self) -> None:
        while not self._ending:
            ready = self._selector.select(timeout=0.05)
            self._whole.wait()
            for key, _ in ready:
                end = key.fileobj
                assert isinstance(end, socket.socket)
                with suppress(OSError):
                    if end is self._listener:
                        self._accept()
                    elif end in self._partner:
                        self._forward(end)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._partner[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        try:
            data = end.recv(_CHUNK)
            self._partner[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            for one in (end, self._partner[end]):
                self._selector.unregister(one)
                del self._partner[one]
                one.close()


@contextmanager
def cuttable_wire(target: int, listener: socket.socket | None = None) -> Iterator[CuttableWire]:
    wire = CuttableWire(target, listener)
    try:
        yield wire
    finally:
        wire.close()
