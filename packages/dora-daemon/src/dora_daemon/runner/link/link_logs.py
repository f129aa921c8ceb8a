"""Log lines of other machines: read from the link's queues by the runner, which passes them on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from dora_daemon.runner.nodes.queues import KeptQueue
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds

_LINES_A_TURN = 200


class LogReader:
    """One stream of lines; each is handed on as the text that readers of ``dora/logs`` get."""

    def __init__(
        self,
        board: Board,
        kept: KeptQueue,
        find_segment: Callable[[int, int], tuple[int, int] | None],
        hand_on: Callable[[str], None],
    ) -> None:
        self._find_segment = find_segment
        self._hand_on = hand_on
        ends = QueueEnds.from_consumer_fds([os.dup(fd) for fd in kept.ends.for_consumer()])
        self._receiver = Receiver(kept.spec, ends, board, self._open_segment, validate=True)
        self._descriptors = self._receiver.fds()
        self._loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._readable)

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        segment = self._find_segment(incarnation, number)
        if segment is None:
            raise LookupError(f"segment {number} of incarnation {incarnation} is gone")
        return os.dup(segment[0]), segment[1]

    def _readable(self) -> None:
        self._receiver.woken()
        for _ in range(_LINES_A_TURN):
            try:
                delivery = self._receiver.receive()
                if delivery is None:
                    return
                if delivery.kind is RecordKind.DATA:
                    self._hand_on(str(delivery.value[0].as_py()))
            except (TransportError, ValueError, TypeError, LookupError):
                continue  # counted by the receiver; the next one may be whole

    def close(self) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        self._receiver.close()
