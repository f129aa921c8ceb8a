"""The connection to a runner's socket for inspectors: one queue for each output that is watched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import dora_node_api
from dora_config.errors import DoraError
from dora_daemon.process_tree.runner_index import NODE_SOCKET
from dora_node_api.errors import ControlClosed, ControlError
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.frames import Received, close_all
from dora_node_api.protocol.messages import (
    INSPECTOR,
    AddInput,
    Hello,
    OpenSegment,
    Refused,
    SegmentFd,
    WatchOutput,
    Welcome,
)
from dora_node_api.transport import Board, QueueEnds, Receiver

ANSWER_SECONDS = 10.0


class InspectionError(DoraError):
    """Nothing can be watched; `str()` says why."""


class RunnerGone(Exception):
    """The dataflow has ended, or its runner was killed."""


class RunnerSide:
    """One thread does everything: it asks and waits for the answer."""

    def __init__(self, path: str, dataflow_id: str, topics: Iterable[str]) -> None:
        """Have a queue for each of ``topics``. Raises InspectionError and RunnerGone.

        Another dataflow's runner may have got the place of one that has ended.
        """
        try:
            self._control = ControlSocket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if isinstance(error, FileNotFoundError) and Path(path).with_name(NODE_SOCKET).exists():
                raise InspectionError(
                    "the runner of this dataflow was started by a version that lets nobody watch;"
                    " restart the dataflow"
                ) from None
            raise RunnerGone from error
        except (OSError, ControlError) as error:
            raise InspectionError(f"the runner's socket {path}: {error}") from error
        self._requests = 0
        self.receivers: dict[str, Receiver] = {}
        """By output."""
        self.problems: list[str] = []
        try:
            self.board = self._greet(dataflow_id)
        except BaseException:
            self._control.close()
            raise
        for topic in topics:
            self._watch(topic)

    def _greet(self, dataflow_id: str) -> Board:
        package = str(Path(dora_node_api.__file__).parent)
        hello = Hello(
            INSPECTOR, None, os.getpid(), version=dora_node_api.__version__, package=package
        )
        welcome = self._ask(hello)
        if not isinstance(welcome.message, Welcome) or len(welcome.descriptors) != 1:
            raise InspectionError(_refusal(welcome))
        if welcome.message.config.dataflow_id != dataflow_id:
            close_all(welcome.descriptors)
            raise RunnerGone
        return Board.attach(welcome.descriptors[0], welcome.message.board_size)

    def close(self) -> None:
        """The runner takes the queues back."""
        for receiver in self.receivers.values():
            receiver.close()
        self._control.close()
        self.board.close()

    def fileno(self) -> int:
        """Readable when the runner has gone (it says nothing unasked)."""
        return self._control.fileno()

    def look(self) -> None:
        """Raises RunnerGone."""
        try:
            received = self._control.receive(timeout=0)
        except (ControlClosed, ControlError) as error:
            raise RunnerGone from error
        if received is not None:
            close_all(received.descriptors)

    def _watch(self, topic: str) -> None:
        node, _, output = topic.partition("/")
        answer = self._ask(WatchOutput(node, output))
        queue = answer.message.queue if isinstance(answer.message, AddInput) else None
        if queue is None:
            self.problems.append(_refusal(answer))
            return
        ends = QueueEnds.from_consumer_fds(answer.descriptors)
        self.receivers[topic] = Receiver(queue, ends, self.board, self._open_segment)

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        """Raises LookupError if nobody has it any more, and RunnerGone."""
        self._requests += 1
        answer = self._ask(OpenSegment(self._requests, incarnation, number))
        if not isinstance(answer.message, SegmentFd) or len(answer.descriptors) != 1:
            close_all(answer.descriptors)
            raise LookupError(f"segment {number} of incarnation {incarnation} is gone")
        return answer.descriptors[0], answer.message.size

    def _ask(self, message: Hello | WatchOutput | OpenSegment) -> Received:
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            self._control.send(message)
            answer = self._control.receive(timeout=max(0.0, deadline - time.monotonic()))
        except (ControlClosed, ControlError) as error:
            raise RunnerGone from error
        if answer is None:
            raise InspectionError(f"the runner does not answer within {ANSWER_SECONDS:g} s")
        return answer


def _refusal(answer: Received) -> str:
    close_all(answer.descriptors)
    if isinstance(answer.message, Refused):
        return answer.message.message
    return f"the runner answered with {type(answer.message).__name__}"
