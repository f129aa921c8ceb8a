"""Servers of a test, in a thread of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from threading import Thread

from websockets.sync.server import Server


@contextmanager
def served(server: BaseServer | Server) -> Iterator[None]:
    """Serve for the block; the caller closes the server."""
    poll_interval = (0.01,) if isinstance(server, BaseServer) else ()
    thread = Thread(target=server.serve_forever, args=poll_interval)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
