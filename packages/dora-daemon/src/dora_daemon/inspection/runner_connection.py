"""Connection of an inspector to a runner, with one queue per inspected output."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import dora_node_api
from dora_config.errors import DoraError
from dora_node_api.errors import ControlClosed, ControlError
from dora_node_api.protocol import messages
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.frames import ReceivedFrame, close_all
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds

ANSWER_TIMEOUT = 10.0
"""Seconds for the runner to answer a request."""


class InspectionError(DoraError):
    """The outputs cannot be inspected."""


class RunnerDisconnected(Exception):
    """The dataflow has ended, or its runner was killed."""


class InspectorConnection:
    """Connection with blocking requests, for one thread."""

    def __init__(
        self, path: Path, dataflow_id: str, topics: Iterable[str], *, name: str = messages.INSPECTOR
    ) -> None:
        """Open a queue for each of ``topics``. Raises InspectionError and RunnerDisconnected.

        ``dataflow_id`` is checked, because the path of an ended runner may be reused.
        """
        self.stopping = False
        """Whether the runner has announced its end."""
        try:
            self._control = ControlSocket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise RunnerDisconnected from error
        except (OSError, ControlError) as error:
            raise InspectionError(f"the runner's socket {path}: {error}") from error
        self._requests = 0
        self.receivers: dict[str, Receiver] = {}
        self.problems: list[str] = []
        try:
            self.board = self._connect(dataflow_id, name)
        except BaseException:
            self._control.close()
            raise
        for topic in topics:
            self.open_queue(topic)

    def _connect(self, dataflow_id: str, name: str) -> Board:
        package = str(Path(dora_node_api.__file__).parent)
        hello = messages.Hello(
            name, None, os.getpid(), version=dora_node_api.__version__, package=package
        )
        welcome = self._request(hello)
        if not isinstance(welcome.message, messages.Welcome) or len(welcome.descriptors) != 1:
            raise InspectionError(_refusal(welcome))
        if welcome.message.config.dataflow_id != dataflow_id:
            close_all(welcome.descriptors)
            raise RunnerDisconnected
        return Board.attach(welcome.descriptors[0], welcome.message.board_size)

    def close(self) -> None:
        """Close the connection, after which the runner removes the queues."""
        for receiver in self.receivers.values():
            receiver.close()
        self._control.close()
        self.board.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the runner disconnects."""
        return self._control.fileno()

    def check(self) -> None:
        """Raise RunnerDisconnected if the runner has disconnected or announced its end."""
        try:
            received = self._control.receive(timeout=0)
        except (ControlClosed, ControlError) as error:
            raise RunnerDisconnected from error
        if received is not None:
            close_all(received.descriptors)
            self.stopping = self.stopping or isinstance(received.message, messages.StopNode)
        if self.stopping:
            raise RunnerDisconnected

    def open_queue(self, topic: str) -> None:
        """Open a queue for ``node/output``; a refusal becomes one of the ``problems``."""
        node, _, output = topic.partition("/")
        answer = self._request(messages.WatchOutput(node, output))
        queue = answer.message.queue if isinstance(answer.message, messages.AddInput) else None
        if queue is None:
            self.problems.append(_refusal(answer))
            return
        ends = QueueEnds.from_consumer_fds(answer.descriptors)
        self.receivers[topic] = Receiver(queue, ends, self.board, self._open_segment)

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        """Return descriptor and size of a segment.

        Raises LookupError if it no longer exists, and RunnerDisconnected.
        """
        self._requests += 1
        answer = self._request(messages.OpenSegment(self._requests, incarnation, number))
        if not isinstance(answer.message, messages.SegmentFd) or len(answer.descriptors) != 1:
            close_all(answer.descriptors)
            raise LookupError(f"segment {number} of incarnation {incarnation} is gone")
        return answer.descriptors[0], answer.message.size

    def _request(
        self, message: messages.Hello | messages.WatchOutput | messages.OpenSegment
    ) -> ReceivedFrame:
        try:
            self._control.send(message)
        except (ControlClosed, ControlError) as error:
            raise RunnerDisconnected from error
        return self._receive()

    def _receive(self) -> ReceivedFrame:
        """Return the next message that is not StopNode."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            try:
                answer = self._control.receive(timeout=max(0.0, deadline - time.monotonic()))
            except (ControlClosed, ControlError) as error:
                raise RunnerDisconnected from error
            if answer is None:
                raise InspectionError(f"the runner did not answer within {ANSWER_TIMEOUT:g} s")
            if not isinstance(answer.message, messages.StopNode):
                return answer
            self.stopping = True


def _refusal(answer: ReceivedFrame) -> str:
    close_all(answer.descriptors)
    if isinstance(answer.message, messages.Refused):
        return answer.message.message
    return f"the runner answered with {type(answer.message).__name__}"
