"""Reads log lines of other machines from the link's queues."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from dora_daemon.runner.nodes.queues import QueueEntry, duplicate
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds

_LINES_PER_TURN = 200


class LogReader:
    """Reader of one stream of log lines."""

    def __init__(
        self,
        board: Board,
        entry: QueueEntry,
        segments: SegmentTable,
        on_line: Callable[[str], None],
    ) -> None:
        """``on_line`` gets each line as the text that readers of ``dora/logs`` receive.

        Raises OSError.
        """
        self._segments = segments
        self._on_line = on_line
        ends = QueueEnds.from_consumer_fds(duplicate(entry.ends.for_consumer()))
        self._receiver = Receiver(entry.spec, ends, board, self._open_segment, validate=True)
        self._descriptors = self._receiver.fds()
        self._loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._readable)

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        segment = self._segments.find(incarnation, number)
        if segment is None:
            raise LookupError(f"segment {number} of incarnation {incarnation} does not exist")
        return os.dup(segment[0]), segment[1]

    def _readable(self) -> None:
        self._receiver.woken()
        for _ in range(_LINES_PER_TURN):
            try:
                delivery = self._receiver.receive()
                if delivery is None:
                    return
                if delivery.kind is RecordKind.DATA:
                    self._on_line(str(delivery.value[0].as_py()))
            except (TransportError, ValueError, TypeError, LookupError):
                continue  # counted by the receiver

    def close(self) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        self._receiver.close()
