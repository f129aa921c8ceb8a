"""What the runner itself sends into queues: log entries and lines that are to be messages."""

from __future__ import annotations

import os

from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.nodes.queues import RUNNER, KeptQueue, QueueBook
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.queue import QueueEnds

POOL_BYTES = 64 * 1024 * 1024


class RunnerOutputs:
    """The runner as a producer. Every queue it feeds is drop_oldest, so it never waits."""

    def __init__(self, book: QueueBook) -> None:
        self._book = book
        self._sender: Sender | None = None

    def add_route(self, output: str, kept: KeptQueue) -> None:
        """Feed a queue under a name of our own choice. Raises QueueUnavailable."""
        try:
            ends = QueueEnds.from_producer_fds([os.dup(fd) for fd in kept.ends.for_producer()])
        except OSError as error:
            raise QueueUnavailable(f"cannot feed edge {kept.edge}: {error}") from error
        self._open().add_route(output, kept.spec, ends)

    def remove_route(self, kept: KeptQueue) -> None:
        if self._sender is not None:
            self._sender.remove_route(kept.spec.queue)

    def send_text(self, output: str, text: str) -> None:
        """One message: a string array of length 1. Raises TransportError when memory runs out."""
        sender = self._sender
        if sender is None or not sender.routes(output):
            return
        # pyarrow takes a third of a second to import: only dataflows that need it pay.
        import pyarrow as pa

        from dora_node_api.data.arrow import encode

        sender.send(output, encode(pa.array([text], pa.string())))

    def _open(self) -> Sender:
        if self._sender is None:
            pool = Pool(POOL_BYTES, self._register)
            self._sender = Sender(pool, self._book.board, RUNNER)
        return self._sender

    def _register(self, number: int, descriptor: int, size: int) -> None:
        self._book.add_segment(RUNNER, number, os.dup(descriptor), size)

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None
