"""Connection to the runner's node socket: the link's queues, routes and segments."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import dora_node_api
from dora_daemon.link import LINK_NODE
from dora_daemon.link.errors import LinkProcessError
from dora_node_api.errors import ControlClosed, ControlError
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.frames import ReceivedFrame, close_all
from dora_node_api.protocol.messages import (
    AddInput,
    AddRoute,
    AddSegment,
    Hello,
    OpenSegment,
    Refused,
    RemoveInput,
    RemoveRoute,
    SegmentFd,
    SegmentUnknown,
    Welcome,
)
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.producer.pool import Pool, default_pool_cap
from dora_node_api.transport.producer.sending import WaitForRoom
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

_ANSWER_SECONDS = 10.0
"""Time for the runner to answer a request."""
_WELCOME_SECONDS = 30.0
"""Time for the runner to admit the link."""


class NodeClient:
    """The link as a node. One thread calls `receive`; any thread may open segments."""

    def __init__(self, path: str, incarnation: int, *, wait_for_room: WaitForRoom) -> None:
        """Connect and wait for the Welcome. Raises LinkProcessError."""
        self.receivers: dict[int, LinkReceiver] = {}
        """Receivers by queue number; each is read by one stream."""
        self.removed: list[LinkReceiver] = []
        """Receivers of removed queues, closed once their stream has ended."""
        self.on_warning: Callable[[str], None] = lambda sentence: None
        self.gone = False
        self._answers: dict[int, ReceivedFrame | None] = {}
        self._answered = threading.Condition()
        self._requests = 0
        self._inputs: dict[str, int] = {}
        try:
            self._control = ControlSocket.connect(path)
            self._control.send(
                Hello(
                    LINK_NODE,
                    incarnation,
                    os.getpid(),
                    version=dora_node_api.__version__,
                    package=os.path.dirname(dora_node_api.__file__),  # noqa: PTH120
                )
            )
            first = self._control.receive(timeout=_WELCOME_SECONDS)
        except (OSError, ControlClosed, ControlError) as error:
            raise LinkProcessError(
                f"cannot connect to the runner's node socket {path}: {error}"
            ) from error
        if first is None or not isinstance(first.message, Welcome):
            raise LinkProcessError(f"the runner refused the link: {_reason(first)}")
        welcome = first.message
        self.board = Board.attach(first.descriptors[0], welcome.board_size)
        self.pool = Pool(welcome.config.pool_size or default_pool_cap(), self._register_segment)
        self.forwarder = Forwarder(
            self.pool, self.board, welcome.incarnation, wait_for_room=wait_for_room,
            on_first_drop=lambda _spec, sentence: self.on_warning(sentence),
        )  # fmt: skip
        rest = list(first.descriptors[1:])
        for spec in welcome.queues:
            self._add_receiver(spec, rest[: spec.consumer_descriptors])
            del rest[: spec.consumer_descriptors]
        close_all(rest)

    def fileno(self) -> int:
        return self._control.fileno()

    def receive(self) -> bool:
        """Handle what the runner has sent; return whether queues or routes changed."""
        changed = False
        while not self.gone:
            try:
                received = self._control.receive(timeout=0)
            except ControlClosed:
                self.gone = True
                break
            except ControlError as error:
                self.on_warning(f"malformed message of the runner: {error}")
                self.gone = True
                break
            if received is None:
                break
            changed = self._handle(received) or changed
        return changed

    def _handle(self, received: ReceivedFrame) -> bool:
        match received.message:
            case AddRoute(output, spec):
                self.forwarder.add_route(
                    output, spec, QueueEnds.from_producer_fds(received.descriptors)
                )
                return True
            case RemoveRoute(queue):
                self.forwarder.remove_route(queue)
                return True
            case AddInput(config, queue) if queue is not None:
                self._inputs[config.id] = queue.queue
                self._add_receiver(queue, list(received.descriptors))
                return True
            case RemoveInput(name):
                receiver = self.receivers.pop(self._inputs.pop(name, -1), None)
                if receiver is not None:
                    self.removed.append(receiver)
                return True
            case SegmentFd(request) | SegmentUnknown(request):
                with self._answered:
                    if request in self._answers:
                        self._answers[request] = received
                        self._answered.notify_all()
                        return False
            case _:
                pass
        close_all(received.descriptors)
        return False

    def _add_receiver(self, spec: QueueSpec, descriptors: list[int]) -> None:
        ends = QueueEnds.from_consumer_fds(descriptors)
        self._inputs.setdefault(spec.input, spec.queue)
        self.receivers[spec.queue] = LinkReceiver(spec, ends, self.board, self.open_segment)

    # --- segments ---------------------------------------------------------------------------------

    def _register_segment(self, number: int, descriptor: int, size: int) -> None:
        self._send(AddSegment(number=number, size=size), (descriptor,))

    def _send(self, message: AddSegment | OpenSegment, descriptors: tuple[int, ...] = ()) -> None:
        try:
            self._control.send(message, descriptors)
        except ControlClosed:
            self.gone = True

    def open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        """Return descriptor and size of a producer's segment. Raises LookupError if it is gone.

        Not on the thread that calls `receive`.
        """
        deadline = time.monotonic() + _ANSWER_SECONDS
        with self._answered:
            self._requests += 1
            request = self._requests
            self._answers[request] = None
            self._send(OpenSegment(request, incarnation, number))
            while (answer := self._answers[request]) is None:
                left = deadline - time.monotonic()
                if left <= 0 or self.gone:
                    break
                self._answered.wait(left)
            del self._answers[request]
        if answer is None:
            raise LookupError("the runner did not answer a request for a segment")
        if not isinstance(answer.message, SegmentFd) or len(answer.descriptors) != 1:
            close_all(answer.descriptors)
            raise LookupError(f"segment {number} of incarnation {incarnation} is gone")
        return answer.descriptors[0], answer.message.size


def _reason(first: ReceivedFrame | None) -> str:
    if first is None:
        return f"no answer within {_WELCOME_SECONDS:g} s"
    close_all(first.descriptors)
    if isinstance(first.message, Refused):
        return first.message.message
    return f"it sent {type(first.message).__name__} instead of a Welcome"
