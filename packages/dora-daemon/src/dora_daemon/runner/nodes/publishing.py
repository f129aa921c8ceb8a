"""The runner as a producer: log entries and lines that are sent as samples."""

from __future__ import annotations

import os

from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.nodes.queues import QueueEntry, duplicate
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds

POOL_BYTES = 64 * 1024 * 1024
"""Shared memory for log lines that are sent as samples."""
RUNNER = 0
"""Incarnation of the runner."""


def log_route(node: str, name: str) -> str:
    """Return the runner's output for a ``dora/logs`` input; outputs of nodes contain no spaces."""
    return f"dora/logs -> {node}/{name}"


class RunnerOutputs:
    """Outputs of the runner. All its queues are drop_oldest, so it never waits."""

    def __init__(self, board: Board, segments: SegmentTable) -> None:
        self._board = board
        self._segments = segments
        self._sender: Sender | None = None
        self.log_queues: dict[int, QueueEntry] = {}
        """Queues that take log lines, by number."""

    def add_route(self, entry: QueueEntry) -> None:
        """Send an output into a queue. Raises QueueUnavailable."""
        edge = entry.edge
        try:
            ends = QueueEnds.from_producer_fds(duplicate(entry.ends.for_producer()))
        except OSError as error:
            raise QueueUnavailable(f"cannot write into edge {entry.edge}: {error}") from error
        if self._sender is None:
            self._sender = Sender(Pool(POOL_BYTES, self._add_segment), self._board, RUNNER)
        if entry.log_source is None:
            self._sender.add_route(f"{edge.source}/{edge.output}", entry.spec, ends)
        else:
            self._sender.add_route(log_route(edge.target, edge.input), entry.spec, ends)
            self.log_queues[entry.spec.queue] = entry

    def remove_route(self, entry: QueueEntry) -> None:
        self.log_queues.pop(entry.spec.queue, None)
        if self._sender is not None:
            self._sender.remove_route(entry.spec.queue)

    def send_text(self, output: str, text: str) -> None:
        """Send a string array of length 1.

        Raises TransportError without memory, OSError without a free descriptor.
        """
        sender = self._sender
        if sender is None or not sender.routes(output):
            return
        # importing pyarrow takes a third of a second
        import pyarrow as pa

        from dora_node_api.data.arrow import encode

        sender.send(output, encode(pa.array([text], pa.string())))

    def _add_segment(self, number: int, descriptor: int, size: int) -> None:
        self._segments.add(RUNNER, number, os.dup(descriptor), size)

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None
